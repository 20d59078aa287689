"""ChatService: both calls are one path, a stream of events; the unary one gathers them."""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from random import SystemRandom

from google.protobuf import duration_pb2

from feedback.eventlog import EventLog
from feedback.tokens import TokenSigner
from foldback.v1 import chat_pb2, chat_pb2_grpc, events_pb2
from server.admission import Admission
from server.engines.base import Delta, Engine, GenerationRequest
from server.events import FINISH_REASONS, CandidateLog, policy_spans, record_response, sampling_as_applied
from server.identity import tenant_of
from server.interceptor import Context
from server.metrics import ABORTED, TIME_PER_OUTPUT_TOKEN, TIME_TO_FIRST_TOKEN
from server.prompt import PromptBuilder
from server.status import precondition
from server.validation import check_chat

SLOT = "active"
_dice = SystemRandom()


@dataclass
class Answer:
    """One response on its way."""

    request: chat_pb2.CreateChatRequest
    header: events_pb2.ResponseRecorded
    generation: GenerationRequest
    token: str
    candidates: list[CandidateLog]
    clock: "Clock"


@dataclass
class Clock:
    begun: float = field(default_factory=time.monotonic)
    first: dict[int, float] = field(default_factory=dict)
    """When each candidate's first token came."""

    def tick(self, delta: Delta, tokens: int) -> None:
        """A delta has come; its candidate has `tokens` tokens now."""
        now = time.monotonic()
        if not self.first:
            TIME_TO_FIRST_TOKEN.labels(SLOT).observe(now - self.begun)
        first = self.first.setdefault(delta.candidate_index, now)
        if delta.finish_reason and tokens > 1:
            TIME_PER_OUTPUT_TOKEN.labels(SLOT).observe((now - first) / (tokens - 1))

    def timing(self) -> chat_pb2.Timing:
        to_first = min(self.first.values(), default=self.begun) - self.begun
        return chat_pb2.Timing(time_to_first_token=_duration(to_first), total=_duration(time.monotonic() - self.begun))


class ChatService(chat_pb2_grpc.ChatServiceServicer):
    def __init__(
        self, engine: Engine, prompts: PromptBuilder, signer: TokenSigner, log: EventLog, admission: Admission
    ) -> None:
        self._engine = engine
        self._prompts = prompts
        self._signer = signer
        self._log = log
        self._admission = admission

    async def CreateChat(  # noqa: N802
        self, request: chat_pb2.CreateChatRequest, context: Context
    ) -> chat_pb2.CreateChatResponse:
        response = chat_pb2.CreateChatResponse()
        async with aclosing(self._answer(request, tenant_of(context))) as events:
            async for event in events:
                _gather(response, event)
        return response

    async def StreamChat(  # noqa: N802
        self, request: chat_pb2.StreamChatRequest, context: Context
    ) -> AsyncGenerator[chat_pb2.StreamChatResponse, None]:
        async with aclosing(self._answer(request.chat, tenant_of(context))) as events:
            async for event in events:
                yield event

    async def _answer(
        self, request: chat_pb2.CreateChatRequest, tenant: str
    ) -> AsyncGenerator[chat_pb2.StreamChatResponse, None]:
        clock = Clock()
        check_chat(request)
        with self._admission.slot():
            answer = await self._prepare(request, tenant, clock)
            yield chat_pb2.StreamChatResponse(started=_started(answer))
            try:
                async with aclosing(self._engine.generate(answer.generation)) as deltas:
                    async for delta in deltas:
                        for event in _events(answer, delta):
                            yield event
                yield chat_pb2.StreamChatResponse(
                    finished=chat_pb2.ChatFinished(usage=_usage(answer), timing=clock.timing())
                )
            except (asyncio.CancelledError, GeneratorExit):
                ABORTED.labels("cancelled").inc()
                raise
            except Exception:
                ABORTED.labels("error").inc()
                raise
            finally:
                # Also when cut short: the client holds a token for what it has seen.
                record_response(
                    self._log, answer.header, request, answer.generation.prompt_token_ids, answer.candidates
                )

    async def _prepare(self, request: chat_pb2.CreateChatRequest, tenant: str, clock: Clock) -> Answer:
        prompt = await asyncio.to_thread(self._prompts.token_ids, request.messages)
        serving = self._engine.version
        if request.policy_version not in ("", serving):
            raise precondition(
                f"policy_version={request.policy_version!r}: this server serves {serving};"
                " leave it empty for the active version",
                "POLICY_NOT_SERVED",
                serving_version=serving,
            )
        sampling = self._prompts.sampling(request.sampling, len(prompt))
        count = request.candidate_count or 1
        response_id = str(uuid.uuid4())
        candidate_ids = [str(uuid.uuid4()) for _ in range(count)]
        header = events_pb2.ResponseRecorded(
            tenant=tenant,
            response_id=response_id,
            conversation_id=request.conversation_id or str(uuid.uuid4()),
            request_id=request.request_id or str(uuid.uuid4()),
            rater_id=request.rater_id,
            regenerate_of=request.regenerate_of,
            policy_version=serving,
            sampling=sampling_as_applied(sampling),
            # Raters favour what stands first; a shuffled order that is on record lets learning correct for it.
            display_order=_dice.sample(range(count), count),
            training_consent=request.training_consent,
            labels=request.labels,
        )
        header.serve_time.GetCurrentTime()
        claims = events_pb2.TokenClaims(
            tenant=tenant,
            conversation_id=header.conversation_id,
            response_id=response_id,
            candidate_ids=candidate_ids,
            policy_version=serving,
            issue_time=header.serve_time,
        )
        return Answer(
            request,
            header,
            GenerationRequest(response_id, prompt, sampling, count),
            self._signer.sign(claims),
            [CandidateLog(candidate_id) for candidate_id in candidate_ids],
            clock,
        )


