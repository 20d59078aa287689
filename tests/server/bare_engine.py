"""What engines for tests of what is around them have in common: everything but the answers."""

import asyncio

from server.engines.base import SwapFailed, SwapMode, Weights


class BareEngine:
    """See server.engines.base.Engine. A subclass answers, and counts its requests in `open`."""

    swap_mode: SwapMode = "weights"

    def __init__(self) -> None:
        self.version = ""
        self.open = 0
        """Requests in flight."""

    async def start(self) -> None:
        return

    async def died(self) -> str:
        return await asyncio.Future()

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
