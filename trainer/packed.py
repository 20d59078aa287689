"""Weights laid out once for the CPU's matrix kernels, where many small products with them follow: in decoding."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn


@contextmanager
def packed(model: nn.Module, rows: int) -> Iterator[None]:
    """Within it the bf16 linear layers of `model` on CPU read a copy of their weights in the kernels' own layout.

    Otherwise every product lays them out anew, which at a few rows costs a third of its time.

    Args:
        rows: of most products that follow.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear) and _packs(layer.weight)]
    for layer in layers:
        weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.data, rows)
        layer.forward = partial(_product, weight, layer.bias)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward  # the class's own again


def _packs(weight: Tensor) -> bool:
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.bfloat16
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


def _product(weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")  # type: ignore[no-any-return]
