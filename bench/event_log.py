"""What an accepted feedback costs: SubmitFeedback through gRPC to the brokers' acknowledgement, and into the store.

Beside it, in turns: a bare kafka-python producer with the same acknowledgements, and the same call with the producer
cut out. Then the joiner: events a second into the preference store, and how long it takes to resume, and in how much
memory, behind logs of different length. Broker, server, clients and bench share one machine.
"""

import argparse
import asyncio
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import defaultdict
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median, quantiles

import grpc
from harness.processes import BENCH, DEFAULT_MODEL, ROOT, Process, process
from harness.report import Report, arguments

from feedback.connection import admin_client, read_cluster_id
from feedback.embedded_broker import EmbeddedBroker
from feedback.event import Event, Position, envelope
from feedback.join import RESPONSE_TYPE
from feedback.joiner import Joiner
from feedback.producer import Producer
from feedback.store import PreferenceStore
from feedback.submission import FEEDBACK_TYPE, build_record
from feedback.topics import FEEDBACK, RESPONSES, ensure_topics
from foldback.v1 import chat_pb2, chat_pb2_grpc, events_pb2, feedback_pb2, feedback_pb2_grpc
from settings.feedback import FeedbackSettings

IN_FLIGHT = (1, 32, 256)
PACE = 500
"""Calls a second, whether or not earlier ones have been answered."""


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
        self._token = (await chat_pb2_grpc.ChatServiceStub(self._channel).CreateChat(request)).feedback_token

    async def one(self, number: int) -> float:
        begun = time.perf_counter()
        await self._stub.SubmitFeedback(thumb(self._token, number))
        return time.perf_counter() - begun


class Bare:
    """kafka-python with our options (acks=all, idempotent), and nothing around it."""

    def __init__(self, producer: Producer, value: bytes) -> None:
        self._producer = producer
        headers = envelope(event_id=str(uuid.uuid4()), type=FEEDBACK_TYPE, tenant="default")
        self._event = Event(FEEDBACK, b"bare", value, headers)

    async def one(self, number: int) -> float:
        loop, begun = asyncio.get_running_loop(), time.perf_counter()
        done: asyncio.Future[Position | BaseException] = loop.create_future()
        event = Event(FEEDBACK, f"bare-{number % 1000}".encode(), self._event.value, self._event.headers)
        self._producer.send([event], lambda outcomes: loop.call_soon_threadsafe(done.set_result, outcomes[0]))
        if isinstance(outcome := await done, BaseException):
            raise outcome
        return time.perf_counter() - begun


async def closed_loop(contender: "Calls | Bare", calls: int, in_flight: int) -> tuple[float, list[float]]:
    """(events a second, seconds of each), `in_flight` at a time."""
    left, seconds = iter(range(calls)), []

    async def work() -> None:
        for number in left:
            seconds.append(await contender.one(number))  # noqa: PERF401 (each as it ends)

    begun = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(in_flight)))
    return calls / (time.perf_counter() - begun), seconds


async def paced(contender: Calls, calls: int) -> list[float]:
    tasks, begun = [], time.perf_counter()
    for number in range(calls):
        await asyncio.sleep(max(0.0, begun + number / PACE - time.perf_counter()))
        tasks.append(asyncio.create_task(contender.one(number)))
    return list(await asyncio.gather(*tasks))


