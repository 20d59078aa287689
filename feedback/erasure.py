"""Forgetting a rater: what they said, and what they were served, up to the time they asked."""

import sqlite3
from collections.abc import Sequence

from feedback.record import Record, decode
from foldback.v1 import events_pb2

ERASURE_TYPE = "foldback.v1.ErasureRequested"


def apply_erasure(db: sqlite3.Connection, record: Record) -> None:
    """Forget a rater up to the time of the request: their feedback, and what they were served. Raises Unusable."""
    if not record.value:
        return  # a compacted topic's tombstone
    erasure = decode(record, events_pb2.ErasureRequested, ERASURE_TYPE)
    request_time = erasure.request_time.ToNanoseconds() / 1e9
    rater = (erasure.tenant, erasure.rater_id)
    db.execute(
        "INSERT INTO erasures VALUES (?, ?, ?)"
        " ON CONFLICT DO UPDATE SET request_time = max(request_time, excluded.request_time)",
        (*rater, request_time),
    )
    given = db.execute(
        "SELECT id FROM feedback WHERE tenant = ? AND rater_id = ? AND receive_time <= ?", (*rater, request_time)
    ).fetchall()
    received = db.execute(
        "SELECT t.feedback FROM responses r JOIN targets t USING (tenant, response_id)"
        " WHERE r.tenant = ? AND r.rater_id = ? AND r.serve_time <= ?",
        (*rater, request_time),
    ).fetchall()
    erase_feedback(db, [row_id for (row_id,) in (*given, *received)])
    db.execute(
        "UPDATE responses SET record = NULL, rater_id = '' WHERE tenant = ? AND rater_id = ? AND serve_time <= ?",
        (*rater, request_time),
    )


def is_erased(db: sqlite3.Connection, tenant: str, rater_id: str, time: float) -> bool:
    row = db.execute(
        "SELECT 1 FROM erasures WHERE tenant = ? AND rater_id = ? AND request_time >= ?", (tenant, rater_id, time)
    ).fetchone()
    return row is not None


def erase_feedback(db: sqlite3.Connection, row_ids: Sequence[int]) -> None:
    """Keep the id, so that a copy that is read again stays erased; nothing else of the rater's."""
    db.executemany(
        "UPDATE feedback SET state = 'erased', record = NULL, rater_id = '', opinion = x'' WHERE id = ?",
        [(row_id,) for row_id in row_ids],
    )
