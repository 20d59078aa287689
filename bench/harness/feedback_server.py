"""`python -m harness.feedback_server echo|cut|logged|kept BROKER MODEL [FOLDER]`: a server that takes feedback.

`kept` is the whole server over an engine that answers at once, as `foldback up` runs it; `logged` the same as before
brokers that keep what they acknowledge. `cut` is `logged` with the log cut out: it says BROKER to each feedback and
sends nothing. `echo` is the least a grpc.aio server can do with the same messages. Prints its address.
"""

import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import grpc

import server.app
from feedback.event import Event
from feedback.eventlog import Durability, EventLog
from foldback.v1 import chat_pb2, chat_pb2_grpc, feedback_pb2, feedback_pb2_grpc
from harness.fake_engine import FakeEngine
from harness.processes import bench_settings
from server.app import running

UUID = "3a1f7c52-9d0e-4b5a-8c61-2f7e9d3b4a10"
TOKEN = "t" * 250
"""As long as a feedback token."""


class CutLog(EventLog):
    async def emit_all(self, events: Sequence[Event]) -> list[Durability | BaseException]:
        return [Durability.BROKER] * len(events)


class Echo(chat_pb2_grpc.ChatServiceServicer, feedback_pb2_grpc.FeedbackServiceServicer):
    """The calls that are measured; the others are UNIMPLEMENTED."""

    async def CreateChat(  # noqa: N802
        self, request: chat_pb2.CreateChatRequest, context: object
    ) -> chat_pb2.CreateChatResponse:
        return chat_pb2.CreateChatResponse(feedback_token=TOKEN)

    async def SubmitFeedback(  # noqa: N802
        self, request: feedback_pb2.SubmitFeedbackRequest, context: object
    ) -> feedback_pb2.SubmitFeedbackResponse:
        return feedback_pb2.SubmitFeedbackResponse(feedback_id=UUID, durability=feedback_pb2.DURABILITY_BROKER)

    async def BatchSubmitFeedback(  # noqa: N802
        self, request: feedback_pb2.BatchSubmitFeedbackRequest, context: object
    ) -> feedback_pb2.BatchSubmitFeedbackResponse:
        result = feedback_pb2.BatchSubmitFeedbackResponse.Result
        answers = [await self.SubmitFeedback(item, context) for item in request.requests]
        return feedback_pb2.BatchSubmitFeedbackResponse(results=[result(response=answer) for answer in answers])


async def echo() -> None:
    bare = grpc.aio.server()
    chat_pb2_grpc.add_ChatServiceServicer_to_server(Echo(), bare)  # type: ignore[abstract]
    feedback_pb2_grpc.add_FeedbackServiceServicer_to_server(Echo(), bare)  # type: ignore[abstract]
    port = bare.add_insecure_port("127.0.0.1:0")
    await bare.start()
    print(f"chat 127.0.0.1:{port}\nserving echo", flush=True)
    await bare.wait_for_termination()


async def serve(kind: str, broker: str, model: str, folder: Path) -> None:
    if kind == "cut":
        server.app.EventLog = CutLog  # type: ignore[attr-defined]
    settings = bench_settings(folder, model, broker)
    # No rater is told to slow down.
    changes = {"rater_per_minute": 0.0, "keep_until_read": "auto" if kind == "kept" else "never"}
    changed = settings.model_copy(update={"feedback": settings.feedback.model_copy(update=changes)})
    async with running(changed, FakeEngine()) as started:
        print(started.announce(), flush=True)
        await asyncio.Event().wait()


def main(kind: str, broker: str, model: str, folder: str = "") -> None:
    if kind == "echo":
        asyncio.run(echo())
        return
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(serve(kind, broker, model, Path(folder or scratch)))


if __name__ == "__main__":
    main(*sys.argv[1:])
