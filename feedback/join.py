"""How one event changes the preference store. Called inside the store's transaction.

What results depends on the set of events, not on the order they came in:
- a feedback waits until every response it is about is there;
- among the feedback of one rater about the same responses, of one kind and candidate, the latest receipt is current;
- a retraction takes back exactly the feedback it names: what that one had superseded stays superseded;
- an erasure takes back and wipes everything of the rater up to its time, also what arrives after it.
Two exceptions, both counted: of two feedbacks with one id and different content the first read holds (ID_CONFLICT),
and a response that comes after the horizon finds its feedback dead-lettered (RESPONSE_MISSING).
"""

import hashlib
import json
import sqlite3
import sys
from collections.abc import Sequence

from feedback.deadletters import dead_letter, outcome
from feedback.erasure import erase_feedback, is_erased
from feedback.record import Record, Unusable, decode
from feedback.replayed import revive
from feedback.response import RESPONSE_TYPE
from feedback.retraction import add_retraction, apply_early_retractions
from feedback.submission import FEEDBACK_TYPE, check_content
from foldback.v1 import events_pb2, feedback_pb2


def apply_response(db: sqlite3.Connection, record: Record) -> None:
    """Store a response once and join the feedback that waited for it. Raises Unusable."""
    response = decode(record, events_pb2.ResponseRecorded, RESPONSE_TYPE)
    if not (response.response_id and response.candidates):
        raise Unusable(events_pb2.DEAD_LETTER_REASON_INVALID, "response_id or candidates missing")
    serve_time = response.serve_time.ToNanoseconds() / 1e9
    erased = is_erased(db, response.tenant, response.rater_id, serve_time)
    inserted = db.execute(
        "INSERT OR IGNORE INTO responses (tenant, response_id, conversation_id, rater_id, policy_version,"
        " candidate_ids, prompt_sha256, serve_time, consent, record) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            response.tenant,
            response.response_id,
            response.conversation_id,
            "" if erased else response.rater_id,
            response.policy_version,
            json.dumps(sorted(candidate.candidate_id for candidate in response.candidates)),
            prompt_sha256(response),
            serve_time,
            response.training_consent,
            None if erased else record.value,
        ),
    ).rowcount
    if inserted:
        waiting = db.execute(
            "SELECT f.id FROM targets t JOIN feedback f ON f.id = t.feedback"
            " WHERE t.tenant = ? AND t.response_id = ? AND f.state = 'waiting' ORDER BY f.id",
            (response.tenant, response.response_id),
        ).fetchall()
        for (row_id,) in waiting:
            _join_stored(db, row_id)


def apply_feedback(db: sqlite3.Connection, record: Record, now: float) -> None:
    """Store a feedback or retraction once and join it if it can be. Raises Unusable."""
    event = decode(record, events_pb2.FeedbackRecorded, FEEDBACK_TYPE)
    if not (event.feedback_id and event.claims and event.feedback.rater_id):
        raise Unusable(events_pb2.DEAD_LETTER_REASON_INVALID, "feedback_id, claims or rater_id missing")
    if record.replayed:
        revive(db, event)
    if _is_known(db, event):
        return
    if any(claim.tenant != event.tenant for claim in event.claims):
        raise Unusable(events_pb2.DEAD_LETTER_REASON_CLAIMS_MISMATCH, "the claims are of another tenant")
    if event.retracts:
        add_retraction(db, event, record, now)
        return
    row_id = _insert_feedback(db, event, record, now)
    apply_early_retractions(db, event)
    if is_erased(db, event.tenant, event.feedback.rater_id, event.receive_time.ToNanoseconds() / 1e9):
        erase_feedback(db, [row_id])
        return
    violations = check_content(event.feedback, event.claims, sys.maxsize)  # the server bounds the text
    if violations:
        detail = "; ".join(f"{field}: {why}" for field, why in violations)
        _kill(db, row_id, Unusable(events_pb2.DEAD_LETTER_REASON_INVALID, detail), event, record)
        return
    _join(db, row_id, event, record)


