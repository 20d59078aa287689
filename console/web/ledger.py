"""Dead letters and raters, as the feedback package tells them: it alone reads Kafka and the preference store."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from console.asking import ask, tell

KEEP_S = 5.0
NEWEST = 200
HEAVIEST = 50

Row = dict[str, Any]


@dataclass(slots=True)
class _Kept:
    arguments: tuple[str, ...]
    answer: Any = None
    at: float = float("-inf")
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def read(self) -> Any:
        async with self.lock:
            if time.monotonic() - self.at > KEEP_S:
                self.answer, self.at = await ask("feedback", *self.arguments), time.monotonic()
            return self.answer


class Ledger:
    """An answer is kept a moment for all visitors: each costs a process.

    Raises:
        NotTold: no broker answers, or the trainer's data directory is not on this machine.
    """

    def __init__(self) -> None:
        self._letters = _Kept(("dlq", "ls", "--json", "--limit", str(NEWEST)))
        self._raters = _Kept(("raters", "--json", "--limit", str(HEAVIEST)))

    async def letters(self, *, fresh: bool = False) -> tuple[list[Row], int]:
        """The newest dead letters, newest first, and how many there are; with `fresh` as of now."""
        if fresh:
            self._letters.at = float("-inf")
        told = await self._letters.read()
        return told["letters"], told["total"]

    async def raters(self) -> Row:
        """`heaviest`, and the totals `raters` and `judgements`."""
        told: Row = await self._raters.read()
        return told

    async def replay(self, reference: str) -> str:
        """Send a letter back to the topic it came from. Returns what became of it, for people."""
        return await tell("feedback", "dlq", "replay", reference)
