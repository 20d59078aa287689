"""From stored rows to what the trainer reads."""

import sqlite3
from typing import cast

from feedback.judgement import Answer, Judgement, Kind, Prompt
from foldback.v1 import chat_pb2, events_pb2, feedback_pb2

_ROLES = {chat_pb2.ROLE_SYSTEM: "system", chat_pb2.ROLE_USER: "user", chat_pb2.ROLE_ASSISTANT: "assistant"}


def read_judgements(db: sqlite3.Connection, after: int, kind: Kind | None = None) -> list[Judgement]:
    rows = db.execute(
        "SELECT sequence, record FROM feedback"
        " WHERE state = 'current' AND NOT retracted AND sequence > ? ORDER BY sequence",
        (after,),
    )
    responses = _Responses(db)
    return [
        build_judgement(sequence, event, [responses.get(event.tenant, claim.response_id) for claim in event.claims])
        for sequence, event in ((sequence, events_pb2.FeedbackRecorded.FromString(value)) for sequence, value in rows)
        if kind in (None, event.feedback.WhichOneof("kind"))
    ]


def build_judgement(
    sequence: int, event: events_pb2.FeedbackRecorded, responses: list[events_pb2.ResponseRecorded]
) -> Judgement:
    feedback = event.feedback
    kind = cast(Kind, feedback.WhichOneof("kind"))
    answers = tuple(
        Answer(candidate.candidate_id, candidate.text, tuple(candidate.token_ids))
        for response in responses
        for candidate in response.candidates
        if _speaks_of(feedback, candidate.candidate_id)
    )
    index = {answer.candidate_id: place for place, answer in enumerate(answers)}
    return Judgement(
        sequence=sequence,
        feedback_id=event.feedback_id,
        tenant=event.tenant,
        rater_id=feedback.rater_id,
        source=feedback.source,
        kind=kind,
        conversation_id=responses[0].conversation_id,
        response_id=responses[0].response_id,
        policy_version=responses[0].policy_version,
        messages=_messages(responses[0]),
        prompt_token_ids=tuple(responses[0].prompt_token_ids),
        answers=answers,
        tiers=tuple(tuple(index[name] for name in tier.candidate_ids) for tier in feedback.ranking.tiers),
        rejected_all=feedback.ranking.rejected_all,
        score=score(feedback),
        text=feedback.demonstration.text or feedback.comment.text,
        receive_time=event.receive_time.ToNanoseconds() / 1e9,
    )


def read_prompts(db: sqlite3.Connection, limit: int) -> list[Prompt]:
    rows = db.execute(
        "SELECT prompt_sha256, record FROM responses WHERE consent AND record IS NOT NULL ORDER BY serve_time DESC"
    )
    prompts: list[Prompt] = []
    seen: set[bytes] = set()
    for prompt_sha256, value in rows:
        if len(prompts) == limit:
            break
        if prompt_sha256 in seen:
            continue
        seen.add(prompt_sha256)
        response = events_pb2.ResponseRecorded.FromString(value)
        prompts.append(
            Prompt(
                response.conversation_id,
                _messages(response),
                tuple(response.prompt_token_ids),
                response.serve_time.ToNanoseconds() / 1e9,
            )
        )
    return prompts


class _Responses:
    """Decodes each response once: one response has many judges."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._decoded: dict[tuple[str, str], events_pb2.ResponseRecorded] = {}

    def get(self, tenant: str, response_id: str) -> events_pb2.ResponseRecorded:
        key = (tenant, response_id)
        if key not in self._decoded:
            (value,) = self._db.execute(
                "SELECT record FROM responses WHERE tenant = ? AND response_id = ?", key
            ).fetchone()
            self._decoded[key] = events_pb2.ResponseRecorded.FromString(value)
        return self._decoded[key]


def _speaks_of(feedback: feedback_pb2.Feedback, candidate_id: str) -> bool:
    if feedback.WhichOneof("kind") == "ranking" and feedback.ranking.tiers:
        return any(candidate_id in tier.candidate_ids for tier in feedback.ranking.tiers)
    named = feedback.candidate_id or feedback.demonstration.candidate_id
    return not named or named == candidate_id


def score(feedback: feedback_pb2.Feedback) -> float | None:
    """Of thumbs and ratings, scaled to [0, 1]."""
    match feedback.WhichOneof("kind"):
        case "thumbs":
            return float(feedback.thumbs == feedback_pb2.THUMBS_UP)
        case "rating":
            rating = feedback.rating
            return (rating.value - rating.min) / (rating.max - rating.min)
    return None


def _messages(response: events_pb2.ResponseRecorded) -> tuple[tuple[str, str], ...]:
    return tuple((_ROLES[message.role], message.content) for message in response.messages)
