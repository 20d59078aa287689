"""Small events, as a server would log them."""

from collections.abc import Sequence

from feedback.erasure import ERASURE_TYPE
from feedback.event import Durability, Event
from feedback.eventlog import EventLog
from feedback.record import Record
from feedback.response import RESPONSE_TYPE
from feedback.submission import FEEDBACK_TYPE, build_record
from feedback.topics import ERASURES, FEEDBACK, RESPONSES
from foldback.v1 import chat_pb2, events_pb2, feedback_pb2

TENANT = "acme"


async def emit(log: EventLog, event: Event) -> Durability:
    """Raises what the log has to say against it."""
    [outcome] = await log.emit_all([event])
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def make_response(
    response_id: str,
    *,
    candidates: int = 2,
    consent: bool = True,
    conversation_id: str = "conversation",
    prompt: str = "Why is the sky blue?",
    rater_id: str = "reader",
    serve_time: float = 1.0,
) -> events_pb2.ResponseRecorded:
    response = events_pb2.ResponseRecorded(
        tenant=TENANT,
        response_id=response_id,
        conversation_id=conversation_id,
        rater_id=rater_id,
        policy_version="p000001-0",
        messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, content=prompt)] if consent else [],
        prompt_token_ids=[1, 2, 3] if consent else [],
        candidates=[
            events_pb2.CandidateRecord(
                candidate_id=f"{response_id}-{index}",
                text=f"answer {index}" if consent else "",
                token_ids=[4, 5 + index] if consent else [],
            )
            for index in range(candidates)
        ],
        training_consent=consent,
    )
    response.serve_time.FromNanoseconds(int(serve_time * 1e9))
    return response


def claims_of(response: events_pb2.ResponseRecorded) -> events_pb2.TokenClaims:
    return events_pb2.TokenClaims(
        tenant=response.tenant,
        conversation_id=response.conversation_id,
        response_id=response.response_id,
        candidate_ids=[candidate.candidate_id for candidate in response.candidates],
        policy_version=response.policy_version,
        issue_time=response.serve_time,
    )


def make_feedback(
    feedback_id: str,
    responses: Sequence[events_pb2.ResponseRecorded],
    *,
    rater_id: str = "rater",
    time: float = 2.0,
    **content: object,
) -> events_pb2.FeedbackRecorded:
    """`content`: fields of Feedback; thumbs up when none is given."""
    feedback = feedback_pb2.Feedback(
        rater_id=rater_id,
        source=feedback_pb2.FEEDBACK_SOURCE_END_USER,
        **(content or {"thumbs": feedback_pb2.THUMBS_UP}),  # type: ignore[arg-type]
    )
    return build_record(feedback_id, TENANT, feedback, [claims_of(response) for response in responses], now=time)


def make_retraction(
    retraction_id: str, target: events_pb2.FeedbackRecorded, *, rater_id: str | None = None, time: float = 3.0
) -> events_pb2.FeedbackRecorded:
    return build_record(
        retraction_id,
        TENANT,
        feedback_pb2.Feedback(rater_id=target.feedback.rater_id if rater_id is None else rater_id),
        target.claims[:1],
        retracts=target.feedback_id,
        now=time,
    )


def make_erasure(rater_id: str, time: float) -> events_pb2.ErasureRequested:
    erasure = events_pb2.ErasureRequested(tenant=TENANT, rater_id=rater_id)
    erasure.request_time.FromNanoseconds(int(time * 1e9))
    return erasure


def ranking(*tiers: Sequence[str], rejected_all: bool = False) -> feedback_pb2.Ranking:
    return feedback_pb2.Ranking(
        tiers=[feedback_pb2.Tier(candidate_ids=list(tier)) for tier in tiers], rejected_all=rejected_all
    )


Loggable = events_pb2.ResponseRecorded | events_pb2.FeedbackRecorded | events_pb2.ErasureRequested


def as_record(event: Loggable, offset: int = 0) -> Record:
    match event:
        case events_pb2.ResponseRecorded():
            topic, kind, key = RESPONSES, RESPONSE_TYPE, event.conversation_id
        case events_pb2.FeedbackRecorded():
            topic, kind, key = FEEDBACK, FEEDBACK_TYPE, event.claims[0].conversation_id
        case _:
            topic, kind, key = ERASURES, ERASURE_TYPE, event.rater_id
    return Record(topic, 0, offset, key.encode(), event.SerializeToString(), kind)
