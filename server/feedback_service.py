"""FeedbackService: what feedback/ decides, as gRPC."""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import grpc
import prometheus_client

from feedback.eventlog import Durability, EventLog, EventTooLarge, SpoolFull
from feedback.outcomes import Outcomes
from feedback.submission import (
    IdConflict,
    InvalidFeedback,
    RecentSubmissions,
    check_id,
    feedback_event,
    record_feedback,
    record_retraction,
)
from feedback.tokens import Expired, TokenError, TokenSigner
from foldback.v1 import events_pb2, feedback_pb2, feedback_pb2_grpc
from server.admission import Admission
from server.events import ResponseLog
from server.identity import current_tenant
from server.interceptor import Context
from server.metrics import FEEDBACK_DELAY, FEEDBACK_RECEIVED, THUMBS
from server.rates import RaterRates
from server.status import Refused, exhausted, invalid, not_found, precondition, unavailable
from settings.feedback import FeedbackSettings

MAX_BATCH = 100
_SOURCES = {
    number: name.removeprefix("FEEDBACK_SOURCE_").lower() for name, number in feedback_pb2.FeedbackSource.items()
}
DURABILITY = {Durability.BROKER: feedback_pb2.DURABILITY_BROKER, Durability.SPOOL: feedback_pb2.DURABILITY_SPOOL}


class _Stored(NamedTuple):
    record: events_pb2.FeedbackRecorded
    durability: Durability
    duplicate: bool
    """It was here before."""


class FeedbackService(feedback_pb2_grpc.FeedbackServiceServicer):
    def __init__(
        self,
        log: EventLog,
        responses: ResponseLog,
        outcomes: Outcomes,
        signer: TokenSigner,
        admission: Admission,
        settings: FeedbackSettings,
    ) -> None:
        self._log = log
        self._responses = responses
        self._outcomes = outcomes
        self._signer = signer
        self._admission = admission
        self._max_text_chars = settings.max_text_chars
        self._rates = RaterRates(settings.rater_per_minute, settings.rater_burst)
        self._recent = RecentSubmissions()

    async def SubmitFeedback(  # noqa: N802
        self, request: feedback_pb2.SubmitFeedbackRequest, context: Context
    ) -> feedback_pb2.SubmitFeedbackResponse:
        [answer] = await self._submit([request], current_tenant())
        if isinstance(answer, Refused):
            raise answer
        return answer

    async def BatchSubmitFeedback(  # noqa: N802
        self, request: feedback_pb2.BatchSubmitFeedbackRequest, context: Context
    ) -> feedback_pb2.BatchSubmitFeedbackResponse:
        if not 1 <= len(request.requests) <= MAX_BATCH:
            raise invalid([("requests", f"{len(request.requests)} items; 1 to {MAX_BATCH}")])
        result = feedback_pb2.BatchSubmitFeedbackResponse.Result
        answers = await self._submit(request.requests, current_tenant())
        return feedback_pb2.BatchSubmitFeedbackResponse(
            results=[
                result(error=answer.status) if isinstance(answer, Refused) else result(response=answer)
                for answer in answers
            ]
        )

    async def RetractFeedback(  # noqa: N802
        self, request: feedback_pb2.RetractFeedbackRequest, context: Context
    ) -> feedback_pb2.RetractFeedbackResponse:
        try:
            record = record_retraction(request, current_tenant(), self._signer)
        except (InvalidFeedback, TokenError) as error:
            raise _refusal(error) from error
        [stored] = await self._store([record])
        if isinstance(stored, Refused):
            raise stored
        return feedback_pb2.RetractFeedbackResponse(durability=DURABILITY[stored.durability])

    async def GetFeedbackStatus(  # noqa: N802
        self, request: feedback_pb2.GetFeedbackStatusRequest, context: Context
    ) -> feedback_pb2.GetFeedbackStatusResponse:
        if violations := check_id("feedback_id", request.feedback_id):
            raise invalid(violations)
        tenant = current_tenant()
        outcome = self._outcomes.lookup(tenant, request.feedback_id)
        if outcome is not None:
            return feedback_pb2.GetFeedbackStatusResponse(
                feedback_id=outcome.feedback_id,
                state=outcome.state,
                reason=outcome.reason,
                policy_version=outcome.policy_version,
                update_time=outcome.time,
            )
        if self._recent.accepted(tenant, request.feedback_id):
            return feedback_pb2.GetFeedbackStatusResponse(
                feedback_id=request.feedback_id, state=feedback_pb2.FEEDBACK_STATE_ACCEPTED
            )
        # Another tenant's is unknown in the same words, after the same look-ups.
        raise not_found(
            f"feedback_id={request.feedback_id!r}: this server knows nothing of it (yet, if another replica took it)",
            "FEEDBACK_UNKNOWN",
        )

    async def _submit(
        self, requests: Sequence[feedback_pb2.SubmitFeedbackRequest], tenant: str
    ) -> list[feedback_pb2.SubmitFeedbackResponse | Refused]:
        """An answer each; what is wrong with one keeps no other from the log."""
        checked = [self._check(request, tenant) for request in requests]
        stored = iter(await self._store([record for record in checked if not isinstance(record, Refused)]))
        outcomes = [record if isinstance(record, Refused) else next(stored) for record in checked]
        _count(requests, outcomes)
        return [outcome if isinstance(outcome, Refused) else _answer(outcome) for outcome in outcomes]

    def _check(self, request: feedback_pb2.SubmitFeedbackRequest, tenant: str) -> events_pb2.FeedbackRecorded | Refused:
        try:
            return record_feedback(request, tenant, self._signer, max_text_chars=self._max_text_chars)
        except (InvalidFeedback, TokenError) as error:
            return _refusal(error)

    async def _store(self, records: Sequence[events_pb2.FeedbackRecorded]) -> list[_Stored | Refused]:
        """Each once its answer's record and itself are durable, or was here before, or why not."""
        found = [self._known(record) for record in records]
        fresh = [record for record, known in zip(records, found, strict=True) if known is None]
        if fresh:
            await self._responses.settled({claim.response_id for record in fresh for claim in record.claims})
        logged = iter(await self._log.emit_all([feedback_event(record) for record in fresh]) if fresh else [])
        outcomes: list[_Stored | Refused] = []
        for record, known in zip(records, found, strict=True):
            if known is not None:
                outcomes.append(known)
                continue
            durability = next(logged)
            if isinstance(durability, BaseException):
                outcomes.append(_refusal(durability))
            else:
                self._recent.add(record, durability)
                outcomes.append(_Stored(record, durability, False))
        return outcomes

    def _known(self, record: events_pb2.FeedbackRecorded) -> _Stored | Refused | None:
        """None: it is new, and may go to the log."""
        try:
            self._admission.check()
            known = self._recent.find(record)
            if known is not None:
                return _Stored(record, known, True)
            self._rates.take(record.tenant, record.feedback.rater_id)
        except IdConflict as error:
            return _refusal(error)
        except Refused as refused:
            return refused
        return None


