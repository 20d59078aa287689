"""What a call serves, as it grows, in the order in which it is to be shown."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from console.client import Client
from console.terminal import EMPTY_ANSWER
from foldback.v1 import chat_pb2


@dataclass(slots=True)
class Answer:
    candidate_id: str
    text: str = ""
    finished: bool = False
    cut: bool = False
    """It ended at the length limit."""

    def shown(self, ended: bool) -> str:
        """Its text for people, who see whether more will come and whether there was anything at all."""
        if not ended:
            return f"{self.text} ▍"
        return self.text or EMPTY_ANSWER


@dataclass(slots=True)
class Response:
    response_id: str
    conversation_id: str
    version: str
    token: str
    answers: list[Answer] = field(default_factory=list)
    """In display order, so that nobody sees which candidate is which."""


async def grow(client: Client, request: chat_pb2.CreateChatRequest) -> AsyncIterator[Response]:
    """The same response again and again, a little longer each time.

    Raises:
        grpc.aio.AioRpcError: the call failed; what was yielded before stays as it was.
    """
    response: Response | None = None
    by_index: dict[int, Answer] = {}
    events = client.stream_chat(request)
    try:
        async for event in events:
            if event.HasField("started"):
                started = event.started
                response = Response(
                    started.response_id, started.conversation_id, started.policy_version, started.feedback_token
                )
                for index in started.display_order:
                    by_index[index] = Answer(started.candidate_ids[index])
                    response.answers.append(by_index[index])
            elif event.HasField("delta"):
                by_index[event.delta.candidate_index].text += event.delta.text
            elif event.HasField("candidate_finished"):
                ended = event.candidate_finished
                answer = by_index[ended.candidate_index]
                answer.finished, answer.cut = True, ended.finish_reason == chat_pb2.FINISH_REASON_LENGTH
            if response is not None:
                yield response
    finally:
        await events.aclose()
