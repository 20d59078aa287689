"""How fast one rater may send feedback: whoever floods is told when to come back, and others are not crowded out."""

import time
from collections import OrderedDict

from server.metrics import RATE_LIMITED
from server.status import exhausted

MAX_RATERS = 50_000
"""Remembered at once. Who comes back after so many others starts afresh, with a full bucket."""


class RaterRates:
    """A token bucket for each (tenant, rater) seen lately; bounded in memory."""

    def __init__(self, per_minute: float, burst: int, capacity: int = MAX_RATERS) -> None:
        """`per_minute` 0: no limit."""
        self._per_s = per_minute / 60
        self._burst = float(burst)
        self._capacity = capacity
        self._buckets: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()
        """(tokens left, when that was), least recently used first."""

    def take(self, tenant: str, rater_id: str, now: float | None = None) -> None:
        """Count one feedback. Raises Refused (RESOURCE_EXHAUSTED, with the wait)."""
        if not self._per_s:
            return
        now = time.monotonic() if now is None else now
        rater = (tenant, rater_id)
        tokens, then = self._buckets.pop(rater, (self._burst, now))
        tokens = min(self._burst, tokens + (now - then) * self._per_s)
        granted = tokens >= 1
        self._buckets[rater] = (tokens - granted, now)
        if len(self._buckets) > self._capacity:
            self._buckets.popitem(last=False)
        if not granted:
            RATE_LIMITED.inc()
            raise exhausted(
                f"feedback.rater_id={rater_id!r} sends more than {self._per_s * 60:g} feedbacks a minute"
                " (feedback.rater_per_minute)",
                "RATER_RATE",
                retry_after_s=(1 - tokens) / self._per_s,
            )

    def __len__(self) -> int:
        return len(self._buckets)
