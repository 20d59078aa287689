"""A state dict on disk without pickle: tensors as safetensors, everything around them as JSON."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

_TENSOR, _TUPLE, _MAP = "$tensor", "$tuple", "$map"


def save_state(state: Any, directory: Path, name: str) -> None:
    """Write `name.safetensors` and `name.json`; any nesting of dicts, lists, tuples, tensors and JSON scalars.

    Floats and tensors come back bit for bit.

    Raises:
        TypeError: something else is in it; the message names where.
    """
    tensors: dict[str, torch.Tensor] = {}
    structure = _flatten(state, name, tensors)
    save_file(tensors, directory / f"{name}.safetensors")
    (directory / f"{name}.json").write_text(json.dumps(structure))


def load_state(directory: Path, name: str) -> Any:
    """What `save_state` was given."""
    structure = json.loads((directory / f"{name}.json").read_text())
    return _restore(structure, load_file(directory / f"{name}.safetensors"))


def _flatten(value: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    match value:
        case torch.Tensor():
            # Its own storage: safetensors refuses tensors that share one.
            tensors[path] = value.detach().cpu().clone().contiguous()
            return {_TENSOR: path}
        case dict():
            pairs = [[key, _flatten(item, f"{path}.{key}", tensors)] for key, item in value.items()]
            return {_MAP: pairs}  # pairs, because JSON would turn an optimiser's integer keys into strings
        case tuple():
            return {_TUPLE: [_flatten(item, f"{path}.{i}", tensors) for i, item in enumerate(value)]}
        case list():
            return [_flatten(item, f"{path}.{i}", tensors) for i, item in enumerate(value)]
        case None | bool() | int() | float() | str():
            return value
        case _:
            raise TypeError(f"{path} is a {type(value).__name__}; a checkpoint holds tensors and JSON values")


def _restore(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    match value:
        case {"$tensor": str(path)}:
            return tensors[path]
        case {"$map": list(pairs)}:
            return {key: _restore(item, tensors) for key, item in pairs}
        case {"$tuple": list(items)}:
            return tuple(_restore(item, tensors) for item in items)
        case list():
            return [_restore(item, tensors) for item in value]
        case _:
            return value
