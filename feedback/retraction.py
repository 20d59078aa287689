"""Taking a feedback back. A retraction that comes before its target waits for it."""

import sqlite3

from feedback.deadletters import dead_letter, outcome
from feedback.record import Record
from foldback.v1 import events_pb2, feedback_pb2


def add_retraction(db: sqlite3.Connection, event: events_pb2.FeedbackRecorded, record: Record, now: float) -> None:
    db.execute(
        "INSERT INTO retractions VALUES (?, ?, ?, ?, ?, ?, 'waiting', ?, ?)",
        (
            *(event.feedback_id, event.tenant, event.feedback.rater_id, event.claims[0].response_id),
            *(event.retracts, event.content_sha256, now, record.origin),
        ),
    )
    _retract(db, event.feedback_id)


def apply_early_retractions(db: sqlite3.Connection, event: events_pb2.FeedbackRecorded) -> None:
    early = db.execute(
        "SELECT retraction_id FROM retractions WHERE target_id = ? AND state = 'waiting'", (event.feedback_id,)
    ).fetchall()
    for (retraction_id,) in early:
        _retract(db, retraction_id)


def _retract(db: sqlite3.Connection, retraction_id: str) -> None:
    """Apply a retraction if its target is there and it is the same rater's, about the same response."""
    tenant, rater_id, response_id, target_id, origin = db.execute(
        "SELECT tenant, rater_id, response_id, target_id, origin FROM retractions WHERE retraction_id = ?",
        (retraction_id,),
    ).fetchone()
    target = db.execute(
        "SELECT id, tenant, rater_id, state, coalesce(learned_version, '') FROM feedback WHERE feedback_id = ?",
        (target_id,),
    ).fetchone()
    if target is None:
        return
    row_id, target_tenant, target_rater, state, learned_version = target
    about = db.execute(
        "SELECT 1 FROM targets WHERE tenant = ? AND response_id = ? AND feedback = ?", (tenant, response_id, row_id)
    ).fetchone()
    if state != "erased" and (tenant != target_tenant or rater_id != target_rater or about is None):
        db.execute("UPDATE retractions SET state = 'dead' WHERE retraction_id = ?", (retraction_id,))
        dead_letter(
            db,
            events_pb2.DEAD_LETTER_REASON_CLAIMS_MISMATCH,
            f"it retracts {target_id}, which is of another rater or about another response",
            origin=origin,
            key=b"",
            value=b"",
            tenant=tenant,
            feedback_id=retraction_id,
        )
        return
    db.execute("UPDATE retractions SET state = 'applied' WHERE retraction_id = ?", (retraction_id,))
    db.execute("UPDATE feedback SET retracted = 1 WHERE id = ?", (row_id,))
    if state not in ("dead", "erased"):
        outcome(db, target_id, tenant, feedback_pb2.FEEDBACK_STATE_RETRACTED, policy_version=learned_version)
