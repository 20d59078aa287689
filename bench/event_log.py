"""What an accepted feedback costs: SubmitFeedback through gRPC to the brokers' acknowledgement, and into the store.

Beside it, in turns: a bare kafka-python producer (same options, as many events in flight, of the same size, with the
same headers, each acknowledged before the next takes its place), the same call with the producer cut out, and a bare
grpc.aio echo of the same messages: what one Python process can take at all. Then the joiner: events a second into the
preference store, and how long it takes to resume, and in how much memory, behind a longer history. Broker, server and
bench share one machine: rows say what processor time an event takes from the server, and what from the bench, which is
all clients at once (and, for `bare`, the producer). No two feedbacks of a batch are about the same answer.
"""

import argparse
import asyncio
import math
import time
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

import grpc
from harness.joining import measure_joining, measure_resuming, pair
from harness.processes import DEFAULT_MODEL, Process, process
from harness.report import Report, Row, arguments
from kafka import KafkaProducer

from feedback.embedded_broker import EmbeddedBroker
from feedback.event import envelope
from feedback.producer import producer_options
from feedback.submission import FEEDBACK_TYPE
from feedback.topics import FEEDBACK
from foldback.v1 import chat_pb2, chat_pb2_grpc, feedback_pb2, feedback_pb2_grpc
from settings.feedback import FeedbackSettings

IN_FLIGHT = (1, 32, 256)
IN_BATCHES = "3×100"
"""Three batches in flight: as many events as in the largest closed loop, and a few."""
BATCH = 100
"""The most that BatchSubmitFeedback takes."""
PACE = 500
"""Calls a second, whether or not earlier ones have been answered."""


Call = Callable[[int], Awaitable[float]]


def thumb(token: str, number: int) -> feedback_pb2.SubmitFeedbackRequest:
    feedback = feedback_pb2.Feedback(
        feedback_tokens=[token],
        rater_id=f"rater-{number % 1000}",
        source=feedback_pb2.FEEDBACK_SOURCE_END_USER,
        thumbs=feedback_pb2.THUMBS_UP,
    )
    return feedback_pb2.SubmitFeedbackRequest(request_id=str(uuid.uuid4()), feedback=feedback)


class Calls:
    """SubmitFeedback on one server."""

    def __init__(self, server: Process, channel: grpc.aio.Channel) -> None:
        self.server = server
        self._channel = channel
        self._stub = feedback_pb2_grpc.FeedbackServiceStub(channel)

    async def prepare(self) -> None:
        question = chat_pb2.Message(role=chat_pb2.ROLE_USER, content="Why is the sky blue?")
        request = chat_pb2.CreateChatRequest(
            messages=[question], sampling=chat_pb2.Sampling(max_tokens=4), training_consent=True
        )
        chat = chat_pb2_grpc.ChatServiceStub(self._channel)
        self._tokens = [(await chat.CreateChat(request)).feedback_token for _ in range(BATCH)]

    async def one(self, number: int) -> float:
        begun = time.perf_counter()
        await self._stub.SubmitFeedback(thumb(self._tokens[number % BATCH], number))
        return time.perf_counter() - begun

    async def many(self, number: int) -> float:
        """BatchSubmitFeedback, as full as may be."""
        items = [thumb(token, number * BATCH + item) for item, token in enumerate(self._tokens)]
        begun = time.perf_counter()
        answer = await self._stub.BatchSubmitFeedback(feedback_pb2.BatchSubmitFeedbackRequest(requests=items))
        seconds = time.perf_counter() - begun
        if failed := [each for each in answer.results if each.WhichOneof("outcome") != "response"]:
            raise RuntimeError(f"{len(failed)} of a batch refused: {failed[0]}")
        return seconds


class Bare:
    """kafka-python with our options (acks=all, idempotent), and nothing around it."""

    def __init__(self, producer: KafkaProducer, value: bytes) -> None:
        self._producer = producer
        self._value = value
        self._headers = list(envelope(event_id=str(uuid.uuid4()), type=FEEDBACK_TYPE, tenant="default"))

    async def one(self, number: int) -> float:
        loop, begun = asyncio.get_running_loop(), time.perf_counter()
        done: asyncio.Future[object] = loop.create_future()
        key = f"bare-{number % 1000}".encode()
        sent = self._producer.send(FEEDBACK, self._value, key=key, headers=self._headers)
        sent.add_callback(lambda found: loop.call_soon_threadsafe(done.set_result, found))
        sent.add_errback(lambda error: loop.call_soon_threadsafe(done.set_exception, error))
        await done
        return time.perf_counter() - begun


class Measured(NamedTuple):
    rate: float
    """Calls a second."""
    seconds: list[float]
    """Of each call."""
    bench_us: float
    """Processor time of this process, a call."""
    server_us: float
    """The same of the server; nan without one."""


async def closed_loop(call: Call, calls: int, in_flight: int, server: Process | None = None) -> Measured:
    """`in_flight` calls at a time."""
    left, seconds = iter(range(calls)), []

    async def work() -> None:
        for number in left:
            seconds.append(await call(number))  # noqa: PERF401 (each as it ends)

    bench_s, server_s, begun = time.process_time(), server.cpu_s() if server else math.nan, time.perf_counter()
    await asyncio.gather(*(work() for _ in range(in_flight)))
    return Measured(
        calls / (time.perf_counter() - begun),
        seconds,
        1e6 * (time.process_time() - bench_s) / calls,
        1e6 * ((server.cpu_s() if server else math.nan) - server_s) / calls,
    )


