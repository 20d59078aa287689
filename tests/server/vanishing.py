"""Clients that leave in every way there is, and what must then be left at the server: nothing."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Self

import grpc
from prometheus_client import REGISTRY

from foldback.v1 import chat_pb2, chat_pb2_grpc
from tests.server.conftest import asking

Leave = Callable[[str, chat_pb2.CreateChatRequest], Awaitable[None]]
"""(the server's address, what to ask) → begins a chat, and is gone."""
PATIENCE_S = 20
"""For one step of a test on a busy machine."""


async def cancels(address: str, request: chat_pb2.CreateChatRequest) -> None:
    """Cancels its stream in the middle."""
    async with grpc.aio.insecure_channel(address) as channel:
        stream = chat_pb2_grpc.ChatServiceStub(channel).StreamChat(chat_pb2.StreamChatRequest(chat=request))
        await stream.read()
        stream.cancel()
        assert await stream.code() is grpc.StatusCode.CANCELLED


async def times_out(address: str, request: chat_pb2.CreateChatRequest) -> None:
    """Runs into a deadline, by a call that has not answered anything yet."""
    async with grpc.aio.insecure_channel(address) as channel:
        call = chat_pb2_grpc.ChatServiceStub(channel).CreateChat(request, timeout=0.1)
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def drops_its_channel(address: str, request: chat_pb2.CreateChatRequest) -> None:
    """Closes its connection under an open stream."""
    channel = grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
    stream = chat_pb2_grpc.ChatServiceStub(channel).StreamChat(chat_pb2.StreamChatRequest(chat=request))
    await stream.read()
    await channel.close()


async def is_killed(address: str, request: chat_pb2.CreateChatRequest) -> None:
    """Its socket breaks off, as when its process is killed: no goodbye in HTTP/2."""
    async with (
        Relay(address) as relay,
        grpc.aio.insecure_channel(relay.address, [("grpc.use_local_subchannel_pool", 1)]) as channel,
    ):
        stream = chat_pb2_grpc.ChatServiceStub(channel).StreamChat(chat_pb2.StreamChatRequest(chat=request))
        await stream.read()
        relay.sever()
        assert await stream.code() is grpc.StatusCode.UNAVAILABLE


WAYS: tuple[Leave, ...] = (cancels, times_out, drops_its_channel, is_killed)


class Relay:
    """Leads from `address` to a server, and can break off or go silent, as cables do."""

    def __init__(self, server_address: str) -> None:
        host, _, port = server_address.rpartition(":")
        self._onward = host, int(port)
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._frozen = False
        self.connections = 0
        """Made so far."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.sever()
        self._server.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def sever(self) -> None:
        """Break off every connection at once."""
        for writer in self._writers:
            writer.transport.abort()

    def freeze(self) -> None:
        """From now on nothing comes through, and nobody is told."""
        self._frozen = True

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        onward, back = await asyncio.open_connection(*self._onward)
        self._writers += writer, back
        self._tasks |= {asyncio.create_task(self._pump(reader, back)), asyncio.create_task(self._pump(onward, writer))}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if not self._frozen:
                    writer.write(data)
        if not self._frozen:
            writer.close()


async def leave(address: str, ways: list[Leave], request: chat_pb2.CreateChatRequest, at_once: int) -> None:
    """Everyone in `ways` begins a chat and goes, `at_once` of them at a time."""
    left = iter(ways)

    async def one_after_another() -> None:
        for way in left:
            async with asyncio.timeout(PATIENCE_S):
                await way(address, request)

    await asyncio.gather(*(one_after_another() for _ in range(at_once)))


async def nothing_left(open_requests: Callable[[], int], within_s: float) -> None:
    """Returns when the engine has no request and the server's gauges say so, too."""

    def left() -> tuple[float, ...]:
        return open_requests(), _gauge("in_flight"), _gauge("queued")

    await until(lambda: not any(left()), within_s, lambda: f"(engine, in flight, queued) = {left()}")


async def until(condition: Callable[[], bool], within_s: float, otherwise: Callable[[], str]) -> None:
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < within_s, otherwise()
        await asyncio.sleep(0.01)


def _gauge(name: str) -> float:
    return REGISTRY.get_sample_value(f"foldback_requests_{name}") or 0.0


def long_answer() -> chat_pb2.CreateChatRequest:
    return asking(sampling=chat_pb2.Sampling(max_tokens=400), candidate_count=2)
