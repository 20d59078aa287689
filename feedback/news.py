"""What servers are told of a feedback, from what the store holds of it."""

import sqlite3

from feedback.deadletters import outcome
from foldback.v1 import events_pb2, feedback_pb2

_RECENT = """
SELECT * FROM (
    SELECT f.id, f.feedback_id, f.tenant, f.state, f.retracted, coalesce(f.learned_version, ''),
        (SELECT reason FROM dead_letters d WHERE d.feedback_id = f.feedback_id LIMIT 1)
    FROM feedback f WHERE f.state IN ('current', 'superseded', 'dead') ORDER BY f.id DESC LIMIT ?
) ORDER BY id
"""


def retell_outcomes(db: sqlite3.Connection, limit: int) -> None:
    """Put the outcomes of the newest `limit` feedbacks into the outbox once more."""
    for _, feedback_id, tenant, state, retracted, learned_version, reason in db.execute(_RECENT, (limit,)).fetchall():
        name = ""
        if state == "dead" and reason is not None:
            name = events_pb2.DeadLetterReason.Name(reason).removeprefix("DEAD_LETTER_REASON_")
        news = outcome_state(state, bool(retracted), learned=bool(learned_version))
        outcome(db, feedback_id, tenant, news, reason=name, policy_version=learned_version)


def outcome_state(state: str, retracted: bool, *, learned: bool) -> "feedback_pb2.FeedbackState.ValueType":
    """For a feedback that is current, superseded or dead."""
    if state == "dead":
        return feedback_pb2.FEEDBACK_STATE_DEAD_LETTERED
    if retracted:
        return feedback_pb2.FEEDBACK_STATE_RETRACTED
    if state == "superseded":
        return feedback_pb2.FEEDBACK_STATE_SUPERSEDED
    return feedback_pb2.FEEDBACK_STATE_LEARNED if learned else feedback_pb2.FEEDBACK_STATE_JOINED
