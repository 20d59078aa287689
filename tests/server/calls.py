"""Calls as tests make them: how one was refused, the next message of a stream, what the health service says."""

from collections.abc import Awaitable
from typing import Any, TypeVar, cast

import grpc
import pytest
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

MessageT = TypeVar("MessageT", bound=Message)
RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")


async def refused(call: Awaitable[object], kind: type[MessageT]) -> tuple[grpc.StatusCode, MessageT]:
    """(code, the detail of that kind) of a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    status = rpc_status.from_call(caught.value)  # type: ignore[arg-type]
    assert status is not None, caught.value
    for packed in status.details:
        detail = kind()
        if packed.Unpack(detail):
            return caught.value.code(), detail
    raise AssertionError(f"no {kind.__name__} in {status}")


async def following(stream: "grpc.aio.UnaryStreamCall[RequestT, ResponseT]") -> ResponseT:
    """The next message of a stream that has one."""
    message = await stream.read()
    assert message is not grpc.aio.EOF, "the stream has ended"
    return cast(ResponseT, message)


async def health(channel: grpc.aio.Channel, service: str = "", timeout_s: float = 20) -> int:
    """What the health service says of `service`; "" is the whole server. A HealthCheckResponse.ServingStatus."""
    stub: Any = health_pb2_grpc.HealthStub(channel)  # untyped
    answer: health_pb2.HealthCheckResponse = await stub.Check(
        health_pb2.HealthCheckRequest(service=service), timeout=timeout_s
    )
    return answer.status


def health_watch(
    channel: grpc.aio.Channel, service: str = "", timeout_s: float = 60
) -> "grpc.aio.UnaryStreamCall[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]":
    """Every change of it."""
    stub: Any = health_pb2_grpc.HealthStub(channel)  # untyped
    watch: grpc.aio.UnaryStreamCall[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse] = stub.Watch(
        health_pb2.HealthCheckRequest(service=service), timeout=timeout_s
    )
    return watch
