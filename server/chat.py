"""ChatService: the unary and the streaming call take the same path and differ in how they tell what comes."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Self

from google.protobuf import duration_pb2

from feedback.tokens import TokenSigner
from foldback.v1 import chat_pb2, chat_pb2_grpc, events_pb2
from server.admission import Admission
from server.engines.base import Delta, Engine, GenerationRequest
from server.events import CandidateLog, ResponseLog, sampling_as_applied
from server.identity import current_tenant
from server.ids import new_id
from server.interceptor import Context
from server.metrics import ABORTED, QUEUED, TIME_PER_OUTPUT_TOKEN, TIME_TO_FIRST_TOKEN
from server.prompt import PromptBuilder
from server.traffic import Slot, Traffic
from server.validation import check_chat

SLOTS: tuple[Slot, ...] = ("active", "canary")
_dice = Random()
# Looked up once: labels cost more than counting.
_TO_FIRST = {slot: TIME_TO_FIRST_TOKEN.labels(slot) for slot in SLOTS}
_PER_TOKEN = {slot: TIME_PER_OUTPUT_TOKEN.labels(slot) for slot in SLOTS}


@dataclass
class Answer:
    """One response on its way."""

    request: chat_pb2.CreateChatRequest
    header: events_pb2.ResponseRecorded
    generation: GenerationRequest
    token: str
    candidates: list[CandidateLog]
    clock: "Clock"

    def take(self, delta: Delta) -> None:
        candidate = self.candidates[delta.candidate_index]
        candidate.add(delta)
        self.clock.tick(delta, len(candidate.token_ids))


@dataclass
class Clock:
    """Use as a context, from admission to the end: until the first token the chat counts as queued."""

    begun: float = field(default_factory=time.monotonic)
    slot: Slot = "active"
    """Whose version answers."""
    first: dict[int, float] = field(default_factory=dict)
    """When each candidate's first token came."""

    def __enter__(self) -> Self:
        QUEUED.inc()
        return self

    def __exit__(self, *error: object) -> None:
        if not self.first:
            QUEUED.dec()

    def tick(self, delta: Delta, tokens: int) -> None:
        """A delta has come; its candidate has `tokens` tokens now."""
        now = time.monotonic()
        if not self.first:
            QUEUED.dec()
            _TO_FIRST[self.slot].observe(now - self.begun)
        first = self.first.setdefault(delta.candidate_index, now)
        if delta.finish_reason and tokens > 1:
            _PER_TOKEN[self.slot].observe((now - first) / (tokens - 1))

    def timing(self) -> chat_pb2.Timing:
        to_first = min(self.first.values(), default=self.begun) - self.begun
        return chat_pb2.Timing(time_to_first_token=_duration(to_first), total=_duration(time.monotonic() - self.begun))


