"""Connections that grow old, and connections that died without a word."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from foldback.v1 import chat_pb2, chat_pb2_grpc
from tests.server.conftest import asking, connect, server_settings
from tests.server.endless import TICKS, Endless
from tests.server.vanishing import PATIENCE_S, Relay, long_answer, nothing_left


@pytest.mark.slow
async def test_no_call_fails_when_a_connection_reaches_its_age(tmp_path: Path, tiny_model: Path, broker: str) -> None:
    """The stream that is open finishes on the old connection, and new calls move to a new one."""
    settings = server_settings(tmp_path, tiny_model, broker, max_connection_age_s=1)
    async with (
        connect(settings, Endless()) as client,
        Relay(client.server.chat_address) as relay,
        grpc.aio.insecure_channel(relay.address) as channel,
    ):
        chat = chat_pb2_grpc.ChatServiceStub(channel)

        async def stream() -> int:
            ticking = asking(sampling=chat_pb2.Sampling(max_tokens=TICKS))
            events = [event async for event in chat.StreamChat(chat_pb2.StreamChatRequest(chat=ticking))]
            assert events[-1].WhichOneof("event") == "finished"
            return events[-1].finished.usage.completion_tokens

        streaming = asyncio.create_task(stream())
        async with asyncio.timeout(3 * PATIENCE_S):
            while relay.connections < 4 or not streaming.done():
                assert (await chat.CreateChat(asking(sampling=chat_pb2.Sampling(max_tokens=1)))).candidates
        assert await streaming == TICKS


@pytest.mark.slow
async def test_a_client_behind_a_pulled_cable_gives_up_its_slot(tmp_path: Path, tiny_model: Path, broker: str) -> None:
    settings = server_settings(tmp_path, tiny_model, broker, keepalive_time_s=1, keepalive_timeout_s=1)
    async with (
        connect(settings, Endless()) as client,
        Relay(client.server.chat_address) as relay,
        grpc.aio.insecure_channel(relay.address) as channel,
    ):
        engine: Any = client.server.engine
        stream = chat_pb2_grpc.ChatServiceStub(channel).StreamChat(chat_pb2.StreamChatRequest(chat=long_answer()))
        await stream.read()
        await asyncio.sleep(4)
        assert engine.open, "a connection that answers pings stays, however long its stream says nothing"
        relay.freeze()
        await nothing_left(lambda: engine.open, PATIENCE_S)
        stream.cancel()
