"""The brokers go away under load: what users notice, what is refused, whether it all arrives, in order.

Users chat and rate without pause while the broker is stopped, stays away, and comes back. Chat's waits before, during
and after; feedback refused; then, once the spool has drained, the feedback topic is held against what was accepted:
every one there, each conversation's in the order of the answers. The server is the whole one over an engine that
answers at once, so that what the log costs is not lost in the noise of a model. All of it shares one machine.
"""

import argparse
import asyncio
import sqlite3
import tempfile
import time
import uuid
from collections import Counter, defaultdict
from contextlib import closing
from pathlib import Path
from statistics import quantiles

import grpc
from harness.processes import DEFAULT_MODEL, Process, process
from harness.report import Report, Row, arguments

from feedback.consumer import open_consumer
from feedback.embedded_broker import EmbeddedBroker
from feedback.topics import FEEDBACK
from foldback.v1 import chat_pb2, chat_pb2_grpc, events_pb2, feedback_pb2, feedback_pb2_grpc
from settings.feedback import FeedbackSettings

USERS = 8
PAUSE_S = 0.05
"""Between one user's turns: a steady load, well below what the server can do."""
PHASES = ("before", "during", "after")


class Users:
    """They ask and rate; what happened, by phase."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._chat = chat_pb2_grpc.ChatServiceStub(channel)
        self._feedback = feedback_pb2_grpc.FeedbackServiceStub(channel)
        self.phase = PHASES[0]
        self.chat_s: dict[str, list[float]] = defaultdict(list)
        self.feedback_s: dict[str, list[float]] = defaultdict(list)
        self.refused: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.accepted: dict[str, list[str]] = defaultdict(list)
        """Feedback ids by conversation, in the order of the answers."""
        self.spooled = 0
        self._stopping = False

    def stop(self) -> None:
        self._stopping = True

    async def use(self, number: int) -> None:
        """One user, one conversation."""
        conversation, phase = f"outage-{number}", self.phase
        request = chat_pb2.CreateChatRequest(
            messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, content="Why is the sky blue?")],
            conversation_id=conversation,
            sampling=chat_pb2.Sampling(max_tokens=16),
            training_consent=True,
        )
        while not self._stopping:
            phase, begun = self.phase, time.perf_counter()
            try:
                answer = await self._chat.CreateChat(request, timeout=30)
            except grpc.aio.AioRpcError as error:
                self.failed[error.code().name] += 1
                continue
            self.chat_s[phase].append(time.perf_counter() - begun)
            await self._rate(conversation, answer.feedback_token, phase)
            await asyncio.sleep(PAUSE_S)

    async def _rate(self, conversation: str, token: str, phase: str) -> None:
        thumb = feedback_pb2.Feedback(
            feedback_tokens=[token],
            rater_id=conversation,
            source=feedback_pb2.FEEDBACK_SOURCE_END_USER,
            thumbs=feedback_pb2.THUMBS_UP,
        )
        begun = time.perf_counter()
        try:
            answer = await self._feedback.SubmitFeedback(
                feedback_pb2.SubmitFeedbackRequest(request_id=str(uuid.uuid4()), feedback=thumb), timeout=30
            )
        except grpc.aio.AioRpcError as error:
            self.refused[error.code().name] += 1
            return
        self.feedback_s[phase].append(time.perf_counter() - begun)
        self.accepted[conversation].append(answer.feedback_id)
        self.spooled += answer.durability == feedback_pb2.DURABILITY_SPOOL


def arrived(broker: str, wanted: int, within_s: float) -> dict[str, list[str]]:
    """Feedback ids on the topic by conversation, each at its first copy, once there are `wanted` or time is up."""
    consumer = open_consumer(FeedbackSettings(bootstrap_servers=broker), [FEEDBACK], {})
    found: dict[str, dict[str, None]] = defaultdict(dict)
    deadline = time.monotonic() + within_s
    while sum(map(len, found.values())) < wanted and time.monotonic() < deadline:
        for batch in consumer.poll(timeout_ms=100).values():
            for record in batch:
                event = events_pb2.FeedbackRecorded.FromString(record.value)
                found[event.claims[0].conversation_id].setdefault(event.feedback_id)
    consumer.close()
    return {conversation: list(ids) for conversation, ids in found.items()}


async def drained(spool: Path, within_s: float) -> float:
    """Seconds until nothing in the spool waits for the brokers; infinite if some does."""
    begun = time.monotonic()
    while time.monotonic() - begun < within_s:
        with closing(sqlite3.connect(spool, timeout=10)) as db:
            [waiting] = db.execute("SELECT count(*) FROM events WHERE cluster IS NULL AND refused IS NULL").fetchone()
        if not waiting:
            return time.monotonic() - begun
        await asyncio.sleep(0.1)
    return float("inf")


async def run(options: argparse.Namespace, broker: EmbeddedBroker, folder: Path) -> Report:
    calm_s, away_s = (8.0, 20.0) if options.quick else (60.0, 120.0)
    command = ("-m", "harness.feedback_server", "kept", broker.bootstrap_servers, str(DEFAULT_MODEL), str(folder))
    async with (
        process(*command) as server,
        grpc.aio.insecure_channel(server.said["chat"]) as channel,
    ):
        users = Users(channel)
        crowd = [asyncio.create_task(users.use(number)) for number in range(USERS)]
        await asyncio.sleep(calm_s)
        await asyncio.to_thread(broker.stop)
        users.phase = "during"
        await asyncio.sleep(away_s)
        deepest_mb = (folder / "spool.sqlite").stat().st_size / 2**20
        await asyncio.to_thread(broker.start)
        drain_s = await drained(folder / "spool.sqlite", 120)
        users.phase = "after"
        await asyncio.sleep(calm_s)
        users.stop()
        await asyncio.gather(*crowd)
        await drained(folder / "spool.sqlite", 60)
        total = sum(map(len, users.accepted.values()))
        topic = await asyncio.to_thread(arrived, broker.bootstrap_servers, total, 60)
        return report(users, topic, drain_s, deepest_mb, server)


def report(users: Users, topic: dict[str, list[str]], drain_s: float, deepest_mb: float, server: Process) -> Report:
    result = Report("The brokers away under load")
    for phase in PHASES:
        chat, rated = (quantiles(seconds[phase], n=100) for seconds in (users.chat_s, users.feedback_s))
        row: Row = {"phase": phase, "chats": len(users.chat_s[phase]), "chat p50 ms": 1e3 * chat[49]}
        row |= {"chat p99 ms": 1e3 * chat[98], "feedback p50 ms": 1e3 * rated[49], "feedback p99 ms": 1e3 * rated[98]}
        result.rows.append(row)
    sent = {name for ids in users.accepted.values() for name in ids}
    there = {name for ids in topic.values() for name in ids}
    moved = sum(ids != [n for n in topic.get(c, []) if n in sent] for c, ids in users.accepted.items())
    before, during = (quantiles(users.chat_s[phase], n=100)[98] for phase in ("before", "during"))
    result.target("chat p99 while away, of before", during / before, at_most=1.5)
    result.target("chats that failed", users.failed.total(), at_most=0)
    result.target("feedback refused", users.refused.total(), at_most=0)
    result.target("accepted and not on the topic after", len(sent - there), at_most=0)
    result.target("conversations out of order after", moved, at_most=0)
    result.target("seconds to drain", drain_s, at_most=60)
    result.target("server's memory after, MiB", server.rss_mb(), at_most=1024)
    print(f"accepted {len(sent)}, of them by the spool {users.spooled}; spool file {deepest_mb:.1f} MiB")
    return result


def plot(result: Report, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.5))
    for offset, name in enumerate(("chat p50 ms", "chat p99 ms", "feedback p99 ms")):
        axes.bar([i + 0.25 * offset for i in range(3)], [row[name] for row in result.rows], 0.25, label=name)
    axes.set_xticks([i + 0.25 for i in range(3)], PHASES)
    axes.set_ylabel("milliseconds")
    axes.legend()
    figure.savefig(path, dpi=150, bbox_inches="tight")


def main() -> None:
    options = arguments(__doc__).parse_args()
    with EmbeddedBroker() as broker, tempfile.TemporaryDirectory() as folder:
        result = asyncio.run(run(options, broker, Path(folder)))
    result.finish(options)
    if options.plot:
        plot(result, options.plot)


if __name__ == "__main__":
    main()