def _started(answer: Answer) -> chat_pb2.ChatStarted:
    return chat_pb2.ChatStarted(
        response_id=answer.header.response_id,
        conversation_id=answer.header.conversation_id,
        policy_version=answer.header.policy_version,
        feedback_token=answer.token,
        candidate_ids=[candidate.candidate_id for candidate in answer.candidates],
        display_order=answer.header.display_order,
    )


def _events(answer: Answer, delta: Delta) -> list[chat_pb2.StreamChatResponse]:
    """What the client hears of a delta; nothing while its text is still uncertain."""
    candidate = answer.candidates[delta.candidate_index]
    candidate.add(delta)
    answer.clock.tick(delta, len(candidate.token_ids))
    events = []
    if delta.text:
        events.append(
            chat_pb2.StreamChatResponse(
                delta=chat_pb2.ChatDelta(candidate_index=delta.candidate_index, text=delta.text)
            )
        )
    if delta.finish_reason:
        finished = chat_pb2.CandidateFinished(
            candidate_index=delta.candidate_index,
            finish_reason=FINISH_REASONS[delta.finish_reason],
            usage=chat_pb2.Usage(
                prompt_tokens=len(answer.generation.prompt_token_ids), completion_tokens=len(candidate.token_ids)
            ),
            policy_spans=policy_spans(delta),
        )
        events.append(chat_pb2.StreamChatResponse(candidate_finished=finished))
    return events


def _usage(answer: Answer) -> chat_pb2.Usage:
    """Of the whole response: the prompt counts once."""
    return chat_pb2.Usage(
        prompt_tokens=len(answer.generation.prompt_token_ids),
        completion_tokens=sum(len(candidate.token_ids) for candidate in answer.candidates),
    )


def _gather(response: chat_pb2.CreateChatResponse, event: chat_pb2.StreamChatResponse) -> None:
    match event.WhichOneof("event"):
        case "started":
            started = event.started
            response.response_id = started.response_id
            response.conversation_id = started.conversation_id
            response.policy_version = started.policy_version
            response.feedback_token = started.feedback_token
            response.candidates.extend(chat_pb2.Candidate(candidate_id=name) for name in started.candidate_ids)
            response.display_order.extend(started.display_order)
        case "delta":
            response.candidates[event.delta.candidate_index].text += event.delta.text
        case "candidate_finished":
            candidate = response.candidates[event.candidate_finished.candidate_index]
            candidate.finish_reason = event.candidate_finished.finish_reason
            candidate.usage.CopyFrom(event.candidate_finished.usage)
            candidate.policy_spans.extend(event.candidate_finished.policy_spans)
        case "finished":
            response.usage.CopyFrom(event.finished.usage)
            response.timing.CopyFrom(event.finished.timing)


def _duration(seconds: float) -> duration_pb2.Duration:
    duration = duration_pb2.Duration()
    duration.FromNanoseconds(int(seconds * 1e9))
    return duration
