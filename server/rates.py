"""How fast one rater may send feedback, or one key call: whoever floods is told when to come back, and others are not
crowded out."""

import time
from collections import OrderedDict
from dataclasses import dataclass

from server.metrics import RATE_LIMITED
from server.status import exhausted

MAX_RATERS = 50_000
"""Remembered at once. Who comes back after so many others starts afresh, with a full bucket."""


@dataclass(slots=True)
class Bucket:
    """Tokens that flow in evenly, up to a brim; each call takes one."""

    tokens: float
    filled: float
    """When they were that many, in seconds of a clock that never goes back."""

    def take(self, now: float, per_s: float, brim: float) -> float:
        """0: one was taken. Else seconds until there is one."""
        self.tokens = min(brim, self.tokens + (now - self.filled) * per_s)
        self.filled = now
        if self.tokens < 1:
            return (1 - self.tokens) / per_s
        self.tokens -= 1
        return 0.0


class RaterRates:
    """A token bucket for each (tenant, rater) seen lately; bounded in memory."""

    def __init__(self, per_minute: float, burst: int, capacity: int = MAX_RATERS) -> None:
        """`per_minute` 0: no limit."""
        self._per_s = per_minute / 60
        self._burst = float(burst)
        self._capacity = capacity
        self._buckets: OrderedDict[tuple[str, str], Bucket] = OrderedDict()
        """Least recently used first."""

    def take(self, tenant: str, rater_id: str, now: float | None = None) -> None:
        """Count one feedback. Raises Refused (RESOURCE_EXHAUSTED, with the wait)."""
        if not self._per_s:
            return
        now = time.monotonic() if now is None else now
        rater = (tenant, rater_id)
        bucket = self._buckets[rater] = self._buckets.pop(rater, Bucket(self._burst, now))
        if len(self._buckets) > self._capacity:
            self._buckets.popitem(last=False)
        if wait_s := bucket.take(now, self._per_s, self._burst):
            RATE_LIMITED.inc()
            raise exhausted(
                f"feedback.rater_id={rater_id!r} sends more than {self._per_s * 60:g} feedbacks a minute"
                " (feedback.rater_per_minute)",
                "RATER_RATE",
                retry_after_s=wait_s,
            )

    def __len__(self) -> int:
        return len(self._buckets)
