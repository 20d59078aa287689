"""`python -m harness.rpc_server echo|foldback`: one server process for bench/rpc.py; prints its address."""

import asyncio
import sys
import tempfile
from pathlib import Path

import grpc
from google.protobuf import duration_pb2

from feedback.embedded_broker import EmbeddedBroker
from foldback.v1 import chat_pb2, chat_pb2_grpc
from harness.fake_engine import WORDS, FakeEngine
from harness.processes import bench_settings
from server.__main__ import leave_alone_what_is_loaded
from server.app import running
from server.interceptor import Context

UUID = "3a1f7c52-9d0e-4b5a-8c61-2f7e9d3b4a10"
VERSION = "p000000-3fa9c1d2"
TOKEN = "t" * 250
"""As long as a feedback token."""


class Echo(chat_pb2_grpc.ChatServiceServicer):
    """The least that a grpc.aio server can do and still put on the wire what Foldback does: the same messages with
    the same fields, as many and as long, each built for its call and written by itself."""

    async def CreateChat(  # noqa: N802
        self, request: chat_pb2.CreateChatRequest, context: object
    ) -> chat_pb2.CreateChatResponse:
        return chat_pb2.CreateChatResponse(
            response_id=UUID,
            conversation_id=UUID,
            policy_version=VERSION,
            feedback_token=TOKEN,
            candidates=[
                chat_pb2.Candidate(
                    candidate_id=UUID,
                    text=WORDS[0],
                    finish_reason=chat_pb2.FINISH_REASON_LENGTH,
                    usage=_usage(1),
                    policy_spans=_spans(1),
                )
            ],
            display_order=[0],
            usage=_usage(1),
            timing=_timing(),
        )

    async def StreamChat(  # type: ignore[override]  # noqa: N802
        self, request: chat_pb2.StreamChatRequest, context: Context
    ) -> None:
        tokens = request.chat.sampling.max_tokens
        started = chat_pb2.ChatStarted(
            response_id=UUID,
            conversation_id=UUID,
            policy_version=VERSION,
            feedback_token=TOKEN,
            candidate_ids=[UUID],
            display_order=[0],
        )
        await context.write(chat_pb2.StreamChatResponse(started=started))
        for position in range(tokens):
            delta = chat_pb2.ChatDelta(candidate_index=0, text=WORDS[position % len(WORDS)])
            await context.write(chat_pb2.StreamChatResponse(delta=delta))
        finished = chat_pb2.CandidateFinished(
            candidate_index=0,
            finish_reason=chat_pb2.FINISH_REASON_LENGTH,
            usage=_usage(tokens),
            policy_spans=_spans(tokens),
        )
        await context.write(chat_pb2.StreamChatResponse(candidate_finished=finished))
        end = chat_pb2.ChatFinished(usage=_usage(tokens), timing=_timing())
        await context.write(chat_pb2.StreamChatResponse(finished=end))


def _usage(tokens: int) -> chat_pb2.Usage:
    return chat_pb2.Usage(prompt_tokens=41, completion_tokens=tokens)


def _spans(tokens: int) -> list[chat_pb2.PolicySpan]:
    return [chat_pb2.PolicySpan(policy_version=VERSION, start=0, end=tokens)]


def _timing() -> chat_pb2.Timing:
    moment = duration_pb2.Duration(nanos=123_456)
    return chat_pb2.Timing(time_to_first_token=moment, total=moment)


async def echo() -> None:
    server = grpc.aio.server()
    chat_pb2_grpc.add_ChatServiceServicer_to_server(Echo(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"chat 127.0.0.1:{port}\nserving echo", flush=True)
    await server.wait_for_termination()


async def foldback(model: str) -> None:
    """Everything that `python -m server` does, the event log and a real broker included, but for the engine.

    As with a broker that keeps what it takes: events are not written to the spool as well until the trainer reads them.
    """
    with tempfile.TemporaryDirectory() as folder, EmbeddedBroker() as broker:
        settings = bench_settings(Path(folder), model, broker.bootstrap_servers, max_in_flight=1024)
        kept = settings.feedback.model_copy(update={"keep_until_read": "never"})
        settings = settings.model_copy(update={"feedback": kept})
        async with running(settings, FakeEngine()) as server:
            leave_alone_what_is_loaded()
            print(server.announce(), flush=True)
            await asyncio.Event().wait()


if __name__ == "__main__":
    kind, *model = sys.argv[1:]
    asyncio.run(echo() if kind == "echo" else foldback(*model))
