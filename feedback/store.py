"""The preference store: responses and feedback, joined exactly once, with the offsets they were read up to.

Rows and offsets commit in one transaction: killed anywhere, the joiner resumes exactly there. Offsets belong to a
cluster id: with other brokers reading starts at their beginning, and what is known already changes nothing.
"""

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError

from feedback import erasure, join, reading
from feedback.database import open_reader, open_writer
from feedback.deadletters import dead_letter, outcome
from feedback.judgement import Judgement, Kind, Prompt
from feedback.news import outcome_state, retell_outcomes
from feedback.ratings import Rating, read_ratings
from feedback.record import Record, Unusable
from feedback.topics import ERASURES, FEEDBACK, RESPONSES
from foldback.v1 import events_pb2

_RETOLD = 20_000
"""Feedback whose outcome is told again to brokers that have forgotten it, newest first."""


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    id: int
    topic: str
    key: bytes
    value: bytes
    event_id: str
    type: str
    tenant: str


class PreferenceStore:
    """One process writes; its threads share one writing connection and have a reading one each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._write_lock = threading.RLock()
        self._writer = open_writer(path)
        self._local = threading.local()
        self._readers: list[sqlite3.Connection] = []

    # --- what the trainer reads

    def judgements(self, after: int = 0, kind: Kind | None = None) -> list[Judgement]:
        """Those that count (latest of their rater, not retracted, not erased, consenting), by sequence; of one kind, or
        of all."""
        with self._snapshot() as db:
            return reading.read_judgements(db, after, kind)

    def judgement_count(self, after: int = 0) -> int:
        """`len(judgements(after))`, without reading them."""
        query = "SELECT count(*) FROM feedback WHERE state = 'current' AND NOT retracted AND sequence > ?"
        return int(self._reader().execute(query, (after,)).fetchone()[0])

    def recent_prompts(self, limit: int) -> list[Prompt]:
        """Consenting served prompts, newest first, distinct by messages."""
        return reading.read_prompts(self._reader(), limit)

    def last_sequence(self) -> int:
        """The newest sequence that a judgement has had; 0 before the first."""
        return int(self._reader().execute("SELECT coalesce(max(sequence), 0) FROM feedback").fetchone()[0])

    def ratings(self, versions: Sequence[str], after: int = 0) -> list[Rating]:
        """What was said of `versions`, by judgements that count, with a sequence above `after`; oldest first."""
        return read_ratings(self._reader(), versions, after)

    def mark_learned(self, feedback_ids: Iterable[str], policy_version: str) -> None:
        """The first version to learn from a feedback is recorded, and told to the servers."""
        with self._transaction() as db:
            for feedback_id in feedback_ids:
                row = db.execute(
                    "UPDATE feedback SET learned_version = ? WHERE feedback_id = ? AND learned_version IS NULL"
                    " AND state IN ('current', 'superseded') RETURNING tenant, state, retracted",
                    (policy_version, feedback_id),
                ).fetchone()
                if row is not None:
                    tenant, state, retracted = row
                    news = outcome_state(state, bool(retracted), learned=True)
                    outcome(db, feedback_id, tenant, news, policy_version=policy_version)

    def funnel(self) -> dict[str, int]:
        """How many of what: accepted = joined + waiting + superseded + retracted + erased + dead feedback."""
        with self._snapshot() as db:
            rows = db.execute("SELECT state, retracted, count(*) FROM feedback GROUP BY 1, 2").fetchall()
            counts = {(state, bool(retracted)): count for state, retracted, count in rows}

            def one(query: str) -> int:
                return int(db.execute(query).fetchone()[0])

            return {
                "responses": one("SELECT count(*) FROM responses"),
                "accepted": sum(counts.values()),
                "joined": counts.get(("current", False), 0),
                "waiting": counts.get(("waiting", False), 0),
                "superseded": counts.get(("superseded", False), 0),
                "retracted": sum(counts.get((state, True), 0) for state in ("current", "waiting", "superseded")),
                "erased": counts.get(("erased", False), 0) + counts.get(("erased", True), 0),
                "dead_lettered": one("SELECT count(*) FROM dead_letters"),
                "dead_feedback": counts.get(("dead", False), 0) + counts.get(("dead", True), 0),
                "learned": one("SELECT count(*) FROM feedback WHERE learned_version IS NOT NULL"),
            }

    def dead_letters(self) -> dict["events_pb2.DeadLetterReason.ValueType", int]:
        """How many there are of each reason."""
        return dict(self._reader().execute("SELECT reason, count(*) FROM dead_letters GROUP BY reason").fetchall())

    def raters(self, latest: int) -> list[int]:
        """How many of the `latest` judgements that count came from each of their raters, who stay unnamed."""
        rows = self._reader().execute(
            "SELECT count(*) FROM (SELECT tenant, rater_id FROM feedback WHERE state = 'current' AND NOT retracted"
            " ORDER BY sequence DESC LIMIT ?) GROUP BY tenant, rater_id",
            (latest,),
        )
        return [count for (count,) in rows]

    # --- what the joiner writes

    def ingest(
        self,
        records: Sequence[Record],
        cluster_id: str,
        offsets: Mapping[tuple[str, int], int],
        *,
        now: float | None = None,
    ) -> None:
        """Apply `records` and move the offsets to `offsets[topic, partition]`, all or nothing."""
        now = time.time() if now is None else now
        erasing = any(record.topic == ERASURES for record in records)
        with self._transaction() as db:
            for record in records:
                self._apply(db, record, now)
            db.executemany(
                "INSERT INTO offsets VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET next_offset = excluded.next_offset",
                [(cluster_id, topic, partition, offset) for (topic, partition), offset in offsets.items()],
            )
        if erasing:
            with self._write_lock:  # what was erased must not linger in the write-ahead log
                self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def expire_waiting(self, horizon_s: float, *, now: float | None = None) -> int:
        """Dead-letter what has waited longer than `horizon_s`; returns how many."""
        with self._transaction() as db:
            return join.expire_waiting(db, (time.time() if now is None else now) - horizon_s)

    def offsets(self, cluster_id: str) -> dict[tuple[str, int], int]:
        """Where to read on, by (topic, partition)."""
        rows = self._reader().execute(
            "SELECT topic, partition, next_offset FROM offsets WHERE cluster_id = ?", (cluster_id,)
        )
        return {(topic, partition): offset for topic, partition, offset in rows}

    def meet_cluster(self, cluster_id: str) -> bool:
        """Whether these brokers are new to a store that knows others: then recent outcomes are told again."""
        with self._transaction() as db:
            known = db.execute("SELECT 1 FROM offsets WHERE cluster_id = ? LIMIT 1", (cluster_id,)).fetchone()
            others = db.execute("SELECT 1 FROM offsets LIMIT 1").fetchone()
            if known is not None or others is None:
                return False
            db.execute("INSERT INTO offsets VALUES (?, ?, 0, 0)", (cluster_id, ERASURES))  # met now
            retell_outcomes(db, _RETOLD)
            return True

    def outbox(self, limit: int) -> list[OutboxEntry]:
        """The oldest events that wait to be emitted."""
        rows = self._reader().execute(
            "SELECT id, topic, key, value, event_id, type, tenant FROM outbox ORDER BY id LIMIT ?", (limit,)
        )
        return [OutboxEntry(*row) for row in rows]

    def clear_outbox(self, up_to: int) -> None:
        """Those up to this id were acknowledged by the brokers."""
        with self._transaction() as db:
            db.execute("DELETE FROM outbox WHERE id <= ?", (up_to,))

    def close(self) -> None:
        with self._write_lock:
            for connection in (*self._readers, self._writer):
                connection.close()

    def _apply(self, db: sqlite3.Connection, record: Record, now: float) -> None:
        try:
            if record.topic == RESPONSES:
                join.apply_response(db, record)
            elif record.topic == FEEDBACK:
                join.apply_feedback(db, record, now)
            elif record.topic == ERASURES:
                erasure.apply_erasure(db, record)
            else:
                raise ValueError(f"the preference store reads no topic {record.topic!r}")
        except Unusable as unusable:
            _bury(db, record, unusable)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._write_lock:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                self._writer.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        """Several queries that see the same moment."""
        db = self._reader()
        db.execute("BEGIN")
        try:
            yield db
        finally:
            db.execute("ROLLBACK")

    def _reader(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = open_reader(self._path)
            self._readers.append(connection)
        return connection


def _bury(db: sqlite3.Connection, record: Record, unusable: Unusable) -> None:
    """Dead-letter a record that never became a row (or, on an id conflict, must not touch the row there is)."""
    feedback_id = tenant = ""
    if record.topic == FEEDBACK:
        with contextlib.suppress(DecodeError):
            event = events_pb2.FeedbackRecorded.FromString(record.value)
            feedback_id, tenant = event.feedback_id, event.tenant
    dead_letter(
        db,
        unusable.reason,
        unusable.detail,
        origin=record.origin,
        key=record.key,
        value=record.value,
        tenant=tenant,
        feedback_id=feedback_id,
        counts_for_feedback=unusable.reason != events_pb2.DEAD_LETTER_REASON_ID_CONFLICT,
    )
