"""An engine that answers at once: what is left to measure is the server around it."""

import asyncio
from collections.abc import AsyncGenerator

from server.engines.base import Delta, GenerationRequest, SwapFailed, SwapMode, VersionSpan, Weights

WORDS = ("The", " answer", " comes", " at", " once", ",", " a", " token", " a", " time", ".")


class FakeEngine:
    """See server.engines.base.Engine. Each answer has `request.sampling.max_tokens` tokens, one a delta."""

    name = "fake"
    swap_mode: SwapMode = "weights"
    max_model_len = 2048

    def __init__(self) -> None:
        self.version = ""
        self.open = 0
        """Requests in flight."""

    async def start(self) -> None:
        return

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        self.open += 1
        try:
            last = request.sampling.max_tokens - 1
            for position in range(last + 1):
                for index in range(request.candidate_count):
                    end = position == last
                    spans = (VersionSpan(self.version, 0, last + 1),) if end else ()
                    word = WORDS[position % len(WORDS)]
                    yield Delta(index, word, (position,), (-0.5,), "length" if end else None, spans)
        finally:
            self.open -= 1

    async def died(self) -> str:
        return await asyncio.Future()

    async def load(self, weights: Weights) -> None:
        raise SwapFailed("one version at a time")

    async def unload(self, version: str) -> None:
        return

    async def swap(self, weights: Weights) -> None:
        self.version = weights.version

    async def score(
        self, prompt_token_ids: tuple[int, ...], completion_token_ids: tuple[int, ...], version: str = ""
    ) -> tuple[float, ...]:
        return (-0.5,) * len(completion_token_ids)

    async def stop(self) -> None:
        return
