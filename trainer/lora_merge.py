"""Adapters folded into the weights: what the weights-mode server loads."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import save_file
from torch import Tensor

from trainer.lora import LowRankLinear


@contextmanager
def merged(model: PeftModel, stored: torch.dtype) -> Iterator[None]:
    """Within it the model runs on W + s B A, rounded to the dtype that it is stored in: exactly the weights that are
    published.

    Restores the trunk by pointer, since subtracting s B A again in bf16 would not give W back.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, LowRankLinear)]
    trunk = [layer.base_layer.weight.data for layer in layers]
    with torch.no_grad(), model.disable_adapter():
        try:
            for layer in layers:
                layer.base_layer.weight.data = layer.merged_weight(stored)
            yield
        finally:
            for layer, weight in zip(layers, trunk, strict=True):
                layer.base_layer.weight.data = weight


def merged_state(model: PeftModel, stored: torch.dtype) -> dict[str, Tensor]:
    """Every tensor of the merged model under its checkpoint name; a tied tensor once, under its first name."""
    state: dict[str, Tensor] = {}
    seen: set[int] = set()
    with merged(model, stored):
        for name, tensor in model.get_base_model().state_dict().items():
            if ".lora_" in name or tensor.data_ptr() in seen:
                continue
            seen.add(tensor.data_ptr())
            state[name.replace(".base_layer.", ".")] = tensor.to(stored).contiguous()
    return state


def save_merged(model: PeftModel, directory: Path, stored: torch.dtype) -> None:
    """Write config and weights, these in `stored`. The same adapters give the same bytes."""
    directory.mkdir(parents=True, exist_ok=True)
    base = model.get_base_model()
    config = copy.deepcopy(base.config)
    config.dtype = stored
    config.save_pretrained(directory)
    if base.generation_config is not None:
        base.generation_config.save_pretrained(directory)
    save_file(merged_state(model, stored), directory / "model.safetensors", metadata={"format": "pt"})
