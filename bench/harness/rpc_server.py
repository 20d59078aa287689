"""`python -m harness.rpc_server echo|foldback`: one server process for bench/rpc.py; prints its address."""

import asyncio
import sys
import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path

import grpc

from feedback.embedded_broker import EmbeddedBroker
from foldback.v1 import chat_pb2, chat_pb2_grpc
from harness.fake_engine import WORDS, FakeEngine
from harness.processes import bench_settings
from server.app import running


class Echo(chat_pb2_grpc.ChatServiceServicer):
    """The least that a grpc.aio server can do and still answer the same calls with as many messages."""

    async def CreateChat(  # noqa: N802
        self, request: chat_pb2.CreateChatRequest, context: object
    ) -> chat_pb2.CreateChatResponse:
        return chat_pb2.CreateChatResponse(candidates=[chat_pb2.Candidate(text=request.messages[0].content)])

    async def StreamChat(  # noqa: N802
        self, request: chat_pb2.StreamChatRequest, context: object
    ) -> AsyncGenerator[chat_pb2.StreamChatResponse, None]:
        yield chat_pb2.StreamChatResponse(started=chat_pb2.ChatStarted())
        for position in range(request.chat.sampling.max_tokens):
            yield chat_pb2.StreamChatResponse(delta=chat_pb2.ChatDelta(text=WORDS[position % len(WORDS)]))
        yield chat_pb2.StreamChatResponse(candidate_finished=chat_pb2.CandidateFinished())
        yield chat_pb2.StreamChatResponse(finished=chat_pb2.ChatFinished())


async def echo() -> None:
    server = grpc.aio.server()
    chat_pb2_grpc.add_ChatServiceServicer_to_server(Echo(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"chat 127.0.0.1:{port}\nserving echo", flush=True)
    await server.wait_for_termination()


async def foldback(model: str) -> None:
    """Everything that `python -m server` does, the event log and a real broker included, but for the engine."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedBroker() as broker:
        settings = bench_settings(Path(folder), model, broker.bootstrap_servers, max_in_flight=1024)
        async with running(settings, FakeEngine()) as server:
            print(server.announce(), flush=True)
            await asyncio.Event().wait()


if __name__ == "__main__":
    kind, *model = sys.argv[1:]
    asyncio.run(echo() if kind == "echo" else foldback(*model))
