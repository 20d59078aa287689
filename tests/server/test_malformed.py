"""Bytes that are no message: refused as any other bad request, and nothing more comes of them."""

import logging

import grpc
import pytest
from google.rpc import error_details_pb2

from tests.server.calls import refused
from tests.server.conftest import Client, asking

CHAT = "/foldback.v1.ChatService"
NOISE, NOT_UTF8 = b"\xff\xff\xff", b"\x0a\x02\xff\xfe"
TRUNCATED = asking().SerializeToString()[:-3]


@pytest.mark.parametrize(
    ("port", "method", "raw"),
    [
        ("public", f"{CHAT}/CreateChat", NOISE),
        ("public", f"{CHAT}/CreateChat", TRUNCATED),
        ("public", f"{CHAT}/CreateChat", NOT_UTF8),
        ("public", "/foldback.v1.FeedbackService/SubmitFeedback", NOT_UTF8),
        ("admin", "/foldback.v1.PolicyService/ListPolicies", NOISE),
    ],
)
async def test_a_request_that_cannot_be_read_is_an_invalid_argument(
    client: Client, caplog: pytest.LogCaptureFixture, port: str, method: str, raw: bytes
) -> None:
    with caplog.at_level(logging.DEBUG):
        code, info = await refused(getattr(client, port).unary_unary(method)(raw), error_details_pb2.ErrorInfo)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert info.reason == "MALFORMED_REQUEST"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert (await client.chat.CreateChat(asking())).candidates


async def test_so_is_one_that_asks_for_a_stream(client: Client) -> None:
    stream: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = client.public.unary_stream(f"{CHAT}/StreamChat")
    call = stream(NOISE)
    with pytest.raises(grpc.aio.AioRpcError, match="3 bytes are no StreamChatRequest"):
        await call.read()
    assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_and_one_in_a_stream_of_requests(client: Client) -> None:
    method = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    reflect: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = client.public.stream_stream(method)
    call = reflect(iter([NOISE]))
    with pytest.raises(grpc.aio.AioRpcError, match="no ServerReflectionRequest"):
        await call.read()
    assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