async def paced(contender: Calls, calls: int) -> list[float]:
    tasks, begun = [], time.perf_counter()
    for number in range(calls):
        await asyncio.sleep(max(0.0, begun + number / PACE - time.perf_counter()))
        tasks.append(asyncio.create_task(contender.one(number)))
    return list(await asyncio.gather(*tasks))


async def measure_calls(result: Report, broker: str, model: str, rounds: int, calls: int) -> None:
    settings = FeedbackSettings(bootstrap_servers=broker)
    async with AsyncExitStack() as stack:
        servers: dict[str, Calls] = {}
        for kind in ("logged", "cut", "echo"):
            server = await stack.enter_async_context(process("-m", "harness.feedback_server", kind, broker, model))
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(server.said["chat"]))
            servers[kind] = Calls(server, channel)
            await servers[kind].prepare()
        producer = KafkaProducer(**producer_options(settings))
        stack.callback(producer.close)
        bare = Bare(producer, pair(0)[1].value)
        single: dict[str, Call] = {"bare": bare.one, **{kind: each.one for kind, each in servers.items()}}
        for call in single.values():
            await closed_loop(call, 200, 32)
        found = Found()
        for _ in range(rounds):
            for in_flight in IN_FLIGHT:
                for kind, call in single.items():
                    count = calls // (8 if in_flight == 1 else 1)
                    server_of = servers[kind].server if kind in servers else None
                    found.add(kind, f"×{in_flight}", await closed_loop(call, count, in_flight, server_of), 1)
            for kind, each in servers.items():
                measured = await closed_loop(each.many, 2 * calls // BATCH, 3, each.server)
                found.add(kind, IN_BATCHES, measured, BATCH)
        steady = await paced(servers["logged"], PACE * (5 if rounds < 4 else 30))
    cuts = quantiles(steady, n=100)
    result.rows += found.rows()
    result.rows.append(
        {"what": "logged", "load": f"{PACE}/s", "events/s": PACE, "p50 ms": 1e3 * cuts[49], "p99 ms": 1e3 * cuts[98]}
    )
    for kind, load, base, bound in (
        ("logged", "×256", "bare", 0.6),
        ("logged", IN_BATCHES, "bare", 0.6),
        ("echo", "×256", "bare", 0.6),
        ("logged", "×256", "cut", 0.6),
        ("logged", "×256", "echo", 0.3),
    ):
        name = f"{kind} {load}: events/s, of {base} ×256"
        result.target(name, found.ratio((kind, load), (base, "×256")), at_least=bound)
    result.target(f"SubmitFeedback at {PACE}/s: p99 ms", 1e3 * cuts[98], at_most=50)


class Found:
    """Rates and waits by (what, load), over all rounds."""

    def __init__(self) -> None:
        self._rates: dict[tuple[str, str], list[float]] = defaultdict(list)
        self._times: dict[tuple[str, str], list[float]] = defaultdict(list)
        self._cpu: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)

    def add(self, what: str, load: str, measured: Measured, events_a_call: int) -> None:
        self._rates[what, load].append(measured.rate * events_a_call)
        self._times[what, load] += measured.seconds
        self._cpu[what, load].append((measured.server_us / events_a_call, measured.bench_us / events_a_call))

    def ratio(self, one: tuple[str, str], other: tuple[str, str]) -> float:
        """Median over the rounds: each is compared with its neighbour in time."""
        return median(a / b for a, b in zip(self._rates[one], self._rates[other], strict=True))

    def rows(self) -> list[Row]:
        rows: list[Row] = []
        for (what, load), rates in self._rates.items():
            cuts = quantiles(self._times[what, load], n=100)
            server_us, bench_us = (median(each) for each in zip(*self._cpu[what, load], strict=True))
            figures = {"events/s": median(rates), "p50 ms": 1e3 * cuts[49], "p99 ms": 1e3 * cuts[98]}
            if not math.isnan(server_us):
                figures["server µs"] = server_us
            rows.append({"what": what, "load": load} | figures | {"bench µs": bench_us})
        return rows


def plot(result: Report, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    for offset, kind in enumerate(("bare", "cut", "logged")):
        rows = [row for row in result.rows if row["what"] == kind and str(row["load"]).startswith("×")]
        axes.bar([i + 0.25 * offset for i in range(len(rows))], [row["events/s"] for row in rows], 0.25, label=kind)
    axes.set_xticks([i + 0.25 for i in range(len(IN_FLIGHT))], [f"×{count}" for count in IN_FLIGHT])
    axes.set_xlabel("in flight")
    axes.set_ylabel("events per second")
    axes.legend()
    figure.savefig(path, dpi=150, bbox_inches="tight")


def main() -> None:
    options: argparse.Namespace = arguments(__doc__).parse_args()
    result = Report("Feedback: from the call to the brokers, from the brokers to the store")
    rounds, calls, joined, known = (
        (3, 1500, 10_000, (10_000, 40_000)) if options.quick else (9, 8000, 100_000, (100_000, 1_000_000))
    )
    with EmbeddedBroker() as broker:
        asyncio.run(measure_calls(result, broker.bootstrap_servers, str(DEFAULT_MODEL), rounds, calls))
    measure_joining(result, joined)
    measure_resuming(result, known)
    result.finish(options)
    if options.plot:
        plot(result, options.plot)


if __name__ == "__main__":
    main()
