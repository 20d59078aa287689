"""Who may call a port, and how much: API keys by digest, a quota each."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import grpc

from server.identity import DEFAULT_TENANT
from server.keys import digest
from server.rates import Bucket
from server.status import Refused, exhausted
from settings.access import ApiKey

SCHEME = "bearer "
OPEN = "/grpc.health.v1.Health/"
"""Health needs no credentials: kubelets and load balancers have none."""


class Access:
    """The keys of one port. Without any, everyone is the default tenant and has no quota."""

    def __init__(self, keys: Sequence[ApiKey]) -> None:
        self._callers: dict[str, Caller] = {}
        self.replace(keys)
        self._anyone = Caller(ApiKey(sha256="0" * 64, tenant=DEFAULT_TENANT))

    def replace(self, keys: Sequence[ApiKey]) -> None:
        """From the next call on these are the keys. One that stays as it is keeps count of its quota; calls that are
        open with one that goes are finished."""
        same = {digest: caller for digest, caller in self._callers.items() if caller.key in keys}
        self._callers = {key.sha256: same.get(key.sha256) or Caller(key) for key in keys}

    def caller(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> "Caller":
        """Whose call this is. Raises Refused (UNAUTHENTICATED)."""
        if not self._callers or method.startswith(OPEN):
            return self._anyone
        given = next((str(value) for name, value in metadata if name == "authorization"), "")
        if not given:
            raise _unknown("send metadata 'authorization: Bearer KEY'", "CREDENTIALS_MISSING")
        # Looked up by digest: how long that takes tells nothing about any key.
        caller = self._callers.get(digest(given[len(SCHEME) :])) if given[: len(SCHEME)].lower() == SCHEME else None
        if caller is None:
            raise _unknown("the key in 'authorization' is not one of this port's; it may be revoked", "KEY_UNKNOWN")
        return caller


class Caller:
    """One key: its tenant, and what is left of its quota on this replica."""

    def __init__(self, key: ApiKey) -> None:
        self.key = key
        self.tenant = key.tenant
        self._per_minute = key.calls_per_minute
        self._max_in_flight = key.max_in_flight
        self._in_flight = 0
        self._bucket = Bucket(key.calls_per_minute, time.monotonic())

    @contextmanager
    def call(self) -> Iterator[None]:
        """Around one call. Raises Refused (RESOURCE_EXHAUSTED)."""
        if self._max_in_flight and self._in_flight >= self._max_in_flight:
            raise exhausted(
                f"{self._in_flight} calls are open with this key, the most that it may have (max_in_flight)",
                "QUOTA_IN_FLIGHT",
                retry_after_s=1,
            )
        if self._per_minute:
            self._take_token()
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1

    def _take_token(self) -> None:
        """A bucket of `calls_per_minute` tokens that fills up within a minute."""
        if wait_s := self._bucket.take(time.monotonic(), self._per_minute / 60, self._per_minute):
            raise exhausted(
                f"this key may call {self._per_minute} times a minute (calls_per_minute)",
                "QUOTA_RATE",
                retry_after_s=wait_s,
            )


def _unknown(message: str, reason: str) -> Refused:
    return Refused(grpc.StatusCode.UNAUTHENTICATED, message, reason)
