"""An engine for tests of what is around it."""

import asyncio
from collections.abc import AsyncGenerator

from server.engines.base import Delta, GenerationRequest, SwapFailed, SwapMode, Weights

SILENT, TICKS = 2, 60
"""Asked for so many tokens, it does as its docstring says."""
TICK_S = 0.05


class Endless:
    """An engine that says a word for each candidate, and then never comes to an end.

    Asked for one token it answers, for SILENT it says nothing at all, and for TICKS it says one word after another.
    """

    name = "endless"
    swap_mode: SwapMode = "weights"
    max_model_len = 512

    def __init__(self) -> None:
        self.version = ""
        self.open = 0

    async def start(self) -> None:
        return

    async def died(self) -> str:
        return await asyncio.Future()

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        self.open += 1
        try:
            whole = request.sampling.max_tokens in (1, TICKS)
            if request.sampling.max_tokens == SILENT:
                await asyncio.Future()
            for _ in range(request.sampling.max_tokens - 1 if whole else 0):
                yield Delta(0, "word ", (1,), (-0.5,))
                await asyncio.sleep(TICK_S)
            for index in range(request.candidate_count):
                yield Delta(index, "word", (1,), (-0.5,), "length" if whole else None)
            if not whole:
                await asyncio.Future()
        finally:
            self.open -= 1

    async def swap(self, weights: Weights) -> None:
        self.version = weights.version

    async def load(self, weights: Weights) -> None:
        raise SwapFailed("one version at a time")

    async def unload(self, version: str) -> None:
        return

    async def score(
        self, prompt_token_ids: tuple[int, ...], completion_token_ids: tuple[int, ...], version: str = ""
    ) -> tuple[float, ...]:
        return (-0.5,) * len(completion_token_ids)

    async def stop(self) -> None:
        return
