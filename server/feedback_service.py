"""FeedbackService: what feedback/ decides, as gRPC."""

import asyncio

import grpc

from feedback.eventlog import Durability, EventLog, EventTooLarge, LogUnavailable, SpoolFull
from feedback.outcomes import Outcomes
from feedback.submission import (
    FEEDBACK_TYPE,
    IdConflict,
    InvalidFeedback,
    RecentSubmissions,
    record_feedback,
    record_retraction,
)
from feedback.tokens import Expired, TokenError, TokenSigner
from feedback.topics import FEEDBACK
from foldback.v1 import events_pb2, feedback_pb2, feedback_pb2_grpc
from server.admission import Admission
from server.identity import current_tenant
from server.interceptor import Context
from server.metrics import FEEDBACK_DELAY, FEEDBACK_RECEIVED, THUMBS
from server.rates import RaterRates
from server.status import Refused, exhausted, invalid, not_found, precondition, unavailable
from settings.feedback import FeedbackSettings

MAX_BATCH = 100
DURABILITY = {Durability.BROKER: feedback_pb2.DURABILITY_BROKER, Durability.SPOOL: feedback_pb2.DURABILITY_SPOOL}


class FeedbackService(feedback_pb2_grpc.FeedbackServiceServicer):
    def __init__(
        self, log: EventLog, outcomes: Outcomes, signer: TokenSigner, admission: Admission, settings: FeedbackSettings
    ) -> None:
        self._log = log
        self._outcomes = outcomes
        self._signer = signer
        self._admission = admission
        self._max_text_chars = settings.max_text_chars
        self._rates = RaterRates(settings.rater_per_minute, settings.rater_burst)
        self._recent = RecentSubmissions()

    async def SubmitFeedback(  # noqa: N802
        self, request: feedback_pb2.SubmitFeedbackRequest, context: Context
    ) -> feedback_pb2.SubmitFeedbackResponse:
        return await self._submit(request, current_tenant())

    async def BatchSubmitFeedback(  # noqa: N802
        self, request: feedback_pb2.BatchSubmitFeedbackRequest, context: Context
    ) -> feedback_pb2.BatchSubmitFeedbackResponse:
        if not 1 <= len(request.requests) <= MAX_BATCH:
            raise invalid([("requests", f"{len(request.requests)} items; 1 to {MAX_BATCH}")])
        tenant = current_tenant()

        async def one(item: feedback_pb2.SubmitFeedbackRequest) -> feedback_pb2.BatchSubmitFeedbackResponse.Result:
            try:
                return feedback_pb2.BatchSubmitFeedbackResponse.Result(response=await self._submit(item, tenant))
            except Refused as refused:
                return feedback_pb2.BatchSubmitFeedbackResponse.Result(error=refused.status)

        return feedback_pb2.BatchSubmitFeedbackResponse(results=await asyncio.gather(*map(one, request.requests)))

    async def RetractFeedback(  # noqa: N802
        self, request: feedback_pb2.RetractFeedbackRequest, context: Context
    ) -> feedback_pb2.RetractFeedbackResponse:
        try:
            record = record_retraction(request, current_tenant(), self._signer)
        except (InvalidFeedback, TokenError) as error:
            raise _refusal(error) from error
        durability, _ = await self._store(record)
        return feedback_pb2.RetractFeedbackResponse(durability=DURABILITY[durability])

    async def GetFeedbackStatus(  # noqa: N802
        self, request: feedback_pb2.GetFeedbackStatusRequest, context: Context
    ) -> feedback_pb2.GetFeedbackStatusResponse:
        outcome = self._outcomes.lookup(request.feedback_id)
        if outcome is not None:
            return feedback_pb2.GetFeedbackStatusResponse(
                feedback_id=outcome.feedback_id,
                state=outcome.state,
                reason=outcome.reason,
                policy_version=outcome.policy_version,
                update_time=outcome.time,
            )
        if self._recent.accepted(request.feedback_id):
            return feedback_pb2.GetFeedbackStatusResponse(
                feedback_id=request.feedback_id, state=feedback_pb2.FEEDBACK_STATE_ACCEPTED
            )
        raise not_found(
            f"feedback_id={request.feedback_id!r}: this server knows nothing of it (yet, if another replica took it)",
            "FEEDBACK_UNKNOWN",
        )

    async def _submit(
        self, request: feedback_pb2.SubmitFeedbackRequest, tenant: str
    ) -> feedback_pb2.SubmitFeedbackResponse:
        kind = request.feedback.WhichOneof("kind") or "none"
        source = _source(request.feedback.source)
        try:
            record = record_feedback(request, tenant, self._signer, max_text_chars=self._max_text_chars)
            durability, duplicate = await self._store(record)
        except (InvalidFeedback, TokenError) as error:
            FEEDBACK_RECEIVED.labels(kind, source, "refused").inc()
            raise _refusal(error) from error
        except Refused:
            FEEDBACK_RECEIVED.labels(kind, source, "refused").inc()
            raise
        FEEDBACK_RECEIVED.labels(kind, source, "duplicate" if duplicate else "accepted").inc()
        if not duplicate:
            delay_ns = record.receive_time.ToNanoseconds() - record.claims[0].issue_time.ToNanoseconds()
            FEEDBACK_DELAY.labels(kind).observe(delay_ns / 1e9)
            if kind == "thumbs":
                THUMBS.labels("up" if request.feedback.thumbs == feedback_pb2.THUMBS_UP else "down").inc()
        return feedback_pb2.SubmitFeedbackResponse(
            feedback_id=record.feedback_id, durability=DURABILITY[durability], duplicate=duplicate
        )

    async def _store(self, record: events_pb2.FeedbackRecorded) -> tuple[Durability, bool]:
        """(durability, whether it was here before). Raises Refused."""
        self._admission.check()
        try:
            known = self._recent.find(record)
            if known is not None:
                return known, True
            self._rates.take(record.tenant, record.feedback.rater_id)
            await self._log.settled(claim.response_id for claim in record.claims)
            durability = await self._log.emit(
                FEEDBACK,
                record.claims[0].conversation_id,
                record,
                event_id=record.feedback_id,
                type=FEEDBACK_TYPE,
                tenant=record.tenant,
            )
        except (IdConflict, SpoolFull, LogUnavailable, EventTooLarge) as error:
            raise _refusal(error) from error
        self._recent.add(record, durability)
        return durability, False


def _refusal(error: Exception) -> Refused:
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


def _source(source: feedback_pb2.FeedbackSource.ValueType) -> str:
    """A bounded label: what a client makes up is `unknown`."""
    if source in feedback_pb2.FeedbackSource.values():
        return feedback_pb2.FeedbackSource.Name(source).removeprefix("FEEDBACK_SOURCE_").lower()
    return "unknown"
