"""An engine for tests of what is around it."""

import asyncio
from collections.abc import AsyncGenerator

from server.engines.base import Delta, GenerationRequest
from tests.server.bare_engine import BareEngine

SILENT, TICKS = 2, 60
"""Asked for so many tokens, it does as its docstring says."""
TICK_S = 0.05


class Endless(BareEngine):
    """An engine that says a word for each candidate, and then never comes to an end.

    Asked for one token it answers, for SILENT it says nothing at all, and for TICKS it says one word after another.
    """

    name = "endless"
    max_model_len = 512

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
