"""Running only the lower layers of a decoder, for what goes into some of them."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


def lower_states(decoder: nn.Module, wanted: Sequence[int], **inputs: Any) -> tuple[Tensor, ...]:
    """What `decoder` feeds its layers `wanted` on `inputs`; 0 is the embeddings' output. No higher layer is run.

    Raises:
        ValueError: there is no such layer.
    """
    full: nn.ModuleList = decoder.layers  # type: ignore[assignment]
    depth = max(wanted)
    if min(wanted) < 0 or depth >= len(full):
        raise ValueError(f"layers {tuple(wanted)}: this decoder's are 0 … {len(full) - 1}")
    layers = [*full[:depth], _Pass()]
    found: dict[int, Tensor] = {}

    def listen(index: int) -> Any:
        return layers[index].register_forward_pre_hook(lambda _, arguments: found.update({index: arguments[0]}))

    handles = [listen(index) for index in set(wanted)]
    decoder.layers = nn.ModuleList(layers)
    try:
        decoder(**inputs, use_cache=False)
    finally:
        decoder.layers = full
        for handle in handles:
            handle.remove()
    return tuple(found[index] for index in wanted)


class _Pass(nn.Module):
    def forward(self, hidden_RSD: Tensor, *_: Any, **__: Any) -> Tensor:
        return hidden_RSD
