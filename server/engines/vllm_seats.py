"""Bounds how many candidates of background work vLLM holds at once.

vLLM's priorities order those who wait, but it takes no slot from a running request to give it to a more important
one. Slots that background work cannot fill are therefore what a user finds free.
"""

import asyncio


class Seats:
    """`count` seats, given in order of asking."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = asyncio.Semaphore(count)
        self._line = asyncio.Lock()

    async def take(self, wanted: int) -> int:
        """Waits for `wanted` seats, or for all of them if there are fewer; returns how many were taken."""
        taken = 0
        try:
            async with self._line:
                while taken < min(wanted, self._count):
                    await self._free.acquire()
                    taken += 1
        except asyncio.CancelledError:
            self.give_back(taken)
            raise
        return taken

    def give_back(self, count: int) -> None:
        for _ in range(count):
            self._free.release()
