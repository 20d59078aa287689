"""Who decodes next: users first, in order of arrival; background work takes what is left and gives way."""

from collections import deque
from collections.abc import Iterable

from server.engines.batch import Sequence

PREFILL_TOKENS = 4096
"""Tokens prefilled between two tokens of those already decoding: bounds the pause that newcomers cause."""


class Schedule:
    """The sequences that wait for a row of the batch."""

    def __init__(self, max_batch: int) -> None:
        self._max_batch = max_batch
        self._users: deque[Sequence] = deque()
        self._background: deque[Sequence] = deque()

    def add(self, sequences: Iterable[Sequence]) -> None:
        for sequence in sequences:
            (self._background if sequence.request.background else self._users).append(sequence)

    def pick(self, decoding: list[Sequence]) -> tuple[list[Sequence], list[Sequence]]:
        """(joining, leaving) for the next token; those that leave wait again, at the head of the background."""
        self._users = deque(s for s in self._users if not s.done)
        self._background = deque(s for s in self._background if not s.done)
        live = [s for s in decoding if not s.done]
        free = self._max_batch - len(live)
        short = max(0, len(self._users) - free)
        background = [s for s in live if s.request.background]
        leaving = background[max(0, len(background) - short) :]
        self._background.extendleft(reversed(leaving))
        joining = self._take(self._users, free + len(leaving), PREFILL_TOKENS)
        if not self._users:
            spent = sum(len(s.token_ids) for s in joining)
            joining += self._take(self._background, free + len(leaving) - len(joining), PREFILL_TOKENS - spent)
        return joining, leaving

    @staticmethod
    def _take(queue: deque[Sequence], rows: int, tokens: int) -> list[Sequence]:
        taken: list[Sequence] = []
        while queue and len(taken) < rows and tokens > 0:
            tokens -= len(queue[0].token_ids)
            taken.append(queue.popleft())
        return taken
