"""Running only the upper layers of a decoder, from stored inputs of the first of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


class UpperTrunk:
    """Makes `decoder` start at layer `split`: the layers below become placeholders for as long as it is asked to.

    The list keeps its length, so what decoders look up by layer index (attention type, cache) stays right, and the
    stored states replace whatever the decoder made of its embeddings.
    """

    def __init__(self, decoder: nn.Module, split: int) -> None:
        self._decoder = decoder
        self._full: nn.ModuleList = decoder.layers  # type: ignore[assignment]
        self._resume = _Resume()
        below = [self._resume if index == 0 else _Pass() for index in range(split)]
        self._upper = nn.ModuleList([*below, *self._full[split:]])

    @contextmanager
    def starting_from(self, hidden_RSD: Tensor) -> Iterator[None]:
        self._resume.hidden_RSD = hidden_RSD
        self._decoder.layers = self._upper
        try:
            yield
        finally:
            self._decoder.layers = self._full
            self._resume.hidden_RSD = None


class _Resume(nn.Module):
    hidden_RSD: Tensor | None = None

    def forward(self, *_: Any, **__: Any) -> Tensor | None:
        return self.hidden_RSD


class _Pass(nn.Module):
    def forward(self, hidden_RSD: Tensor, *_: Any, **__: Any) -> Tensor:
        return hidden_RSD
