"""How many chats may be in flight, and that none begins once the server drains."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from server.metrics import IN_FLIGHT, IN_FLIGHT_BOUND
from server.status import exhausted, unavailable


class Admission:
    def __init__(self, limit: int) -> None:
        self._limit = limit
        IN_FLIGHT_BOUND.set(limit)
        self._in_flight = 0
        self.draining = asyncio.Event()
        """Set once: the server finishes what it has and takes no more."""

    @contextmanager
    def slot(self) -> Iterator[None]:
        """One chat. Raises Refused: RESOURCE_EXHAUSTED at the limit, UNAVAILABLE while draining."""
        self.check()
        if self._in_flight >= self._limit:
            raise exhausted(
                f"{self._in_flight} chats are in flight, the most this server takes (server.max_in_flight)",
                "QUEUE_FULL",
                retry_after_s=1,
            )
        self._in_flight += 1
        IN_FLIGHT.set(self._in_flight)
        try:
            yield
        finally:
            self._in_flight -= 1
            IN_FLIGHT.set(self._in_flight)

    def check(self) -> None:
        """Raises Refused (UNAVAILABLE) while draining."""
        if self.draining.is_set():
            raise unavailable("this server is shutting down; another replica answers", "DRAINING", retry_after_s=1)
