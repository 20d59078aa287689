"""`python -m server` as a process: starts, says where, reports, drains."""

import asyncio
import os
import signal
import sys
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from foldback.v1 import chat_pb2, chat_pb2_grpc
from tests.server.calls import following, health, refused
from tests.server.conftest import asking

pytestmark = pytest.mark.slow
SERVING = health_pb2.HealthCheckResponse.SERVING


@asynccontextmanager
async def process(
    data_dir: Path, model: Path, broker: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, dict[str, str]]]:
    """The server, and what it said about itself by first word."""
    variables = {
        "DATA_DIR": str(data_dir),
        "MODEL__NAME": str(model),
        "FEEDBACK__BOOTSTRAP_SERVERS": broker,
        "SERVER__ENGINE": "transformers",
        "SERVER__PORT": "0",
        "SERVER__ADMIN_PORT": "0",
        "SERVER__METRICS_PORT": "0",
        "SERVER__TORCH_THREADS": "1",
    }
    server = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "server",
        env=os.environ | {f"FOLDBACK_{name}": value for name, value in variables.items()},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert server.stdout
        said: dict[str, str] = {}
        while "serving" not in said:
            line = await server.stdout.readline()
            assert line, "the server ended before it served"
            word, _, rest = line.decode().strip().partition(" ")
            said[word] = rest
        yield server, said
    finally:
        if server.returncode is None:
            server.kill()
            await server.wait()


async def test_it_says_where_it_is_and_drains_without_losing_a_stream(
    tmp_path: Path, tiny_model: Path, broker: str
) -> None:
    async with process(tmp_path, tiny_model, broker) as (server, said):
        assert said["serving"].startswith("p000000-")
        assert said["serving"].endswith("(transformers, weights)")
        async with grpc.aio.insecure_channel(said["chat"]) as channel:
            await check_health(channel)
            assert await reflected(channel) >= {"foldback.v1.ChatService", "foldback.v1.FeedbackService"}
            await check_drain(server, channel)


async def check_health(channel: grpc.aio.Channel) -> None:
    for service in ("", "foldback.v1.ChatService", "foldback.v1.FeedbackService", "foldback.v1.PolicyService"):
        assert await health(channel, service) == SERVING


async def reflected(channel: grpc.aio.Channel) -> set[str]:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type] # untyped
    call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    response = await call.read()
    call.cancel()
    return {service.name for service in response.list_services_response.service}


async def check_drain(server: asyncio.subprocess.Process, channel: grpc.aio.Channel) -> None:
    chat = chat_pb2_grpc.ChatServiceStub(channel)
    request = asking(candidate_count=4, sampling=chat_pb2.Sampling(max_tokens=400))
    stream = chat.StreamChat(chat_pb2.StreamChatRequest(chat=request))
    await stream.read()
    server.send_signal(signal.SIGTERM)
    while (await following(stream)).WhichOneof("event") != "finished":
        continue
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() is grpc.StatusCode.OK
    code, _ = await refused(chat.CreateChat(asking()), error_details_pb2.RetryInfo)
    assert code is grpc.StatusCode.UNAVAILABLE
    assert await asyncio.wait_for(server.wait(), 15) == 0


async def test_metrics_tell_what_happened(tmp_path: Path, tiny_model: Path, broker: str) -> None:
    async with process(tmp_path, tiny_model, broker) as (_, said):
        async with grpc.aio.insecure_channel(said["chat"]) as channel:
            await chat_pb2_grpc.ChatServiceStub(channel).CreateChat(asking())
            with pytest.raises(grpc.aio.AioRpcError):
                await chat_pb2_grpc.ChatServiceStub(channel).CreateChat(asking(candidate_count=9))
        version = said["serving"].split()[0]
        # A call is counted when it is over, which its caller knows a moment before.
        lines = await asyncio.to_thread(scraped, said["metrics"], with_a="INVALID_ARGUMENT")
        for sample in (
            'foldback_grpc_requests_total{code="OK",method="ChatService/CreateChat"} 1.0',
            'foldback_grpc_requests_total{code="INVALID_ARGUMENT",method="ChatService/CreateChat"} 1.0',
            f'foldback_policy_info{{slot="active",version="{version}"}} 1.0',
            'foldback_weight_swaps_total{result="served"} 1.0',
            'foldback_time_to_first_token_seconds_count{slot="active"} 1.0',
            "foldback_requests_in_flight 0.0",
            "foldback_engine_paused 0.0",
        ):
            assert sample in lines


def scraped(address: str, *, with_a: str, within_s: float = 5.0) -> list[str]:
    """The lines of a metrics port, as soon as they have this word."""
    give_up = time.monotonic() + within_s
    while True:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
            text = str(answer.read().decode())
        if with_a in text or time.monotonic() > give_up:
            return text.splitlines()
        time.sleep(0.1)


async def test_a_port_in_use_is_said_plainly(tmp_path: Path, tiny_model: Path, broker: str) -> None:
    async with process(tmp_path / "one", tiny_model, broker) as (_, said):
        port = said["chat"].rsplit(":", 1)[1]
        variables = {
            "FOLDBACK_DATA_DIR": str(tmp_path / "two"),
            "FOLDBACK_MODEL__NAME": str(tiny_model),
            "FOLDBACK_FEEDBACK__BOOTSTRAP_SERVERS": broker,
            "FOLDBACK_SERVER__ENGINE": "transformers",
            "FOLDBACK_SERVER__PORT": port,
        }
        second = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "server", env=os.environ | variables, stderr=asyncio.subprocess.PIPE
        )
        _, error = await asyncio.wait_for(second.communicate(), 60)
        assert second.returncode == 1
        assert f"127.0.0.1:{port} cannot be bound" in error.decode().splitlines()[-1]
