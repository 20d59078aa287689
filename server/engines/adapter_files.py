"""Reads a LoRA adapter's files (PEFT's form), and refuses what does not fit the base model."""

import json
from pathlib import Path
from typing import Any

from server.engines.weights import BadWeights, Shapes, check_shapes, shapes, unit

CONFIG, PREFIX = "adapter_config.json", "base_model.model."
UNSUPPORTED = ("modules_to_save", "use_dora", "use_rslora", "lora_bias", "rank_pattern", "alpha_pattern")
"""Parts of PEFT that the trainer does not use: what they mean would not be checked here."""


def adaptable(base: Shapes) -> list[str]:
    """Names of the linear layers within decoder layers: those that adapters may be on."""
    return sorted({name.split(".")[-2] for name, shape in base.items() if unit(name) != name and len(shape) == 2})


def check_adapter(directory: Path, base: Shapes, max_rank: int) -> None:
    """Every adapted layer of `base` has its two factors, of the rank that the adapter's configuration names.

    Args:
        base: the base model's tensors, in checkpoint names.
        max_rank: what the engine has room for.

    Raises:
        BadWeights: it does not fit; the message names the first tensors or the field at fault.
    """
    config = _config(directory)
    rank: int = config["r"]
    if rank > max_rank:
        raise BadWeights(f"rank {rank} is more than this server takes (server.vllm.max_adapter_rank={max_rank})")
    expected: dict[str, tuple[int, ...]] = {}
    for name, shape in base.items():
        if _is_adapted(name, config):
            out_features, in_features = shape
            module = PREFIX + name.removesuffix(".weight")
            expected[f"{module}.lora_A.weight"] = (rank, in_features)
            expected[f"{module}.lora_B.weight"] = (out_features, rank)
    if not expected:
        raise BadWeights(f"{CONFIG}: target_modules={config['target_modules']} are no layers of this server's base")
    check_shapes(shapes(directory), expected)


def _config(directory: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((directory / CONFIG).read_text())
    except (OSError, ValueError) as error:
        raise BadWeights(f"{CONFIG} cannot be read: {error}") from error
    kind, rank, targets = (config.get(field) for field in ("peft_type", "r", "target_modules"))
    if kind != "LORA" or not isinstance(rank, int) or rank < 1 or not isinstance(targets, list):
        raise BadWeights(f"{CONFIG}: peft_type={kind!r}, r={rank!r}, target_modules={targets!r} are no LoRA adapter's")
    for field in UNSUPPORTED:
        if config.get(field):
            raise BadWeights(f"{CONFIG}: {field}={config[field]!r} is not supported")
    if config.get("bias", "none") != "none":
        raise BadWeights(f"{CONFIG}: bias={config['bias']!r} is not supported")
    return config


def _is_adapted(tensor: str, config: dict[str, Any]) -> bool:
    """Whether the linear layer that `tensor` belongs to carries an adapter, as PEFT would choose."""
    *path, module, kind = tensor.split(".")
    if kind != "weight" or module not in config["target_modules"] or unit(tensor) == tensor:
        return False
    chosen = config.get("layers_to_transform")
    if chosen is None:
        return True
    layers = [chosen] if isinstance(chosen, int) else chosen
    return any(part.isdigit() and int(part) in layers for part in path)
