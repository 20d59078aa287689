"""LoRA on CPU: one matrix product for each adapter in a batch.

vLLM's own, made to run on any device that PyTorch has, copies an adapter's factors out once for every token of the
batch, and gives tokens of the base model what is in the last place. A step of 32 tokens moves more memory for that than
for the model itself, and a long prompt takes gigabytes.

vLLM imports this module in every worker process (`worker_extension_cls`), before it makes the model's layers.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.platforms.cpu import CpuPlatform

NO_ADAPTER = -1


class WorkerExtension:
    """Named in the engine's arguments so that vLLM imports this module; adds nothing to the worker."""


class GroupedLora(PunicaWrapperCPU):  # type: ignore[misc] # untyped here
    """Shapes: T tokens of the batch, I in- and O out-features of a layer, R the rank, P places for adapters."""

    _groups: Sequence[tuple[int, Tensor | None]] = ()

    def update_metadata(self, *args: Any, **kwargs: Any) -> None:
        super().update_metadata(*args, **kwargs)
        self._groups = groups(self.token_lora_indices)

    def add_lora_linear(
        self,
        y: Tensor,
        x: Tensor,
        lora_a_stacked: tuple[Tensor, ...],
        lora_b_stacked: tuple[Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        **_: Any,
    ) -> None:
        """`y` [T, O] += scale · B A `x` [T, I], by each token's adapter; a fused layer is a slice of O for each part.

        Args:
            lora_a_stacked, lora_b_stacked: for each slice [P, 1, R, I] and [P, 1, slice, R].
        """
        for place, others_T1 in self._groups:
            begin = 0
            for a_P1RI, b_P1SR, width in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
                low_TR = x @ a_P1RI[place, 0].T
                if others_T1 is not None:
                    low_TR.masked_fill_(others_T1, 0)
                y[:, begin : begin + width].addmm_(low_TR, b_P1SR[place, 0].T, alpha=scale)
                begin += width


def groups(places_T: Tensor) -> list[tuple[int, Tensor | None]]:
    """Each adapter in a batch by its place, and which tokens are not its own; None where all are."""
    present: list[int] = sorted(set(places_T.tolist()))
    alone = len(present) == 1
    return [(place, None if alone else (places_T != place)[:, None]) for place in present if place != NO_ADAPTER]


CpuPlatform.get_punica_wrapper = classmethod(lambda cls: f"{__name__}.{GroupedLora.__qualname__}")
