"""What the server costs beside a bare grpc.aio echo server, with an engine that answers at once.

Both answer the same calls from the same client in turns. Foldback checks, templates and tokenizes the prompt, signs a
token, admits, counts, and logs the whole response to a real broker; the echo server does nothing at all. Rates are
calls per second of the server process's own CPU time, so that neither client nor neighbours count. No question is asked
twice.
"""

import argparse
import asyncio
import time
from collections import defaultdict
from contextlib import AsyncExitStack
from itertools import count
from statistics import median, quantiles

import grpc
from harness.processes import DEFAULT_MODEL, Process, process
from harness.report import Report, arguments

from foldback.v1 import chat_pb2, chat_pb2_grpc

CONCURRENCY = 32
STREAM_TOKENS = 64
KINDS = ("echo", "foldback")
_asked = count(1000)


def request(tokens: int) -> chat_pb2.CreateChatRequest:
    return chat_pb2.CreateChatRequest(
        messages=[
            chat_pb2.Message(role=chat_pb2.ROLE_USER, content=f"Why is the sky blue, and sunset {next(_asked)} red?")
        ],
        sampling=chat_pb2.Sampling(max_tokens=tokens),
        training_consent=True,
    )


class Contender:
    def __init__(self, server: Process, channel: grpc.aio.Channel) -> None:
        self.server = server
        self._stub = chat_pb2_grpc.ChatServiceStub(channel)
        self.rates: dict[str, list[float]] = defaultdict(list)
        """Calls (unary) or messages (stream) per CPU second of the server, a round each."""
        self.seconds: dict[str, list[float]] = defaultdict(list)
        """Of each call; per message where it streams."""

    async def unary(self) -> int:
        await self._stub.CreateChat(request(1))
        return 1

    async def stream(self) -> int:
        call = self._stub.StreamChat(chat_pb2.StreamChatRequest(chat=request(STREAM_TOKENS)))
        return len([event async for event in call])

    async def round(self, shape: str, calls: int, concurrency: int) -> None:
        """`calls` of one shape, `concurrency` at a time."""
        name, one = f"{shape} ×{concurrency}", self.unary if shape == "unary" else self.stream
        left = iter(range(calls))
        counted = 0

        async def work() -> None:
            nonlocal counted
            for _ in left:
                begun = time.perf_counter()
                messages = await one()
                counted += messages
                self.seconds[name].append((time.perf_counter() - begun) / messages)

        before = self.server.cpu_s()
        await asyncio.gather(*(work() for _ in range(concurrency)))
        self.rates[name].append(counted / (self.server.cpu_s() - before))


async def measure(options: argparse.Namespace) -> dict[str, Contender]:
    async with AsyncExitStack() as stack:
        contenders: dict[str, Contender] = {}
        for kind in KINDS:
            server = await stack.enter_async_context(process("-m", "harness.rpc_server", kind, str(DEFAULT_MODEL)))
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(server.said["chat"]))
            contenders[kind] = Contender(server, channel)
        plan = [("unary", 50, 1), ("unary", 600, CONCURRENCY), ("stream", 12, 1), ("stream", 64, CONCURRENCY)]
        for contender in contenders.values():  # connections, caches, lazily imported code
            await contender.round("unary", 100, 8)
            await contender.round("stream", 16, 8)
            contender.rates.clear()
            contender.seconds.clear()
        for _ in range(3 if options.quick else 12):
            for shape, calls, concurrency in plan:
                for contender in contenders.values():
                    await contender.round(shape, calls if options.quick else 3 * calls, concurrency)
        return contenders


def report(contenders: dict[str, Contender]) -> Report:
    result = Report("Calls (unary) and messages (stream) a second of server CPU; milliseconds a call or message")
    for name in contenders["echo"].rates:
        for kind, contender in contenders.items():
            cuts = quantiles(contender.seconds[name], n=100)
            result.rows.append(
                {
                    "load": name,
                    "server": kind,
                    "per core": median(contender.rates[name]),
                    "p50 ms": 1e3 * cuts[49],
                    "p99 ms": 1e3 * cuts[98],
                }
            )
    echo, ours = contenders["echo"], contenders["foldback"]
    for name in (f"unary ×{CONCURRENCY}", f"stream ×{CONCURRENCY}"):
        ratios = [a / b for a, b in zip(ours.rates[name], echo.rates[name], strict=True)]
        result.target(f"{name}: rate per core, of echo's", median(ratios), at_least=0.6)
    overhead = median(ours.seconds["stream ×1"]) - median(echo.seconds["stream ×1"])
    result.target("stream: milliseconds a message more than echo, p50", 1e3 * overhead, at_most=0.3)
    return result


def plot(result: Report, path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    for offset, kind in enumerate(KINDS):
        rows = [row for row in result.rows if row["server"] == kind]
        axes.bar([i + 0.4 * offset for i in range(len(rows))], [row["per core"] for row in rows], 0.4, label=kind)
    axes.set_xticks([i + 0.2 for i in range(len(rows))], [str(row["load"]) for row in rows])
    axes.set_ylabel("calls or messages per second of CPU")
    axes.legend()
    figure.savefig(path, dpi=150, bbox_inches="tight")


def main() -> None:
    options = arguments(__doc__).parse_args()
    result = report(asyncio.run(measure(options)))
    result.finish(options)
    if options.plot:
        plot(result, options.plot)


if __name__ == "__main__":
    main()
