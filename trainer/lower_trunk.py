"""The lower layers of a decoder, which are the same for reference and policy: run alone, kept, and put back."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from trainer.batching import Layout

LowerStates = tuple[Tensor, Tensor]
"""What goes into a layer at a sample's prompt_PD and at its response_TD."""


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


def take(states_RSD: Tensor, layout: Layout, sample: int) -> LowerStates:
    """The part that belongs to one sample of the layout."""
    row, prompt = layout.prompt_rows[sample]
    response = layout.token_BT[sample][layout.mask_BT[sample]]
    return states_RSD[row, :prompt], states_RSD.flatten(0, 1)[response]


def put(kept: Sequence[LowerStates], layout: Layout) -> Tensor:
    """[R, S, D] of a layout that has just these samples, in this order; zero at padding."""
    rows, width = layout.input_ids_RS.shape
    first_PD, _ = kept[0]
    states_RSD = first_PD.new_zeros(rows, width, first_PD.shape[-1])
    flat_ND = states_RSD.view(rows * width, -1)
    for sample, (prompt_PD, response_TD) in enumerate(kept):
        row, prompt = layout.prompt_rows[sample]
        states_RSD[row, :prompt] = prompt_PD
        flat_ND[layout.token_BT[sample][layout.mask_BT[sample]]] = response_TD
    return states_RSD


class _Pass(nn.Module):
    def forward(self, hidden_RSD: Tensor, *_: Any, **__: Any) -> Tensor:
        return hidden_RSD
