"""Keys, quotas and TLS on real connections."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import grpc
import pytest
import trustme
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_status import rpc_status
from pydantic import SecretStr

from console.client import Client
from feedback.deadletters import OUTCOME_TYPE
from feedback.event import Durability, build_event
from feedback.topics import OUTCOMES
from foldback.credentials import call_metadata
from foldback.v1 import (
    chat_pb2,
    chat_pb2_grpc,
    events_pb2,
    feedback_pb2,
    feedback_pb2_grpc,
    policy_pb2,
    policy_pb2_grpc,
)
from server.app import Running, running
from server.keys import digest, new_key
from server.ports import warn_if_open
from settings.access import AccessSettings, ApiKey
from settings.client import ClientSettings
from settings.server import ServerSettings
from tests.server.calls import health, refused
from tests.server.conftest import asking, server_settings
from tests.server.test_feedback_service import thumbs
from tests.server.test_process import reflected

ACME, OTHER, SLOW, NARROW, ADMIN = (new_key() for _ in range(5))


@dataclass(frozen=True)
class Pems:
    """Files as an operator would have them."""

    ca: Path
    certificate: Path
    key: Path


def pems(folder: Path, authority: trustme.CA, name: str) -> Pems:
    folder.mkdir(exist_ok=True)
    leaf = authority.issue_cert(name)
    files = Pems(*(folder / f"{name}.{kind}.pem" for kind in ("ca", "certificate", "key")))
    authority.cert_pem.write_to_path(str(files.ca))
    leaf.private_key_pem.write_to_path(str(files.key))
    for blob in leaf.cert_chain_pems:
        blob.write_to_path(str(files.certificate), append=True)
    return files


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Pems:
    return pems(tmp_path_factory.mktemp("pems"), trustme.CA(), "127.0.0.1")


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, broker: str) -> AsyncIterator[Running]:
    access = AccessSettings(
        api_keys=(
            ApiKey(tenant="acme", sha256=digest(ACME)),
            ApiKey(tenant="other", sha256=digest(OTHER)),
            ApiKey(tenant="slow", sha256=digest(SLOW), calls_per_minute=2),
            ApiKey(tenant="narrow", sha256=digest(NARROW), max_in_flight=1),
        ),
        admin_keys=(ApiKey(sha256=digest(ADMIN)),),
    )
    async with running(server_settings(tmp_path_factory.mktemp("keys"), tiny_model, broker, access=access)) as server:
        yield server


@pytest.fixture
async def public(server: Running) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(server.chat_address) as channel:
        yield channel


@pytest.fixture
def chat(public: grpc.aio.Channel) -> "chat_pb2_grpc.ChatServiceAsyncStub":
    return chat_pb2_grpc.ChatServiceStub(public)


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ((), "CREDENTIALS_MISSING"),
        (call_metadata(new_key()), "KEY_UNKNOWN"),
        (call_metadata(ADMIN), "KEY_UNKNOWN"),
        ((("authorization", ACME),), "KEY_UNKNOWN"),
    ],
)
async def test_without_a_key_of_the_port_nothing_is_answered(
    chat: "chat_pb2_grpc.ChatServiceAsyncStub", metadata: tuple[tuple[str, str], ...], reason: str
) -> None:
    code, info = await refused(chat.CreateChat(asking(), metadata=metadata), error_details_pb2.ErrorInfo)
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert info.reason == reason


async def test_health_needs_no_key_and_reflection_does(public: grpc.aio.Channel) -> None:
    assert await health(public, "foldback.v1.ChatService") == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await reflected(public)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_the_admin_port_has_keys_of_its_own(server: Running) -> None:
    async with grpc.aio.insecure_channel(server.admin_address) as channel:
        policies = policy_pb2_grpc.PolicyServiceStub(channel)
        request = policy_pb2.ListPoliciesRequest()
        assert (await policies.ListPolicies(request, metadata=call_metadata(ADMIN))).policies
        for metadata in ((), call_metadata(ACME)):
            call = policies.ListPolicies(request, metadata=metadata)
            code, _ = await refused(call, error_details_pb2.ErrorInfo)
            assert code is grpc.StatusCode.UNAUTHENTICATED


async def test_nobody_rates_what_another_tenant_was_served(
    public: grpc.aio.Channel, chat: "chat_pb2_grpc.ChatServiceAsyncStub"
) -> None:
    answer = await chat.CreateChat(asking(), metadata=call_metadata(ACME))
    feedback = feedback_pb2_grpc.FeedbackServiceStub(public)
    call = feedback.SubmitFeedback(thumbs(answer.feedback_token), metadata=call_metadata(OTHER))
    code, _ = await refused(call, error_details_pb2.ErrorInfo)
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert (await feedback.SubmitFeedback(thumbs(answer.feedback_token), metadata=call_metadata(ACME))).feedback_id


async def test_nobody_is_told_what_became_of_anothers_feedback(
    server: Running, public: grpc.aio.Channel, chat: "chat_pb2_grpc.ChatServiceAsyncStub"
) -> None:
    """Accepted here, and as the topic tells it: for another tenant it is as if there were no such feedback."""
    answer = await chat.CreateChat(asking(), metadata=call_metadata(ACME))
    feedback = feedback_pb2_grpc.FeedbackServiceStub(public)
    accepted = await feedback.SubmitFeedback(thumbs(answer.feedback_token), metadata=call_metadata(ACME))

    async def state() -> "feedback_pb2.FeedbackState.ValueType":
        """What its tenant is told; the other is told the same of it as of an id that nobody has."""
        told = []
        for feedback_id in (accepted.feedback_id, str(uuid4())):
            request = feedback_pb2.GetFeedbackStatusRequest(feedback_id=feedback_id)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await feedback.GetFeedbackStatus(request, metadata=call_metadata(OTHER))
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
            told.append(str(rpc_status.from_call(caught.value)).replace(feedback_id, ""))  # type: ignore[arg-type]
        assert told[0] == told[1]
        assert "FEEDBACK_UNKNOWN" in told[0]
        request = feedback_pb2.GetFeedbackStatusRequest(feedback_id=accepted.feedback_id)
        return (await feedback.GetFeedbackStatus(request, metadata=call_metadata(ACME))).state

    assert await state() == feedback_pb2.FEEDBACK_STATE_ACCEPTED
    outcome = events_pb2.FeedbackOutcome(
        feedback_id=accepted.feedback_id, state=feedback_pb2.FEEDBACK_STATE_LEARNED, policy_version="p000003-01234567"
    )
    event = build_event(
        OUTCOMES, accepted.feedback_id, outcome, event_id=str(uuid4()), type=OUTCOME_TYPE, tenant="acme"
    )
    assert await server.event_log.emit_all([event]) == [Durability.BROKER]
    deadline = time.monotonic() + 30
    while await state() != feedback_pb2.FEEDBACK_STATE_LEARNED:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_a_key_that_calls_too_often_is_told_when_to_return(chat: "chat_pb2_grpc.ChatServiceAsyncStub") -> None:
    for _ in range(2):
        await chat.CreateChat(asking(), metadata=call_metadata(SLOW))
    code, retry = await refused(chat.CreateChat(asking(), metadata=call_metadata(SLOW)), error_details_pb2.RetryInfo)
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert 15_000 < retry.retry_delay.ToMilliseconds() <= 30_000
    await chat.CreateChat(asking(), metadata=call_metadata(ACME))


async def test_a_key_with_too_many_open_calls_is_told_so(chat: "chat_pb2_grpc.ChatServiceAsyncStub") -> None:
    long = asking(sampling=chat_pb2.Sampling(max_tokens=400))
    stream = chat.StreamChat(chat_pb2.StreamChatRequest(chat=long), metadata=call_metadata(NARROW))
    await stream.read()
    code, info = await refused(chat.CreateChat(asking(), metadata=call_metadata(NARROW)), error_details_pb2.ErrorInfo)
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert info.reason == "QUOTA_IN_FLIGHT"
    stream.cancel()


@pytest.mark.slow
async def test_mutual_tls_with_the_console(tmp_path: Path, tiny_model: Path, broker: str, files: Pems) -> None:
    """Both ports speak TLS; the admin port also wants a certificate of its own authority."""
    operators = pems(tmp_path, trustme.CA(), "operator.example")
    access = AccessSettings(
        api_keys=(ApiKey(tenant="acme", sha256=digest(ACME)),),
        tls_certificate=files.certificate,
        tls_key=files.key,
        admin_client_ca=operators.ca,
    )
    trusting = ClientSettings(api_key=SecretStr(ACME), tls_ca=str(files.ca))
    operator = ClientSettings(
        tls_ca=str(files.ca), tls_certificate=str(operators.certificate), tls_key=str(operators.key)
    )
    async with running(server_settings(tmp_path, tiny_model, broker, access=access)) as server:
        addresses = server.chat_address, server.admin_address
        async with Client(*addresses, access=trusting, admin_access=operator) as client:
            assert (await client.create_chat(asking())).candidates
            assert [event async for event in client.stream_chat(asking())]
            assert (await client.list_policies()).policies
            assert await client.health()
        for stranger in (
            Client(*addresses, attempts=1, timeout_s=5),
            Client(
                *addresses, attempts=1, timeout_s=5, access=trusting, admin_access=ClientSettings(tls_ca=str(files.ca))
            ),
        ):
            async with stranger as client:
                with pytest.raises(grpc.aio.AioRpcError):
                    await client.list_policies()


def test_the_half_of_a_certificate_is_refused(files: Pems) -> None:
    with pytest.raises(ValueError, match="set both or neither"):
        AccessSettings(tls_certificate=files.certificate)
    with pytest.raises(ValueError, match="ask for TLS"):
        AccessSettings(client_ca=files.ca)
    with pytest.raises(ValueError, match="tls_ca"):
        ClientSettings(tls_certificate="c.pem", tls_key="k.pem")


def test_open_ports_beyond_this_machine_are_warned_of(caplog: pytest.LogCaptureFixture, files: Pems) -> None:
    with caplog.at_level(logging.WARNING):
        for host in ("127.0.0.1", "::1", "localhost"):
            warn_if_open(ServerSettings(host=host))
        assert not caplog.records
        warn_if_open(ServerSettings(host="0.0.0.0"))
        assert "PROMOTE" in caplog.text
        assert "chat and rate" in caplog.text
        caplog.clear()
        key = ApiKey(sha256=digest(new_key()))
        keyed = AccessSettings(api_keys=(key,), admin_keys=(key,))
        warn_if_open(ServerSettings(host="0.0.0.0", access=keyed))
        assert "in the clear" in caplog.text
        caplog.clear()
        secure = AccessSettings(**{**dict(keyed), "tls_certificate": files.certificate, "tls_key": files.key})
        warn_if_open(ServerSettings(host="0.0.0.0", access=secure))
        assert not caplog.records
