"""A peer that speaks the API: canned answers, no engine, no Kafka. Enough to see what a client sends and shows."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from functools import partial
from random import Random
from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2, duration_pb2, timestamp_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from foldback.v1 import chat_pb2, chat_pb2_grpc, feedback_pb2, feedback_pb2_grpc, policy_pb2, policy_pb2_grpc

BASE = "p000000-base0000"
ACTIVE, RETIRED = policy_pb2.POLICY_STATE_ACTIVE, policy_pb2.POLICY_STATE_RETIRED

Context = grpc.aio.ServicerContext[Any, Any]
Answer = Callable[[str, str, int], str]
"""(version, question, candidate index) → text."""


def echo(version: str, question: str, index: int) -> str:
    return f"Answer {index} of {version} to: {question}"


class FakeFoldback(
    chat_pb2_grpc.ChatServiceServicer,
    feedback_pb2_grpc.FeedbackServiceServicer,
    policy_pb2_grpc.PolicyServiceServicer,
):
    """Use it as `async with FakeFoldback() as fake:`; `fake.chat_address` and `fake.admin_address` then answer."""

    def __init__(self, answer: Answer = echo, versions_after: int | None = None) -> None:
        self.answer = answer
        self.versions_after = versions_after
        """Swap to a new version after every so many feedbacks: a trainer that learns at once."""
        self.serving = BASE
        self.training = policy_pb2.TRAINING_STATE_RUNNING
        self.transitions: list[policy_pb2.PolicyTransition] = []
        self.chats: list[chat_pb2.CreateChatRequest] = []
        self.served: dict[str, chat_pb2.CreateChatResponse] = {}
        """By feedback token."""
        self.feedback: dict[str, feedback_pb2.Feedback] = {}
        """By request_id: a retry lands on itself."""
        self.failures: deque[tuple[grpc.StatusCode, float | None]] = deque()
        """(code, seconds in RetryInfo) of the next calls."""
        self.canary = ""
        self.described: dict[str, policy_pb2.Policy] = {}
        """What ListPolicies says of a version, where a test wants it otherwise."""
        self.calls = 0
        self._random = Random(0)
        self._news = asyncio.Condition()

    async def __aenter__(self) -> "FakeFoldback":
        self._public, self._admin = grpc.aio.server(), grpc.aio.server()
        chat_pb2_grpc.add_ChatServiceServicer_to_server(self, self._public)
        feedback_pb2_grpc.add_FeedbackServiceServicer_to_server(self, self._public)
        policy_pb2_grpc.add_PolicyServiceServicer_to_server(self, self._admin)
        health = health_aio.HealthServicer()
        await health.set("foldback.v1.ChatService", health_pb2.HealthCheckResponse.SERVING)
        add_HealthServicer_to_server(health, self._public)
        self.chat_address = f"127.0.0.1:{self._public.add_insecure_port('127.0.0.1:0')}"
        self.admin_address = f"127.0.0.1:{self._admin.add_insecure_port('127.0.0.1:0')}"
        await self._public.start()
        await self._admin.start()
        await self.swap(BASE)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._public.stop(None)
        await self._admin.stop(None)

    async def swap(self, version: str, actor: str = "trainer") -> None:
        now = timestamp_pb2.Timestamp()
        now.GetCurrentTime()
        async with self._news:
            self.serving = version
            self.transitions.append(
                policy_pb2.PolicyTransition(
                    sequence=len(self.transitions) + 1, version=version, to=ACTIVE, actor=actor, time=now
                )
            )
            self._news.notify_all()

    # ChatService

    async def CreateChat(  # noqa: N802
        self, request: chat_pb2.CreateChatRequest, context: Context
    ) -> chat_pb2.CreateChatResponse:
        await self._fail_if_told(context)
        return self._respond(request)

    async def StreamChat(  # noqa: N802
        self, request: chat_pb2.StreamChatRequest, context: Context
    ) -> AsyncIterator[chat_pb2.StreamChatResponse]:
        await self._fail_if_told(context)
        whole = self._respond(request.chat)
        started = chat_pb2.ChatStarted(
            response_id=whole.response_id,
            conversation_id=whole.conversation_id,
            policy_version=whole.policy_version,
            feedback_token=whole.feedback_token,
            candidate_ids=[candidate.candidate_id for candidate in whole.candidates],
            display_order=whole.display_order,
        )
        yield chat_pb2.StreamChatResponse(started=started)
        words = [candidate.text.split(" ") for candidate in whole.candidates]
        for position in range(max(map(len, words))):
            for index, parts in enumerate(words):
                if position < len(parts):
                    text = parts[position] if position == 0 else " " + parts[position]
                    yield chat_pb2.StreamChatResponse(delta=chat_pb2.ChatDelta(candidate_index=index, text=text))
            await asyncio.sleep(0)
        for index in range(len(words)):
            finished = chat_pb2.CandidateFinished(candidate_index=index, finish_reason=chat_pb2.FINISH_REASON_STOP)
            yield chat_pb2.StreamChatResponse(candidate_finished=finished)
        yield chat_pb2.StreamChatResponse(finished=chat_pb2.ChatFinished())

    def _respond(self, request: chat_pb2.CreateChatRequest) -> chat_pb2.CreateChatResponse:
        self.chats.append(request)
        number, count = len(self.chats), max(1, request.candidate_count)
        order = list(range(count))
        self._random.shuffle(order)
        response = chat_pb2.CreateChatResponse(
            response_id=f"response-{number}",
            conversation_id=request.conversation_id or f"conversation-{number}",
            policy_version=self.serving,
            feedback_token=f"token-{number}",
            display_order=order,
        )
        for index in range(count):
            text = self.answer(self.serving, request.messages[-1].content, index)
            response.candidates.add(
                candidate_id=f"candidate-{number}-{index}", text=text, finish_reason=chat_pb2.FINISH_REASON_STOP
            )
        self.served[response.feedback_token] = response
        return response

    # FeedbackService

    async def SubmitFeedback(  # noqa: N802
        self, request: feedback_pb2.SubmitFeedbackRequest, context: Context
    ) -> feedback_pb2.SubmitFeedbackResponse:
        await self._fail_if_told(context)
        unknown = [token for token in request.feedback.feedback_tokens if token not in self.served]
        if unknown:
            violation = error_details_pb2.BadRequest.FieldViolation(
                field="feedback.feedback_tokens", description=f"unknown token {unknown[0]}"
            )
            await abort(
                context,
                grpc.StatusCode.INVALID_ARGUMENT,
                error_details_pb2.BadRequest(field_violations=[violation]),
            )
        duplicate = request.request_id in self.feedback
        self.feedback[request.request_id] = request.feedback
        if self.versions_after and not duplicate and len(self.feedback) % self.versions_after == 0:
            number = len(self.feedback) // self.versions_after
            await self.swap(f"p{number:06d}-fake0000")
        return feedback_pb2.SubmitFeedbackResponse(
            feedback_id=f"feedback-{len(self.feedback)}",
            durability=feedback_pb2.DURABILITY_BROKER,
            duplicate=duplicate,
        )

    async def GetFeedbackStatus(  # noqa: N802
        self, request: feedback_pb2.GetFeedbackStatusRequest, context: Context
    ) -> feedback_pb2.GetFeedbackStatusResponse:
        return feedback_pb2.GetFeedbackStatusResponse(
            feedback_id=request.feedback_id, state=feedback_pb2.FEEDBACK_STATE_JOINED
        )

    # PolicyService

    async def ListPolicies(  # noqa: N802
        self, request: policy_pb2.ListPoliciesRequest, context: Context
    ) -> policy_pb2.ListPoliciesResponse:
        await self._fail_if_told(context)
        versions = list(dict.fromkeys(transition.version for transition in reversed(self.transitions)))
        start = int(request.page_token or 0)
        page = versions[start : start + 2]
        response = policy_pb2.ListPoliciesResponse(
            serving_version=self.serving,
            canary_version=self.canary,
            training_state=self.training,
            next_page_token=str(start + 2) if start + 2 < len(versions) else "",
        )
        for version in page:
            response.policies.append(self._policy(version))
        return response

    async def WatchPolicies(  # noqa: N802
        self, request: policy_pb2.WatchPoliciesRequest, context: Context
    ) -> AsyncIterator[policy_pb2.WatchPoliciesResponse]:
        sent = request.after_sequence
        while True:
            for transition in self.transitions[sent:]:
                yield policy_pb2.WatchPoliciesResponse(transition=transition)
            sent = len(self.transitions)
            async with self._news:
                await self._news.wait_for(partial(self._more_than, sent))

    def _more_than(self, seen: int) -> bool:
        return len(self.transitions) > seen

    async def PromotePolicy(  # noqa: N802
        self, request: policy_pb2.PromotePolicyRequest, context: Context
    ) -> policy_pb2.PromotePolicyResponse:
        if not any(transition.version == request.version for transition in self.transitions):
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no version {request.version}")
        await self.swap(request.version, "operator")
        return policy_pb2.PromotePolicyResponse(policy=self._policy(request.version))

    async def RollbackPolicy(  # noqa: N802
        self, request: policy_pb2.RollbackPolicyRequest, context: Context
    ) -> policy_pb2.RollbackPolicyResponse:
        await self.swap(request.to_version or BASE, "operator")
        return policy_pb2.RollbackPolicyResponse(policy=self._policy(self.serving))

    async def SetTrainingState(  # noqa: N802
        self, request: policy_pb2.SetTrainingStateRequest, context: Context
    ) -> policy_pb2.SetTrainingStateResponse:
        self.training = request.state
        return policy_pb2.SetTrainingStateResponse(state=request.state)

    def _policy(self, version: str) -> policy_pb2.Policy:
        if version in self.described:
            return self.described[version]
        state = ACTIVE if version == self.serving else RETIRED
        parent = "" if version == BASE else BASE
        return policy_pb2.Policy(version=version, parent=parent, state=state, figures={"kl_nats": 1.5})

    async def _fail_if_told(self, context: Context) -> None:
        self.calls += 1
        if self.failures:
            code, delay_s = self.failures.popleft()
            info = None
            if delay_s is not None:
                delay = duration_pb2.Duration(nanos=int(delay_s * 1e9))
                info = error_details_pb2.RetryInfo(retry_delay=delay)
            await abort(context, code, info)


async def abort(context: Context, code: grpc.StatusCode, detail: Message | None = None) -> NoReturn:
    """End the call with google.rpc.Status details, as the server does."""
    status = status_pb2.Status(code=code.value[0], message="told to fail")
    if detail is not None:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    trailer = ("grpc-status-details-bin", status.SerializeToString())
    await context.abort(code, status.message, trailing_metadata=(trailer,))