def _refusal(error: BaseException) -> Refused:
    match error:
        case InvalidFeedback():
            return invalid(error.violations)
        case Expired():
            return precondition(f"feedback_token: {error}", error.reason)
        case TokenError():
            return Refused(grpc.StatusCode.PERMISSION_DENIED, f"feedback_token: {error}", error.reason)
        case IdConflict():
            return Refused(grpc.StatusCode.ALREADY_EXISTS, str(error), "REQUEST_ID_CONFLICT")
        case SpoolFull():
            return exhausted(str(error), "SPOOL_FULL", retry_after_s=5)
        case EventTooLarge():
            return invalid([("feedback", str(error))])
        case _:
            return unavailable(str(error), "LOG_UNAVAILABLE", retry_after_s=2)


def _answer(stored: _Stored) -> feedback_pb2.SubmitFeedbackResponse:
    return feedback_pb2.SubmitFeedbackResponse(
        feedback_id=stored.record.feedback_id,
        durability=DURABILITY[stored.durability],
        duplicate=stored.duplicate,
    )


def _count(requests: Sequence[feedback_pb2.SubmitFeedbackRequest], outcomes: Sequence[_Stored | Refused]) -> None:
    feedbacks = [request.feedback for request in requests]
    told = [(each.WhichOneof("kind") or "none", each.source) for each in feedbacks]
    for ((kind, source), result), count in Counter(zip(told, map(_result, outcomes), strict=True)).items():
        _received(kind, _source(source), result).inc(count)
    for outcome in outcomes:
        if isinstance(outcome, _Stored) and not outcome.duplicate:
            _observe(outcome.record)


def _result(outcome: _Stored | Refused) -> str:
    if isinstance(outcome, Refused):
        return "refused"
    return "duplicate" if outcome.duplicate else "accepted"


def _observe(record: events_pb2.FeedbackRecorded) -> None:
    """An accepted feedback."""
    kind = record.feedback.WhichOneof("kind") or "none"
    received, issued = record.receive_time, record.claims[0].issue_time
    _delay(kind).observe(received.seconds - issued.seconds + (received.nanos - issued.nanos) / 1e9)
    if kind == "thumbs":
        _thumbs("up" if record.feedback.thumbs == feedback_pb2.THUMBS_UP else "down").inc()


# Labels are looked up once: that costs more than counting. All are bounded.


@cache
def _received(kind: str, source: str, result: str) -> prometheus_client.Counter:
    return FEEDBACK_RECEIVED.labels(kind, source, result)


@cache
def _delay(kind: str) -> prometheus_client.Histogram:
    return FEEDBACK_DELAY.labels(kind)


@cache
def _thumbs(direction: str) -> prometheus_client.Counter:
    return THUMBS.labels(direction)


def _source(source: feedback_pb2.FeedbackSource.ValueType) -> str:
    """A bounded label: what a client makes up is `unknown`."""
    return _SOURCES.get(source, "unknown")
