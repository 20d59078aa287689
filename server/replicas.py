"""What the replicas that share a registry agree on: who swaps now, and which of them try a canary."""

import asyncio
import logging
import math
import os
import socket
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from itertools import count

from registry import Lease

log = logging.getLogger(__name__)
TTL_S = 15.0
"""How long a replica that fell silent keeps others waiting."""
RENEW_S = TTL_S / 3


def replica_name() -> str:
    """Unlike any other replica's, and unlike this one's after a restart."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


@asynccontextmanager
async def turn(lease: Lease) -> AsyncGenerator[bool, None]:
    """Whether it is this replica's turn; if so, it stays so inside. Raises OSError: the registry does not answer."""
    if not await asyncio.to_thread(lease.acquire):
        yield False
        return
    keeping = asyncio.create_task(_keep(lease), name="keep the lease")
    try:
        yield True
    finally:
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping
        with suppress(Exception):  # then it lapses
            await asyncio.to_thread(lease.release)


async def _keep(lease: Lease) -> None:
    while True:
        await asyncio.sleep(RENEW_S)
        try:
            await asyncio.to_thread(lease.acquire)
        except Exception as error:  # whatever a filesystem raises
            log.warning("a lease could not be renewed: %s", error)


class Seat:
    """This replica's number among all: the lowest that is free, held while it lives. Blocks on the registry.

    Numbers stand for shares without anybody counting replicas: of the first n seats, ceil(share · n) are the canary's,
    and the first always is.
    """

    def __init__(self, url: str, name: str, canary_share: float, ttl_s: float = TTL_S) -> None:
        self._url = url
        self._name = name
        self._share = canary_share
        self._ttl_s = ttl_s
        self._leases: dict[int, Lease] = {}
        self.number: int | None = None

    @property
    def is_canary(self) -> bool:
        return self.number is not None and self._canaries_below(self.number + 1) > self._canaries_below(self.number)

    def _canaries_below(self, number: int) -> int:
        return math.ceil(self._share * number - 1e-9)

    def keep(self) -> None:
        """Renew the seat, or move to a lower one that became free. Raises OSError."""
        for number in count():
            if self._lease(number).acquire():
                if self.number is not None and self.number != number:
                    self._lease(self.number).release()
                self.number = number
                return

    def leave(self) -> None:
        """Raises OSError."""
        if self.number is not None:
            self._lease(self.number).release()
            self.number = None

    def _lease(self, number: int) -> Lease:
        if number not in self._leases:
            self._leases[number] = Lease(self._url, f"seats/{number}", self._name, self._ttl_s)
        return self._leases[number]


class Replica:
    """One server among those that share the registry at `url`."""

    def __init__(self, url: str, canary_share: float) -> None:
        name = replica_name()
        self.seat = Seat(url, name, canary_share)
        self.swaps = Lease(url, "swap", name, TTL_S)