class ChatService(chat_pb2_grpc.ChatServiceServicer):
    def __init__(
        self,
        engine: Engine,
        traffic: Traffic,
        prompts: PromptBuilder,
        signer: TokenSigner,
        log: ResponseLog,
        admission: Admission,
    ) -> None:
        self._engine = engine
        self._traffic = traffic
        self._prompts = prompts
        self._signer = signer
        self._log = log
        self._admission = admission

    async def CreateChat(  # noqa: N802
        self, request: chat_pb2.CreateChatRequest, context: Context
    ) -> chat_pb2.CreateChatResponse:
        async with self._answering(request, current_tenant()) as answer:
            async with aclosing(self._engine.generate(answer.generation)) as deltas:
                async for delta in deltas:
                    answer.take(delta)
            return _whole(answer)

    async def StreamChat(  # type: ignore[override]  # noqa: N802
        self, request: chat_pb2.StreamChatRequest, context: Context
    ) -> None:
        # Writes rather than yields: a generator less between the engine and the wire, for every token.
        async with self._answering(request.chat, current_tenant()) as answer:
            await context.write(chat_pb2.StreamChatResponse(started=_started(answer)))
            async with aclosing(self._engine.generate(answer.generation)) as deltas:
                async for delta in deltas:
                    answer.take(delta)
                    if delta.text:
                        text = chat_pb2.ChatDelta(candidate_index=delta.candidate_index, text=delta.text)
                        await context.write(chat_pb2.StreamChatResponse(delta=text))
                    if delta.finish_reason:
                        finished = _finished(answer, delta.candidate_index)
                        await context.write(chat_pb2.StreamChatResponse(candidate_finished=finished))
            end = chat_pb2.ChatFinished(usage=_usage(answer), timing=answer.clock.timing())
            await context.write(chat_pb2.StreamChatResponse(finished=end))

    @asynccontextmanager
    async def _answering(self, request: chat_pb2.CreateChatRequest, tenant: str) -> AsyncIterator[Answer]:
        """Around both calls: checks, admission, and the record of what was said, also when it was cut short."""
        clock = Clock()
        check_chat(request)
        with self._admission.slot(), clock:
            answer = await self._prepare(request, tenant, clock)
            self._log.begin(answer.header.response_id)
            try:
                yield answer
            except (asyncio.CancelledError, GeneratorExit):
                ABORTED.labels("cancelled").inc()
                raise
            except Exception:
                ABORTED.labels("error").inc()
                raise
            finally:
                # The client holds a token for what it has seen, so that goes on record.
                self._log.record(answer.header, request, answer.generation.prompt_token_ids, answer.candidates)

    async def _prepare(self, request: chat_pb2.CreateChatRequest, tenant: str, clock: Clock) -> Answer:
        prompt = await self._prompts.token_ids_soon(request.messages)
        conversation_id = request.conversation_id or new_id()
        version, clock.slot = self._traffic.choose(conversation_id, request.policy_version)
        sampling = self._prompts.sampling(request.sampling, len(prompt))
        count = request.candidate_count or 1
        response_id = new_id()
        candidate_ids = [new_id() for _ in range(count)]
        header = events_pb2.ResponseRecorded(
            tenant=tenant,
            response_id=response_id,
            conversation_id=conversation_id,
            request_id=request.request_id or new_id(),
            rater_id=request.rater_id,
            regenerate_of=request.regenerate_of,
            policy_version=version,
            sampling=sampling_as_applied(sampling),
            # Raters favour what stands first; a shuffled order that is on record lets learning correct for it.
            display_order=_dice.sample(range(count), count),
            training_consent=request.training_consent,
            labels=request.labels,
        )
        header.serve_time.FromNanoseconds(time.time_ns())
        claims = events_pb2.TokenClaims(
            tenant=tenant,
            conversation_id=header.conversation_id,
            response_id=response_id,
            candidate_ids=candidate_ids,
            policy_version=version,
            issue_time=header.serve_time,
        )
        return Answer(
            request,
            header,
            GenerationRequest(response_id, prompt, sampling, count, version=version),
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


def _finished(answer: Answer, index: int) -> chat_pb2.CandidateFinished:
    candidate = answer.candidates[index]
    return chat_pb2.CandidateFinished(
        candidate_index=index,
        finish_reason=candidate.finish_reason,
        usage=_usage(answer, candidate),
        policy_spans=candidate.spans,
    )


def _whole(answer: Answer) -> chat_pb2.CreateChatResponse:
    return chat_pb2.CreateChatResponse(
        response_id=answer.header.response_id,
        conversation_id=answer.header.conversation_id,
        policy_version=answer.header.policy_version,
        feedback_token=answer.token,
        candidates=[
            chat_pb2.Candidate(
                candidate_id=candidate.candidate_id,
                text=candidate.text,
                finish_reason=candidate.finish_reason,
                usage=_usage(answer, candidate),
                policy_spans=candidate.spans,
            )
            for candidate in answer.candidates
        ],
        display_order=answer.header.display_order,
        usage=_usage(answer),
        timing=answer.clock.timing(),
    )


def _usage(answer: Answer, candidate: CandidateLog | None = None) -> chat_pb2.Usage:
    """Of one candidate, or of the whole response, where the prompt counts once."""
    counted = [candidate] if candidate else answer.candidates
    return chat_pb2.Usage(
        prompt_tokens=len(answer.generation.prompt_token_ids),
        completion_tokens=sum(len(candidate.token_ids) for candidate in counted),
    )


def _duration(seconds: float) -> duration_pb2.Duration:
    duration = duration_pb2.Duration()
    duration.FromNanoseconds(int(seconds * 1e9))
    return duration
