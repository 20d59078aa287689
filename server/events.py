"""What the server tells the event log about an answer and about a policy's life."""

import asyncio
import hashlib
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from feedback.eventlog import EventLog
from feedback.topics import POLICIES, RESPONSES
from foldback.v1 import chat_pb2, events_pb2
from registry import Transition
from registry.message import transition_message
from server.engines.base import Delta, Sampling

FINISH_REASONS = {"stop": chat_pb2.FINISH_REASON_STOP, "length": chat_pb2.FINISH_REASON_LENGTH}

LINGER_S = 0.05
"""How long a response event may wait for others."""


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
    """Sends response events on their way, a few at a time: handing over one by one costs twice the CPU."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._waiting: list[Callable[[], None]] = []
        log.hand_over = self.flush  # feedback that comes at once waits for the answer's event, not past it

    def record(
        self,
        header: events_pb2.ResponseRecorded,
        request: chat_pb2.CreateChatRequest,
        prompt_token_ids: Sequence[int],
        candidates: Sequence[CandidateLog],
    ) -> None:
        """Complete `header` and send it. Without consent no text, token or logprob leaves the server."""
        if not self._waiting:
            asyncio.get_running_loop().call_later(LINGER_S, self.flush)
        self._waiting.append(lambda: self._send(header, request, prompt_token_ids, candidates))

    def flush(self) -> None:
        """Hand over what waits; before the log stops, or its last answers are missing."""
        waiting, self._waiting = self._waiting, []
        for send in waiting:
            send()

    def _send(
        self,
        header: events_pb2.ResponseRecorded,
        request: chat_pb2.CreateChatRequest,
        prompt_token_ids: Sequence[int],
        candidates: Sequence[CandidateLog],
    ) -> None:
        consent = request.training_consent
        if consent:
            header.messages.extend(request.messages)
            header.prompt_token_ids.extend(prompt_token_ids)
        header.candidates.extend(candidate.to_record(consent) for candidate in candidates)
        self._log.emit_soon(
            RESPONSES,
            header.conversation_id,
            header,
            event_id=header.response_id,
            type="foldback.v1.ResponseRecorded",
            tenant=header.tenant,
        )


def record_transition(log: EventLog, transition: Transition, tenant: str) -> None:
    log.emit_soon(
        POLICIES,
        transition.version,
        transition_message(transition),
        # Several moves of one entry share its sequence number; the version tells them apart.
        event_id=str(uuid.uuid5(uuid.NAMESPACE_OID, f"{transition.sequence}/{transition.version}")),
        type="foldback.v1.PolicyTransition",
        tenant=tenant,
    )
