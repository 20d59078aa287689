"""Reads the safetensors of a version, and refuses them before they touch an engine."""

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

Shapes = Mapping[str, tuple[int, ...]]
_LAYER = re.compile(r".*?\.\d+\.")


class BadWeights(ValueError):
    """Weights that must not reach an engine; the message names the first tensors at fault."""


def tensors(directory: Path, names: Collection[str] | None = None) -> Iterator[tuple[str, Tensor]]:
    """Every tensor in `directory`, or those of `names`, read one at a time. Raises BadWeights: a file is unreadable."""
    for file in _files(directory):
        with _open(file) as opened:
            for name in opened.keys():  # noqa: SIM118 - not a mapping
                if names is None or name in names:
                    yield name, opened.get_tensor(name)


def shapes(directory: Path) -> dict[str, tuple[int, ...]]:
    """Tensor shapes by name, from the files' headers. Raises BadWeights."""
    found: dict[str, tuple[int, ...]] = {}
    for file in _files(directory):
        with _open(file) as opened:
            found |= {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    return found


def check_shapes(found: Shapes, expected: Shapes, optional: frozenset[str] = frozenset()) -> None:
    """Raises BadWeights unless `found` is `expected`, tensor by tensor; `optional` ones (tied) may stand or lack."""
    missing = sorted(set(expected) - set(found) - optional)
    unknown = sorted(set(found) - set(expected) - optional)
    wrong = [
        f"{name} is {list(found[name])} where the model has {list(expected[name])}"
        for name in sorted(set(found) & set(expected))
        if found[name] != expected[name]
    ]
    problems = [
        f"{len(names)} tensors {what}: {', '.join(names[:3])}"
        for what, names in (("missing", missing), ("unknown", unknown), ("of the wrong shape", wrong))
        if names
    ]
    if problems:
        raise BadWeights("; ".join(problems))


def check_finite(directory: Path) -> None:
    """Raises BadWeights if a value is NaN or infinite."""
    for name, tensor in tensors(directory):
        # One pass: NaN is the least and the greatest of what holds it. `isfinite` makes copies, and takes nine times as
        # long.
        if tensor.numel() and not all(torch.isfinite(end) for end in torch.aminmax(tensor)):
            raise BadWeights(f"{name} holds values that are not finite")


def unit(name: str) -> str:
    """The decoder layer that a tensor or parameter is part of, or itself: the engine fuses tensors within a layer."""
    layer = _LAYER.match(name)
    return layer.group() if layer else name


def difference(old: Path, new: Path) -> list[str]:
    """Tensors of `new` whose units are not, bit for bit, those of `old`. Raises BadWeights: `new` cannot be read."""
    with ExitStack() as opened:
        before: dict[str, Any] = {}
        for file in sorted(old.glob("*.safetensors")):
            handle = opened.enter_context(_open(file))
            before |= dict.fromkeys(handle.keys(), handle)
        changed = {
            unit(name)
            for name, tensor in tensors(new)
            if name not in before or not _same_bits(tensor, before[name].get_tensor(name))
        }
    return [name for name in shapes(new) if unit(name) in changed]


def _same_bits(one: Tensor, other: Tensor) -> bool:
    same_kind = one.dtype == other.dtype and one.shape == other.shape
    return same_kind and torch.equal(one.view(torch.uint8), other.view(torch.uint8))


def _files(directory: Path) -> list[Path]:
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise BadWeights(f"{directory} holds no .safetensors file")
    return files


@contextmanager
def _open(file: Path) -> Iterator[Any]:
    try:
        with safe_open(file, framework="pt") as opened:
            yield opened
    except (SafetensorError, OSError) as error:
        raise BadWeights(f"{file.name} cannot be read: {error}") from error