def expire_waiting(db: sqlite3.Connection, before: float) -> int:
    """Dead-letter what has waited since `before` (Unix seconds of arrival); returns how many."""
    late = db.execute(
        "SELECT id, record, origin FROM feedback WHERE state = 'waiting' AND seen_time < ?", (before,)
    ).fetchall()
    for row_id, value, origin in late:
        missing = Unusable(events_pb2.DEAD_LETTER_REASON_RESPONSE_MISSING, "its response did not come")
        _kill(db, row_id, missing, events_pb2.FeedbackRecorded.FromString(value), _read_again(origin, value))
    orphans = db.execute(
        "SELECT retraction_id, tenant, target_id, origin FROM retractions WHERE state = 'waiting' AND seen_time < ?",
        (before,),
    ).fetchall()
    for retraction_id, tenant, target_id, origin in orphans:
        db.execute("UPDATE retractions SET state = 'dead' WHERE retraction_id = ?", (retraction_id,))
        dead_letter(
            db,
            events_pb2.DEAD_LETTER_REASON_RESPONSE_MISSING,
            f"the feedback {target_id} that it retracts did not come",
            origin=origin,
            key=b"",
            value=b"",
            tenant=tenant,
            feedback_id=retraction_id,
        )
    return len(late) + len(orphans)


def prompt_sha256(response: events_pb2.ResponseRecorded) -> bytes:
    """Equal for equal conversations up to the answer."""
    turns = [(message.role, message.content) for message in response.messages]
    return hashlib.sha256(json.dumps(turns).encode()).digest()


def _is_known(db: sqlite3.Connection, event: events_pb2.FeedbackRecorded) -> bool:
    """Raises Unusable when the id is known with other content."""
    row = db.execute(
        "SELECT content_sha256 FROM feedback WHERE feedback_id = ?1"
        " UNION ALL SELECT content_sha256 FROM retractions WHERE retraction_id = ?1",
        (event.feedback_id,),
    ).fetchone()
    if row is None:
        return False
    if row[0] != event.content_sha256:
        raise Unusable(events_pb2.DEAD_LETTER_REASON_ID_CONFLICT, "the same id came before with other content")
    return True


def _insert_feedback(db: sqlite3.Connection, event: events_pb2.FeedbackRecorded, record: Record, now: float) -> int:
    row_id = db.execute(
        "INSERT INTO feedback (feedback_id, tenant, rater_id, content_sha256, opinion, receive_time, state,"
        " seen_time, origin, record) VALUES (?, ?, ?, ?, ?, ?, 'waiting', ?, ?, ?)",
        (
            *(event.feedback_id, event.tenant, event.feedback.rater_id, event.content_sha256, _opinion(event)),
            *(event.receive_time.ToNanoseconds() / 1e9, now, record.origin, record.value),
        ),
    ).lastrowid
    assert row_id is not None
    db.executemany(
        "INSERT INTO targets VALUES (?, ?, ?)",
        [(event.tenant, response_id, row_id) for response_id in {claim.response_id for claim in event.claims}],
    )
    return row_id


def _opinion(event: events_pb2.FeedbackRecorded) -> bytes:
    """Two feedbacks with the same one: the later says what the rater thinks now."""
    feedback = event.feedback
    parts = [
        event.tenant,
        feedback.rater_id,
        feedback.WhichOneof("kind") or "",
        feedback.candidate_id or feedback.demonstration.candidate_id,
        *sorted(claim.response_id for claim in event.claims),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).digest()


def _join_stored(db: sqlite3.Connection, row_id: int) -> None:
    value, origin = db.execute("SELECT record, origin FROM feedback WHERE id = ?", (row_id,)).fetchone()
    _join(db, row_id, events_pb2.FeedbackRecorded.FromString(value), _read_again(origin, value))


def _read_again(origin: str, value: bytes) -> Record:
    topic, partition, offset = origin.rsplit("/", 2)
    conversation = events_pb2.FeedbackRecorded.FromString(value).claims[0].conversation_id
    return Record(topic, int(partition), int(offset), conversation.encode(), value, "")


