"""Streaming clients around hot swaps: what they wait between two pieces of text, and whether anything breaks."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

import grpc

from foldback.v1 import chat_pb2, chat_pb2_grpc

QUESTIONS = (
    "Tell me a long story about a lighthouse keeper.",
    "Explain how bread is made, step by step.",
    "Describe a walk through a forest in autumn, in detail.",
    "Write down everything that you know about the moon.",
)


@dataclass
class Gap:
    ended: float
    """time.perf_counter()"""
    seconds: float


@dataclass
class Crowd:
    """Clients that ask one question after another, each in a stream of its own."""

    stub: "chat_pb2_grpc.ChatServiceAsyncStub"
    tokens: int
    """Of an answer, on average: half of it at least, and up to half as much again."""
    gaps: list[Gap] = field(default_factory=list)
    finished: int = 0
    wrong: list[str] = field(default_factory=list)
    """Requests that failed or were cut short."""
    first_text: dict[str, float] = field(default_factory=dict)
    """When each version's first text came, since it was last forgotten here."""
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def asking(self, clients: int) -> AsyncIterator[None]:
        """`clients` ask inside; leaving lets them finish."""
        self._stop = False
        tasks = [asyncio.create_task(self._client(number)) for number in range(clients)]
        try:
            yield
        finally:
            self._stop = True
            await asyncio.gather(*tasks)

    async def text_from(self, version: str) -> float:
        """When the first text of a request that began under `version` came."""
        while version not in self.first_text:
            self._arrived.clear()
            await self._arrived.wait()
        return self.first_text[version]

    def between(self, begun: float, ended: float) -> list[float]:
        return [gap.seconds for gap in self.gaps if begun <= gap.ended <= ended]

    async def _client(self, number: int) -> None:
        lengths = random.Random(number)
        for asked in count(number):
            if self._stop:
                return
            try:
                tokens = lengths.randint(self.tokens // 2, 3 * self.tokens // 2)
                await self._ask(QUESTIONS[asked % len(QUESTIONS)], tokens)
                self.finished += 1
            except (grpc.aio.AioRpcError, ValueError) as error:
                self.wrong.append(str(error))

    async def _ask(self, question: str, max_tokens: int) -> None:
        request = chat_pb2.CreateChatRequest(
            messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, content=question)],
            sampling=chat_pb2.Sampling(temperature=1, max_tokens=max_tokens),
        )
        last, version, finished = 0.0, "", None
        async for event in self.stub.StreamChat(chat_pb2.StreamChatRequest(chat=request), timeout=600):
            match event.WhichOneof("event"):
                case "started":
                    version = event.started.policy_version
                case "delta":
                    now = time.perf_counter()
                    if last:
                        self.gaps.append(Gap(now, now - last))
                    elif version not in self.first_text:
                        self.first_text[version] = now
                        self._arrived.set()
                    last = now
                case "candidate_finished":
                    finished = event.candidate_finished
        if finished is None:
            raise ValueError("a stream ended without its last message")
        tokens = finished.usage.completion_tokens
        covered = [i for span in finished.policy_spans for i in range(span.start, span.end)]
        if covered != list(range(tokens)):
            raise ValueError(f"spans {finished.policy_spans} do not cover {tokens} tokens")
        if finished.finish_reason == chat_pb2.FINISH_REASON_LENGTH and tokens != max_tokens:
            raise ValueError(f"cut short at {tokens} of {max_tokens} tokens")
