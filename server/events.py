"""What the server tells the event log about an answer."""

import asyncio
import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial

from feedback.event import Event
from feedback.eventlog import EventLog
from feedback.response import response_event
from foldback.v1 import chat_pb2, events_pb2
from server.engines.base import Delta, Sampling

FINISH_REASONS = {"stop": chat_pb2.FINISH_REASON_STOP, "length": chat_pb2.FINISH_REASON_LENGTH}

LINGER_S = 0.05
"""A busy server sends response events this often; one that has sent none for so long sends the next at once."""


@dataclass
class CandidateLog:
    """All that was produced of one candidate so far."""

    candidate_id: str
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: chat_pb2.FinishReason.ValueType = chat_pb2.FINISH_REASON_UNSPECIFIED
    spans: list[chat_pb2.PolicySpan] = field(default_factory=list)
    """Empty until it has finished."""

    def add(self, delta: Delta) -> None:
        self.text += delta.text
        self.token_ids += delta.token_ids
        self.logprobs += delta.logprobs
        if delta.finish_reason:
            self.finish_reason = FINISH_REASONS[delta.finish_reason]
            self.spans = policy_spans(delta)

    def to_record(self, with_content: bool) -> events_pb2.CandidateRecord:
        record = events_pb2.CandidateRecord(
            candidate_id=self.candidate_id,
            finish_reason=self.finish_reason,
            policy_spans=self.spans,
            text_sha256=hashlib.sha256(self.text.encode()).digest(),
        )
        if with_content:
            record.text = self.text
            record.token_ids.extend(self.token_ids)
            record.logprobs.extend(self.logprobs)
        return record


def policy_spans(delta: Delta) -> list[chat_pb2.PolicySpan]:
    return [
        chat_pb2.PolicySpan(policy_version=span.version, start=span.start, end=span.end) for span in delta.version_spans
    ]


def sampling_as_applied(sampling: Sampling) -> chat_pb2.Sampling:
    """Every field set; but a seed only where one was given."""
    applied = chat_pb2.Sampling(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        max_tokens=sampling.max_tokens,
        stop=sampling.stop,
    )
    if sampling.seed is not None:
        applied.seed = sampling.seed
    return applied


class ResponseLog:
    """Sends response events on their way together: handing over one by one costs twice the CPU.

    Feedback is accepted after the answer it is about is durable, so no crash keeps the one without the other. An answer
    that is cut off with its server has no record; what is said of it through another server waits, in sight, and is
    dead-lettered as RESPONSE_MISSING after `feedback.response_horizon_s`.
    """

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._open: dict[str, asyncio.Future[None]] = {}
        """Answers that are being given."""
        self._gathered: dict[str, Callable[[], Event]] = {}
        self._flush_time = 0.0

    def begin(self, response_id: str) -> None:
        """An answer begins; `record` ends it."""
        self._open[response_id] = asyncio.get_running_loop().create_future()

    def record(
        self,
        header: events_pb2.ResponseRecorded,
        request: chat_pb2.CreateChatRequest,
        prompt_token_ids: Sequence[int],
        candidates: Sequence[CandidateLog],
    ) -> None:
        """What was said is complete: send it, with others that end about now."""
        if not self._gathered:
            loop = asyncio.get_running_loop()
            loop.call_at(max(self._flush_time + LINGER_S, loop.time()), self.flush)
        self._gathered[header.response_id] = partial(_completed, header, request, prompt_token_ids, candidates)
        if (begun := self._open.pop(header.response_id, None)) is not None:
            begun.set_result(None)

    async def settled(self, response_ids: Collection[str]) -> None:
        """Wait until the record of each of these answers is durable or given up: those of this server, begun or over.

        Feedback that comes while its answer is still being given waits for its end.
        """
        if begun := [self._open[name] for name in response_ids if name in self._open]:
            await asyncio.wait(begun)
        if any(name in self._gathered for name in response_ids):
            self.flush()
        await self._log.settled(response_ids)

    def flush(self) -> None:
        """Hand over what is gathered; before the log stops, or its last answers are missing."""
        self._flush_time = asyncio.get_running_loop().time()
        gathered, self._gathered = self._gathered, {}
        if gathered:
            self._log.emit_soon([event() for event in gathered.values()])


def _completed(
    header: events_pb2.ResponseRecorded,
    request: chat_pb2.CreateChatRequest,
    prompt_token_ids: Sequence[int],
    candidates: Sequence[CandidateLog],
) -> Event:
    """Completes `header`; without consent no text, token or logprob leaves the server."""
    consent = request.training_consent
    if consent:
        header.messages.extend(request.messages)
        header.prompt_token_ids.extend(prompt_token_ids)
    header.candidates.extend(candidate.to_record(consent) for candidate in candidates)
    return response_event(header)