async def measure_calls(result: Report, broker: str, model: str, rounds: int, calls: int) -> None:
    settings = FeedbackSettings(bootstrap_servers=broker)
    async with AsyncExitStack() as stack:
        contenders: dict[str, Calls | Bare] = {}
        for kind in ("logged", "cut"):
            server = await stack.enter_async_context(process("-m", "harness.feedback_server", kind, broker, model))
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(server.said["chat"]))
            contenders[kind] = calling = Calls(server, channel)
            await calling.prepare()
        producer = producer_of(settings)
        stack.callback(producer.close)
        contenders["bare"] = Bare(producer, pair(0)[1].value)
        rates: dict[tuple[int, str], list[float]] = defaultdict(list)
        times: dict[tuple[int, str], list[float]] = defaultdict(list)
        for each in contenders.values():
            await closed_loop(each, 200, 32)
        for _ in range(rounds):
            for in_flight in IN_FLIGHT:
                for kind, contender in contenders.items():
                    rate, seconds = await closed_loop(contender, calls // (8 if in_flight == 1 else 1), in_flight)
                    rates[in_flight, kind].append(rate)
                    times[in_flight, kind] += seconds
        logged = contenders["logged"]
        assert isinstance(logged, Calls)
        steady = await paced(logged, PACE * (5 if rounds < 4 else 30))
    for (in_flight, kind), values in rates.items():
        cuts = quantiles(times[in_flight, kind], n=100)
        row = {"what": kind, "load": f"×{in_flight}", "events/s": median(values)}
        result.rows.append(row | {"p50 ms": 1e3 * cuts[49], "p99 ms": 1e3 * cuts[98]})
    cuts = quantiles(steady, n=100)
    result.rows.append(
        {"what": "logged", "load": f"{PACE}/s", "events/s": PACE, "p50 ms": 1e3 * cuts[49], "p99 ms": 1e3 * cuts[98]}
    )
    for base, bound in (("bare", 0.6), ("cut", 0.6)):
        ratios = [a / b for a, b in zip(rates[256, "logged"], rates[256, base], strict=True)]
        result.target(f"SubmitFeedback ×256: events/s, of {base}", median(ratios), at_least=bound)
    result.target(f"SubmitFeedback at {PACE}/s: p99 ms", 1e3 * cuts[98], at_most=50)


def producer_of(settings: FeedbackSettings) -> Producer:
    ensure_topics(settings)
    admin = admin_client(settings)
    cluster_id = read_cluster_id(admin)
    admin.close()
    return Producer(settings, cluster_id)


def pair(number: int) -> tuple[Event, Event]:
    """An answer and a thumb on it."""
    name, conversation = str(uuid.uuid4()), f"conversation-{number}"
    response = events_pb2.ResponseRecorded(
        tenant="default",
        response_id=name,
        conversation_id=conversation,
        policy_version="p000001-0",
        messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, content=f"Why is the sky blue? ({number})")],
        prompt_token_ids=range(30),
        candidates=[events_pb2.CandidateRecord(candidate_id=f"{name}-0", text="Light scatters.", token_ids=range(60))],
        training_consent=True,
    )
    claims = events_pb2.TokenClaims(
        tenant="default",
        conversation_id=conversation,
        response_id=name,
        candidate_ids=[f"{name}-0"],
        policy_version="p000001-0",
    )
    feedback = feedback_pb2.Feedback(
        rater_id=f"rater-{number % 1000}",
        source=feedback_pb2.FEEDBACK_SOURCE_END_USER,
        thumbs=feedback_pb2.THUMBS_UP,
    )
    record = build_record(str(uuid.uuid4()), "default", feedback, [claims])
    key = conversation.encode()
    return (
        Event(RESPONSES, key, response.SerializeToString(), envelope(event_id=name, type=RESPONSE_TYPE, tenant="d")),
        Event(FEEDBACK, key, record.SerializeToString(), envelope(event_id=name, type=FEEDBACK_TYPE, tenant="d")),
    )


def produce(producer: Producer, events: int) -> None:
    for start in range(0, events, 2000):
        batch = [event for number in range(start // 2, min(start + 2000, events) // 2) for event in pair(number)]
        producer.send_all(batch, 60)


def measure_joining(result: Report, lengths: tuple[int, ...]) -> None:
    resumed: list[tuple[float, float]] = []
    for length in lengths:
        with EmbeddedBroker() as broker, tempfile.TemporaryDirectory() as folder:
            settings = FeedbackSettings(bootstrap_servers=broker.bootstrap_servers)
            producer = producer_of(settings)
            produce(producer, length)
            path = Path(folder) / "store"
            rate = join(settings, path, length)
            result.rows.append({"what": "joiner", "load": f"{length} events", "events/s": rate})
            produce(producer, 2)
            producer.close()
            command = [sys.executable, "-m", "harness.resume", str(path), broker.bootstrap_servers]
            said = subprocess.run(
                command, env={"PYTHONPATH": f"{BENCH}:{ROOT}"}, capture_output=True, check=True
            ).stdout
            seconds, memory_mb = map(float, said.split()[1:])
            resumed.append((seconds, memory_mb))
            result.rows.append(
                {"what": "resume", "load": f"{length} events", "seconds": seconds, "memory MiB": memory_mb}
            )
    result.target(
        "joiner: events/s into the store",
        min(r["events/s"] for r in result.rows if r["what"] == "joiner"),
        at_least=5000,
    )  # type: ignore[type-var, arg-type]
    (short_s, short_mb), (long_s, long_mb) = resumed[0], resumed[-1]
    grown = f"{lengths[-1] // lengths[0]} times the log"
    result.target(f"resume: seconds behind {grown}, of the shorter", long_s / short_s, at_most=1.5)
    result.target(f"resume: memory behind {grown}, of the shorter", long_mb / short_mb, at_most=1.2)


def join(settings: FeedbackSettings, path: Path, events: int) -> float:
    """Events a second, outcomes emitted."""
    store, stop = PreferenceStore(path), threading.Event()
    joiner = Joiner(settings, store)
    thread = threading.Thread(target=joiner.run, args=(stop,))
    begun = time.perf_counter()
    thread.start()
    while joiner.state.consumed.total() < events or store.outbox(1):
        time.sleep(0.01)
    rate = events / (time.perf_counter() - begun)
    stop.set()
    thread.join()
    store.close()
    return rate


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
    rounds, calls, lengths = (3, 1500, (10_000, 40_000)) if options.quick else (9, 8000, (100_000, 1_000_000))
    with EmbeddedBroker() as broker:
        asyncio.run(measure_calls(result, broker.bootstrap_servers, str(DEFAULT_MODEL), rounds, calls))
    measure_joining(result, lengths)
    result.finish(options)
    if options.plot:
        plot(result, options.plot)


if __name__ == "__main__":
    main()
