"""What cannot be used, and the news of what became of a feedback: written to the outbox with their cause."""

import hashlib
import sqlite3
import time
import uuid

from feedback.topics import DLQ, OUTCOMES
from foldback.v1 import events_pb2, feedback_pb2

DEAD_LETTER_TYPE = "foldback.v1.DeadLetter"
OUTCOME_TYPE = "foldback.v1.FeedbackOutcome"
_NAMESPACE = uuid.UUID("0b2f7b6c-91cf-5d0e-8f53-3a6d3f6a2f10")

_MAX_VALUE_BYTES = 900_000
"""A letter must fit in one message of a broker with default limits."""

_INSERT = "INSERT INTO outbox (topic, key, value, event_id, type, tenant) VALUES (?, ?, ?, ?, ?, ?)"


def dead_letter(
    db: sqlite3.Connection,
    reason: "events_pb2.DeadLetterReason.ValueType",
    detail: str,
    *,
    origin: str,
    key: bytes,
    value: bytes,
    tenant: str = "",
    feedback_id: str = "",
    counts_for_feedback: bool = True,
) -> None:
    """Put it on the DLQ once, however often it is read. `counts_for_feedback`: the feedback itself is dead."""
    subject = f"{feedback_id or origin}:{reason}:{hashlib.sha256(value).hexdigest()}"
    letter_id = str(uuid.uuid5(_NAMESPACE, subject))
    inserted = db.execute(
        "INSERT OR IGNORE INTO dead_letters VALUES (?, ?, ?)", (letter_id, reason, feedback_id)
    ).rowcount
    if not inserted:
        return
    topic, partition, offset = origin.rsplit("/", 2)
    if len(value) > _MAX_VALUE_BYTES:
        detail, value = f"{detail} ({len(value)} bytes, left where they are)", b""
    if reason == events_pb2.DEAD_LETTER_REASON_NO_CONSENT:
        value = b""  # without consent the text goes no further than it already is
    letter = events_pb2.DeadLetter(
        reason=reason,
        detail=detail,
        topic=topic,
        partition=int(partition),
        offset=int(offset),
        key=key,
        value=value,
        feedback_id=feedback_id,
    )
    letter.time.FromNanoseconds(time.time_ns())
    db.execute(_INSERT, (DLQ, key, letter.SerializeToString(), letter_id, DEAD_LETTER_TYPE, tenant))
    if feedback_id and counts_for_feedback:
        state = feedback_pb2.FEEDBACK_STATE_DEAD_LETTERED
        name = events_pb2.DeadLetterReason.Name(reason).removeprefix("DEAD_LETTER_REASON_")
        outcome(db, feedback_id, tenant, state, reason=f"{name}: {detail}")


def outcome(
    db: sqlite3.Connection,
    feedback_id: str,
    tenant: str,
    state: "feedback_pb2.FeedbackState.ValueType",
    *,
    reason: str = "",
    policy_version: str = "",
) -> None:
    """Tell the servers what became of a feedback."""
    event = events_pb2.FeedbackOutcome(
        feedback_id=feedback_id, state=state, reason=reason, policy_version=policy_version
    )
    event.time.FromNanoseconds(time.time_ns())
    event_id = str(uuid.uuid5(_NAMESPACE, f"{feedback_id}:{state}:{policy_version}"))
    db.execute(_INSERT, (OUTCOMES, feedback_id.encode(), event.SerializeToString(), event_id, OUTCOME_TYPE, tenant))
