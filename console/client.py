"""A thin, typed client of the public and the admin port."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from types import TracebackType
from typing import Any, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from console.endpoints import endpoints
from console.rpc_details import retry_delay
from foldback.credentials import call_metadata, channel_credentials
from foldback.v1 import (
    chat_pb2,
    chat_pb2_grpc,
    feedback_pb2,
    feedback_pb2_grpc,
    policy_pb2,
    policy_pb2_grpc,
)
from settings import Settings
from settings.client import ClientSettings

FIRST_DELAY_S = 0.25
CHAT_SERVICE = "foldback.v1.ChatService"
NO_CREDENTIALS = ClientSettings()


class Client:
    """Calls Foldback; use it as `async with Client(...)`.

    A call that meets UNAVAILABLE is tried again, at most `attempts` times in all, after the delay the server asks for
    (RetryInfo) or else a doubling one. Every request carries its own request_id, so a retry is never counted twice.
    `attempts=1` makes every failure visible: what measures the server uses that.

    Raises:
        grpc.aio.AioRpcError: the last failure of a call.
    """

    def __init__(
        self,
        chat_address: str,
        admin_address: str,
        *,
        timeout_s: float = 60,
        attempts: int = 4,
        access: ClientSettings = NO_CREDENTIALS,
        admin_access: ClientSettings = NO_CREDENTIALS,
    ):
        self.chat_address, self.admin_address = chat_address, admin_address
        self._access, self._admin_access = access, admin_access
        self._timeout_s, self._attempts = timeout_s, attempts

    @classmethod
    def of(cls, settings: Settings, *, attempts: int | None = None) -> Self:
        """The client that `console:` describes."""
        place, console = endpoints(settings), settings.console
        return cls(
            place.chat,
            place.admin,
            timeout_s=console.timeout_s,
            attempts=attempts or console.attempts,
            access=console.access,
            admin_access=console.admin_access,
        )

    async def __aenter__(self) -> Self:
        # Channels belong to the running event loop, so they are opened here rather than in __init__.
        self._public = _channel(self.chat_address, self._access)
        self._admin = _channel(self.admin_address, self._admin_access)
        self._chat = chat_pb2_grpc.ChatServiceStub(self._public)
        self._feedback = feedback_pb2_grpc.FeedbackServiceStub(self._public)
        self._health = health_pb2_grpc.HealthStub(self._public)
        self._policies = policy_pb2_grpc.PolicyServiceStub(self._admin)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._public.close()
        await self._admin.close()

    async def create_chat(self, request: chat_pb2.CreateChatRequest) -> chat_pb2.CreateChatResponse:
        response: chat_pb2.CreateChatResponse = await self._call(self._chat.CreateChat, self._access, request)
        return response

    async def stream_chat(
        self, request: chat_pb2.CreateChatRequest
    ) -> AsyncGenerator[chat_pb2.StreamChatResponse, None]:
        """The events of one chat; tried again only while nothing has arrived."""
        for attempt in range(1, self._attempts + 1):
            arrived = False
            call = self._chat.StreamChat(
                chat_pb2.StreamChatRequest(chat=request), timeout=self._timeout_s, metadata=_metadata(self._access)
            )
            try:
                async for event in call:
                    arrived = True
                    yield event
                return
            except grpc.aio.AioRpcError as error:
                if arrived:
                    raise
                await self._wait_or_raise(error, attempt)
            finally:
                call.cancel()

    async def submit_feedback(self, request: feedback_pb2.SubmitFeedbackRequest) -> feedback_pb2.SubmitFeedbackResponse:
        response: feedback_pb2.SubmitFeedbackResponse = await self._call(
            self._feedback.SubmitFeedback, self._access, request
        )
        return response

    async def feedback_status(self, feedback_id: str) -> feedback_pb2.GetFeedbackStatusResponse:
        request = feedback_pb2.GetFeedbackStatusRequest(feedback_id=feedback_id)
        response: feedback_pb2.GetFeedbackStatusResponse = await self._call(
            self._feedback.GetFeedbackStatus, self._access, request
        )
        return response

    async def health(self, service: str = CHAT_SERVICE) -> bool:
        """Whether `service` says SERVING; one attempt."""
        response = await self._health.Check(  # type: ignore[attr-defined]
            health_pb2.HealthCheckRequest(service=service), timeout=min(self._timeout_s, 5)
        )
        return bool(response.status == health_pb2.HealthCheckResponse.SERVING)

    async def list_policies(self) -> policy_pb2.ListPoliciesResponse:
        """Every version, newest first: the pages are put together."""
        whole: policy_pb2.ListPoliciesResponse | None = None
        token = ""
        while whole is None or token:
            page: policy_pb2.ListPoliciesResponse = await self._call(
                self._policies.ListPolicies, self._admin_access, policy_pb2.ListPoliciesRequest(page_token=token)
            )
            token = page.next_page_token
            if whole is None:
                whole = page
            else:
                whole.policies.extend(page.policies)
        return whole

    async def watch_policies(self, after_sequence: int = 0) -> AsyncGenerator[policy_pb2.PolicyTransition, None]:
        """Transitions as they happen; ends only with the server, or when closed."""
        call = self._policies.WatchPolicies(
            policy_pb2.WatchPoliciesRequest(after_sequence=after_sequence), metadata=_metadata(self._admin_access)
        )
        try:
            async for event in call:
                yield event.transition
        finally:
            call.cancel()

    async def promote(self, version: str, reason: str) -> policy_pb2.Policy:
        request = policy_pb2.PromotePolicyRequest(version=version, reason=reason)
        response: policy_pb2.PromotePolicyResponse = await self._call(
            self._policies.PromotePolicy, self._admin_access, request
        )
        return response.policy

    async def rollback(self, to_version: str, reason: str) -> policy_pb2.Policy:
        request = policy_pb2.RollbackPolicyRequest(to_version=to_version, reason=reason)
        response: policy_pb2.RollbackPolicyResponse = await self._call(
            self._policies.RollbackPolicy, self._admin_access, request
        )
        return response.policy

    async def set_training_state(
        self, state: "policy_pb2.TrainingState.ValueType", reason: str
    ) -> "policy_pb2.TrainingState.ValueType":
        request = policy_pb2.SetTrainingStateRequest(state=state, reason=reason)
        response: policy_pb2.SetTrainingStateResponse = await self._call(
            self._policies.SetTrainingState, self._admin_access, request
        )
        return response.state

    async def _call(self, method: Callable[..., Any], access: ClientSettings, request: Any) -> Any:
        for attempt in range(1, self._attempts + 1):
            try:
                return await method(request, timeout=self._timeout_s, metadata=_metadata(access))
            except grpc.aio.AioRpcError as error:
                await self._wait_or_raise(error, attempt)
        raise AssertionError("the last attempt returns or raises")

    async def _wait_or_raise(self, error: grpc.aio.AioRpcError, attempt: int) -> None:
        """Sleep before the next attempt, or raise when there is none."""
        if error.code() is not grpc.StatusCode.UNAVAILABLE or attempt == self._attempts:
            raise error
        asked = retry_delay(error)
        await asyncio.sleep(FIRST_DELAY_S * 2 ** (attempt - 1) if asked is None else asked)


def _channel(address: str, access: ClientSettings) -> grpc.aio.Channel:
    secure = channel_credentials(access.tls_ca, access.tls_certificate, access.tls_key)
    return grpc.aio.secure_channel(address, secure) if secure else grpc.aio.insecure_channel(address)


def _metadata(access: ClientSettings) -> tuple[tuple[str, str], ...]:
    return call_metadata(access.api_key.get_secret_value())
