"""Another chance for a feedback that was dead-lettered and sent again."""

import sqlite3

from foldback.v1 import events_pb2


def revive(db: sqlite3.Connection, event: events_pb2.FeedbackRecorded) -> None:
    """Forget that it died, if it did, with the same content; whoever reads it now judges it afresh."""
    dead = db.execute(
        "SELECT id FROM feedback WHERE feedback_id = ? AND state = 'dead' AND content_sha256 = ?",
        (event.feedback_id, event.content_sha256),
    ).fetchone()
    known = db.execute("SELECT 1 FROM feedback WHERE feedback_id = ?", (event.feedback_id,)).fetchone()
    if dead is None and known is not None:
        return
    db.execute("DELETE FROM dead_letters WHERE feedback_id = ?", (event.feedback_id,))
    if dead is not None:
        db.execute("DELETE FROM targets WHERE feedback = ?", dead)
        db.execute("DELETE FROM feedback WHERE id = ?", dead)
        # A retraction that had found it dead finds it again.
        db.execute(
            "UPDATE retractions SET state = 'waiting' WHERE target_id = ? AND state = 'applied'", (event.feedback_id,)
        )
