"""The spool: accepted events on this replica's disk, in order, until the brokers (or the trainer) have them.

SQLite, WAL, synchronous=FULL: `append` returns after fsync, and a torn write rolls back to the last whole commit.
A row without a position waits to be sent. With `keep_until_read`, a sent row stays with its position until the
joiner has committed past it, and becomes unsent again when the brokers have become another cluster.
"""

import contextlib
import fcntl
import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feedback.event import Event, Position

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    topic TEXT NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, headers TEXT NOT NULL,
    bytes INTEGER NOT NULL, spool_time REAL NOT NULL,
    cluster TEXT, partition INTEGER, offset INTEGER,  -- where it was sent; NULL while unsent
    refused TEXT                                      -- why the brokers will never take it
);
CREATE INDEX IF NOT EXISTS unsent ON events (sequence) WHERE cluster IS NULL AND refused IS NULL;
CREATE INDEX IF NOT EXISTS sent ON events (cluster, topic, partition, offset) WHERE cluster IS NOT NULL;
"""
_UNSENT = "cluster IS NULL AND refused IS NULL"


class SpoolFull(RuntimeError):
    """The spool holds as much as it may; nothing was accepted and nothing dropped."""


@dataclass(frozen=True, slots=True)
class SpooledEvent:
    sequence: int
    event: Event


@dataclass(frozen=True, slots=True)
class SpoolState:
    unsent: int
    kept: int
    """Sent, kept until read."""
    refused: int
    bytes: int
    oldest_unsent_time: float | None
    """Unix seconds."""


class SpoolTaken(OSError):
    """Another process works on this spool; give each replica a data directory of its own."""


class Spool:
    """Thread-safe; one process at a time (others may read, as `read_spooled_ids` does). Raises SpoolTaken."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._max_bytes = max_bytes
        self._lock = threading.RLock()
        self._held = path.with_name(f"{path.name}.lock").open("w")
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._held.close()
            raise SpoolTaken(f"{path} is in use by another process; set another data_dir for this one") from None
        self._db = sqlite3.connect(path, timeout=2.0, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_SCHEMA)
        self._bytes: int = self._one("SELECT coalesce(sum(bytes), 0) FROM events")
        self._unsent: int = self._one(f"SELECT count(*) FROM events WHERE {_UNSENT}")

    @property
    def unsent(self) -> int:
        return self._unsent

    def has_room(self, event: Event) -> bool:
        return self._bytes + event.size <= self._max_bytes

    def append(self, events: Sequence[tuple[Event, tuple[str, Position] | None]]) -> list[SpoolFull | None]:
        """Fsync `events`, each with (cluster, position) if already sent; a SpoolFull for each that found no room."""
        outcomes: list[SpoolFull | None] = []
        with self._lock:
            added_bytes = added_unsent = 0
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for event, sent in events:
                    if self._bytes + added_bytes + event.size > self._max_bytes:
                        outcomes.append(SpoolFull(f"the spool holds {self._bytes} of {self._max_bytes} bytes"))
                        continue
                    self._insert(event, sent)
                    added_bytes += event.size
                    added_unsent += sent is None
                    outcomes.append(None)
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._bytes += added_bytes
            self._unsent += added_unsent
        return outcomes

    def next_unsent(self, limit: int) -> list[SpooledEvent]:
        """The oldest unsent events, in order."""
        with self._lock:
            rows = self._db.execute(
                f"SELECT sequence, topic, key, value, headers FROM events WHERE {_UNSENT} ORDER BY sequence LIMIT ?",
                (limit,),
            ).fetchall()
        return [
            SpooledEvent(
                sequence,
                Event(topic, key, value, tuple((name, text.encode()) for name, text in json.loads(headers))),
            )
            for sequence, topic, key, value, headers in rows
        ]

    def mark_sent(self, cluster: str, positions: Iterable[tuple[int, Position]], *, keep: bool) -> None:
        """Acknowledged by the brokers: drop the rows, or keep them until they are read."""
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            for sequence, position in positions:
                if keep:
                    self._db.execute(
                        "UPDATE events SET cluster = ?, partition = ?, offset = ? WHERE sequence = ?",
                        (cluster, position.partition, position.offset, sequence),
                    )
                else:
                    self._db.execute("DELETE FROM events WHERE sequence = ?", (sequence,))
            self._recount()

    def mark_refused(self, sequence: int, reason: str) -> None:
        """The brokers will never take it: kept for the operator, out of the others' way."""
        with self._lock, self._db:
            self._db.execute("UPDATE events SET refused = ? WHERE sequence = ?", (reason, sequence))
            self._recount()

    def forget_read(self, cluster: str, read: Mapping[tuple[str, int], int]) -> None:
        """Drop kept rows that the joiner has stored: those before `read[topic, partition]` in `cluster`."""
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "DELETE FROM events WHERE cluster = ? AND topic = ? AND partition = ? AND offset < ?",
                [(cluster, topic, partition, offset) for (topic, partition), offset in read.items()],
            )
            self._recount()

    def unsend_elsewhere(self, cluster: str) -> int:
        """Rows kept for another cluster than `cluster` wait to be sent again; returns how many."""
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            changed = self._db.execute(
                "UPDATE events SET cluster = NULL, partition = NULL, offset = NULL WHERE cluster != ?", (cluster,)
            ).rowcount
            self._recount()
        return changed

    def state(self) -> SpoolState:
        with self._lock:
            kept = self._one("SELECT count(*) FROM events WHERE cluster IS NOT NULL")
            refused = self._one("SELECT count(*) FROM events WHERE refused IS NOT NULL")
            oldest = self._one(f"SELECT min(spool_time) FROM events WHERE {_UNSENT}")
            return SpoolState(self._unsent, kept, refused, self._bytes, oldest)

    def close(self) -> None:
        with self._lock:
            self._db.close()
            self._held.close()

    def _insert(self, event: Event, sent: tuple[str, Position] | None) -> None:
        headers = json.dumps([(name, value.decode()) for name, value in event.headers])
        cluster, position = sent or (None, None)
        self._db.execute(
            "INSERT INTO events (topic, key, value, headers, bytes, spool_time, cluster, partition, offset)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(event.topic, event.key, event.value, headers, event.size, time.time(), cluster),
                position and position.partition,
                position and position.offset,
            ),
        )

    def _recount(self) -> None:
        self._bytes = self._one("SELECT coalesce(sum(bytes), 0) FROM events")
        self._unsent = self._one(f"SELECT count(*) FROM events WHERE {_UNSENT}")

    def _one(self, query: str) -> Any:
        return self._db.execute(query).fetchone()[0]


def read_spooled_ids(path: Path, topic: str) -> list[str]:
    """The ids of `topic`'s events in a spool, also while its process works on it: those that wait or are kept."""
    with contextlib.closing(sqlite3.connect(path, timeout=10.0)) as db:
        db.execute("PRAGMA query_only=ON")
        rows = db.execute("SELECT headers FROM events WHERE topic = ?", (topic,)).fetchall()
    return [dict(json.loads(headers)).get("ce_id", "") for (headers,) in rows]