def _join(db: sqlite3.Connection, row_id: int, event: events_pb2.FeedbackRecorded, record: Record) -> None:
    """Make it the rater's current opinion, or superseded, or dead; or let it wait."""
    responses = [
        db.execute(
            "SELECT conversation_id, policy_version, candidate_ids, prompt_sha256, consent, record IS NULL"
            " FROM responses WHERE tenant = ? AND response_id = ?",
            (event.tenant, claim.response_id),
        ).fetchone()
        for claim in event.claims
    ]
    if any(response is not None and response[-1] for response in responses):
        erase_feedback(db, [row_id])
        return
    if None in responses:
        return
    try:
        _check_claims(event.claims, responses)
    except Unusable as unusable:
        _kill(db, row_id, unusable, event, record)
        return
    _settle(db, row_id, event)


def _check_claims(claims: Sequence[events_pb2.TokenClaims], responses: Sequence[tuple[object, ...]]) -> None:
    for claim, (conversation_id, policy_version, candidate_ids, _, consent, _) in zip(claims, responses, strict=True):
        if not consent:
            raise Unusable(events_pb2.DEAD_LETTER_REASON_NO_CONSENT, "the response was served without training_consent")
        claimed = (claim.conversation_id, claim.policy_version, json.dumps(sorted(claim.candidate_ids)))
        if claimed != (conversation_id, policy_version, candidate_ids):
            raise Unusable(
                events_pb2.DEAD_LETTER_REASON_CLAIMS_MISMATCH,
                f"the token's claims differ from response {claim.response_id} as it was recorded",
            )
    if len({prompt for _, _, _, prompt, _, _ in responses}) > 1:
        raise Unusable(events_pb2.DEAD_LETTER_REASON_INVALID, "the compared responses answer different prompts")


def _settle(db: sqlite3.Connection, row_id: int, event: events_pb2.FeedbackRecorded) -> None:
    """Latest wins: by receive time, then by id, whatever order they were read in."""
    retracted, receive_time = db.execute(
        "SELECT retracted, receive_time FROM feedback WHERE id = ?", (row_id,)
    ).fetchone()
    rival = db.execute(
        "SELECT id, feedback_id, tenant, receive_time, retracted, coalesce(learned_version, '') FROM feedback"
        " WHERE opinion = ? AND state = 'current'",
        (_opinion(event),),
    ).fetchone()
    wins = rival is None or (receive_time, event.feedback_id) > (rival[3], rival[1])
    if rival is not None and wins:
        rival_row, rival_id, tenant, _, rival_retracted, learned_version = rival
        db.execute("UPDATE feedback SET state = 'superseded' WHERE id = ?", (rival_row,))
        if not rival_retracted:
            outcome(db, rival_id, tenant, feedback_pb2.FEEDBACK_STATE_SUPERSEDED, policy_version=learned_version)
    if wins:
        db.execute(
            "UPDATE feedback SET state = 'current',"
            " sequence = (SELECT coalesce(max(sequence), 0) + 1 FROM feedback) WHERE id = ?",
            (row_id,),
        )
    else:
        db.execute("UPDATE feedback SET state = 'superseded' WHERE id = ?", (row_id,))
    if not retracted:
        state = feedback_pb2.FEEDBACK_STATE_JOINED if wins else feedback_pb2.FEEDBACK_STATE_SUPERSEDED
        outcome(db, event.feedback_id, event.tenant, state)


def _kill(
    db: sqlite3.Connection, row_id: int, unusable: Unusable, event: events_pb2.FeedbackRecorded, record: Record
) -> None:
    db.execute("UPDATE feedback SET state = 'dead', record = NULL WHERE id = ?", (row_id,))
    dead_letter(
        db,
        unusable.reason,
        unusable.detail,
        origin=record.origin,
        key=record.key,
        value=record.value,
        tenant=event.tenant,
        feedback_id=event.feedback_id,
    )
