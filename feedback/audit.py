"""Does it add up? Every acknowledged feedback is learned, dead-lettered or waiting, and nothing else.

Acknowledged is what the servers' receipts say, and beyond them everything on the feedback topic. Places are read in the
order in which a feedback moves through them (receipts, spool, topic, store), so one that moves on meanwhile is seen.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from kafka import KafkaConsumer, TopicPartition

from feedback.connection import admin_client, read_cluster_id
from feedback.consumer import open_consumer
from feedback.database import open_reader
from feedback.receipts import read_receipts
from feedback.spool import read_spooled_ids
from feedback.topics import FEEDBACK, ensure_topics
from settings.feedback import FeedbackSettings

_SLACK_S = 3600.0
"""Clocks differ: the topic is read from this much before the range."""

FATES = (
    "learned",
    "joined",
    "superseded",
    "retracted",
    "erased",
    "retraction",
    "dead-lettered",
    "waiting for its response",
    "waiting for the trainer",
    "waiting in the spool",
)


@dataclass(frozen=True, slots=True)
class Audit:
    """Counts of the feedback (and retractions) accepted within the time range."""

    acknowledged: int
    """By the servers whose receipts were read."""
    on_topic: int
    """Distinct ids."""
    only_on_topic: int
    """No receipt read here: imported, taken by another replica, or its answer was cut off by a crash."""
    sent_again: int
    """Records beyond one an id: retries between server and broker, which the store takes once."""
    fates: Counter[str]
    lost: tuple[str, ...]
    """Ids that are nowhere: never on the topic, or passed over by the trainer."""

    @property
    def adds_up(self) -> bool:
        return not self.lost


@dataclass(slots=True)
class _Topic:
    copies: Counter[str] = field(default_factory=Counter)
    last: dict[str, tuple[int, int]] = field(default_factory=dict)
    """(partition, offset) of an id's last copy."""


def audit(
    settings: FeedbackSettings,
    *,
    store: Path,
    receipts: Sequence[Path],
    spools: Sequence[Path],
    since: float,
    until: float,
) -> Audit:
    """Account for since ≤ time < until (Unix seconds). Paths that do not exist count as empty. Raises KafkaError."""
    acknowledged = {receipt.feedback_id for folder in receipts for receipt in read_receipts(folder, since, until)}
    spooled = {name for path in spools if path.exists() for name in read_spooled_ids(path, FEEDBACK)}
    ensure_topics(settings)
    admin = admin_client(settings)
    cluster_id = read_cluster_id(admin)
    admin.close()
    topic = _read_topic(settings, since, until)
    fates, offsets = _read_store(store, cluster_id)
    counts: Counter[str] = Counter()
    lost: list[str] = []
    for feedback_id in sorted(acknowledged | topic.copies.keys()):
        fate = fates.get(feedback_id)
        if fate is None and feedback_id in topic.last:
            partition, offset = topic.last[feedback_id]
            if offset >= offsets.get(partition, 0):
                fate = "waiting for the trainer"
        if fate is None and feedback_id in spooled:
            fate = "waiting in the spool"
        if fate is None:
            lost.append(feedback_id)
        else:
            counts[fate] += 1
    return Audit(
        acknowledged=len(acknowledged),
        on_topic=len(topic.copies),
        only_on_topic=len(topic.copies.keys() - acknowledged),
        sent_again=topic.copies.total() - len(topic.copies),
        fates=counts,
        lost=tuple(lost),
    )


def _read_topic(settings: FeedbackSettings, since: float, until: float) -> _Topic:
    consumer = open_consumer(settings, [FEEDBACK], {})
    found = _Topic()
    try:
        parts = sorted(consumer.assignment())
        ends = consumer.end_offsets(parts)
        if since > _SLACK_S:
            starts = consumer.offsets_for_times({part: int((since - _SLACK_S) * 1000) for part in parts})
            for part, start in starts.items():
                consumer.seek(part, start.offset if start is not None else ends[part])
        for part, offset, time_s, feedback_id in _records(consumer, ends):
            # Within the range by the brokers' clock; what has a receipt counts by the receipt's time.
            if feedback_id and since <= time_s < until:
                found.copies[feedback_id] += 1
            if feedback_id:
                found.last[feedback_id] = (part.partition, offset)
    finally:
        consumer.close()
    return found


def _records(
    consumer: KafkaConsumer, ends: dict[TopicPartition, int]
) -> Iterator[tuple[TopicPartition, int, float, str]]:
    while any(consumer.position(part) < end for part, end in ends.items()):
        for part, batch in consumer.poll(timeout_ms=100).items():
            for record in batch:
                if record.offset < ends[part]:
                    feedback_id = next((value for name, value in record.headers if name == "ce_id"), b"")
                    yield part, record.offset, record.timestamp / 1000, feedback_id.decode(errors="replace")


def _read_store(path: Path, cluster_id: str) -> tuple[dict[str, str], dict[int, int]]:
    """What became of each id, and the next offset of each partition of the feedback topic."""
    if not path.exists():
        return {}, {}
    with closing(open_reader(path)) as db:
        db.execute("BEGIN")  # one moment for all queries
        fates = {feedback_id: "dead-lettered" for (feedback_id,) in db.execute("SELECT feedback_id FROM dead_letters")}
        fates |= {
            retraction_id: "dead-lettered" if state == "dead" else "retraction"
            for retraction_id, state in db.execute("SELECT retraction_id, state FROM retractions")
        }
        rows = db.execute("SELECT feedback_id, state, retracted, learned_version IS NOT NULL FROM feedback")
        fates |= {row[0]: _fate(*row[1:]) for row in rows}
        return fates, _offsets(db, cluster_id)


def _offsets(db: sqlite3.Connection, cluster_id: str) -> dict[int, int]:
    query = "SELECT partition, next_offset FROM offsets WHERE cluster_id = ? AND topic = ?"
    return dict(db.execute(query, (cluster_id, FEEDBACK)).fetchall())


def _fate(state: str, retracted: int, learned: int) -> str:
    if state in ("dead", "erased"):
        return {"dead": "dead-lettered", "erased": "erased"}[state]
    if learned:
        return "learned"
    if retracted:
        return "retracted"
    return {"current": "joined", "superseded": "superseded", "waiting": "waiting for its response"}[state]
