"""What this replica has acknowledged: a line for each feedback, written before the answer. `foldback audit` adds it up.

Not fsynced: the feedback itself is. A line outlives the process that is killed, not the machine; one that is missing
makes the audit blind to that feedback, not wrong about it.
"""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from feedback.event import Durability

KEEP_DAYS = 29
"""The feedback topic's 28 days, and the day that has begun."""


@dataclass(frozen=True, slots=True)
class Receipt:
    time: float
    """Unix seconds."""
    feedback_id: str
    durability: Durability


class Receipts:
    """One file a day in `folder`; old ones are removed. For one thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._day = -1
        self._file = -1
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, acknowledged: Sequence[tuple[str, Durability]]) -> None:
        """One write, however many (feedback_id, durability)."""
        now = time.time()
        self._roll(now)
        stamp = f"{now:.6f}"
        lines = "".join(f"{stamp} {feedback_id} {durability}\n" for feedback_id, durability in acknowledged)
        os.write(self._file, lines.encode())

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._day, self._file = -1, -1

    def _roll(self, now: float) -> None:
        day = int(now // 86400)
        if day == self._day:
            return
        self.close()
        self._file = os.open(self._folder / f"{_day(now)}.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._day = day
        for path in self._folder.glob("*.log"):
            if path.stem < _day(now - KEEP_DAYS * 86400):
                path.unlink(missing_ok=True)


def read_receipts(folder: Path, since: float, until: float) -> Iterator[Receipt]:
    """Those of since ≤ time < until, in Unix seconds. A line that was cut off by a crash is passed over."""
    for path in sorted(folder.glob("*.log")):
        if not _day(since) <= path.stem <= _day(min(until, time.time() + 86400)):
            continue
        with path.open() as lines:
            for line in lines:
                parts = line.split()
                if len(parts) == 3 and line.endswith("\n") and since <= float(parts[0]) < until:
                    yield Receipt(float(parts[0]), parts[1], Durability(parts[2]))


def _day(time_s: float) -> str:
    return datetime.fromtimestamp(max(time_s, 0), UTC).strftime("%Y-%m-%d")
