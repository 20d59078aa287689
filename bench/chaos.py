"""Kills server, trainer and broker at random, under load, and then asks whether it adds up.

Users chat and rate all the while, half of them while the answer still streams, and note every feedback they were told
is safe. After each kill `foldback audit` has to add up, under the same load. In the end everything is started once
more, and the users' own list is held against what the preference store knows. The broker is the embedded one, which
forgets everything when it dies: the hardest case.
"""

import argparse
import asyncio
import json
import os
import random
import sqlite3
import sys
import tempfile
import time
import uuid
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import grpc
from harness.processes import ROOT, Leash
from harness.report import Report, arguments

from foldback.v1 import chat_pb2, chat_pb2_grpc, feedback_pb2, feedback_pb2_grpc
from settings.ports import PortPicker
from tests.tiny_model import make_tiny_model

SERVICES = {
    "broker": ("-m", "feedback", "broker"),
    "server": ("-m", "server"),
    "trainer": ("-m", "trainer"),
}
SETTLE_S = 120.0
READING: set[asyncio.Task[None]] = set()
"""Answers that are read to their end; tasks that nobody holds may vanish."""
AUDIT_S = 60.0
"""Longest wait for a broker that can be asked."""


class Stack:
    """The three processes, each started again after it was killed."""

    def __init__(self, folder: Path, model: Path) -> None:
        with PortPicker() as picker:
            self.chat, self.broker, *ports = (picker.pick() for _ in range(5))
        self._folder = folder
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("FOLDBACK_")},
            "PYTHONPATH": str(ROOT),
            "OMP_WAIT_POLICY": "PASSIVE",
            "FOLDBACK_DATA_DIR": str(folder),
            "FOLDBACK_MODEL__NAME": str(model),
            "FOLDBACK_SERVER__ENGINE": "transformers",
            "FOLDBACK_SERVER__MAX_MODEL_LEN": "512",
            "FOLDBACK_SERVER__PORT": str(self.chat),
            "FOLDBACK_SERVER__ADMIN_PORT": str(ports[0]),
            "FOLDBACK_SERVER__METRICS_PORT": str(ports[1]),
            "FOLDBACK_TRAINER__METRICS_PORT": str(ports[2]),
            "FOLDBACK_TRAINER__JUDGEMENTS_TO_START": "1000000",  # the accounts are under test, not the learning
            "FOLDBACK_FEEDBACK__BOOTSTRAP_SERVERS": f"127.0.0.1:{self.broker}",
        }
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._leashes: dict[str, Leash] = {}
        self.kills: Counter[str] = Counter()

    async def start(self, name: str) -> None:
        command = [*SERVICES[name], *(["--port", str(self.broker)] if name == "broker" else [])]
        leash = self._leashes[name] = Leash()
        with (self._folder / f"{name}.log").open("ab") as log:
            self._running[name] = await asyncio.create_subprocess_exec(
                sys.executable, *command, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        leash.hold(self._running[name].pid)

    async def kill(self, name: str) -> None:
        process = self._running[name]
        if process.returncode is None:
            process.kill()
        await self._ended(name)
        self.kills[name] += 1

    async def revive(self) -> None:
        """Whatever ended (a broker whose port was not free yet, say) is started again."""
        for name, process in self._running.items():
            if process.returncode is not None:
                await self._ended(name)
                await self.start(name)

    async def stop(self) -> None:
        for name, process in self._running.items():
            if process.returncode is None:
                process.kill()
            await self._ended(name)

    async def _ended(self, name: str) -> None:
        await self._running[name].wait()
        if leash := self._leashes.pop(name, None):  # none: it was killed and not yet started again
            leash.release()


async def ask(chat: "chat_pb2_grpc.ChatServiceAsyncStub", question: chat_pb2.CreateChatRequest, early: bool) -> str:
    """The answer's token; `early`: as soon as the answer begins."""
    if not early:
        return str((await chat.CreateChat(question, timeout=10)).feedback_token)
    stream = chat.StreamChat(chat_pb2.StreamChatRequest(chat=question), timeout=10)
    first = await stream.read()
    assert isinstance(first, chat_pb2.StreamChatResponse), "a stream begins with `started`"
    token = str(first.started.feedback_token)
    reading = asyncio.create_task(read_out(stream))
    READING.add(reading)
    reading.add_done_callback(READING.discard)
    return token


async def read_out(stream: "grpc.aio.UnaryStreamCall[chat_pb2.StreamChatRequest, chat_pb2.StreamChatResponse]") -> None:
    """To its end, however that comes."""
    with suppress(grpc.aio.AioRpcError):
        while await stream.read() is not grpc.aio.EOF:
            pass


async def use(stack: Stack, early: bool, accepted: set[str], refused: Counter[str], stop: asyncio.Event) -> None:
    """One user: asks, rates, tries again what got no answer, under the same request_id."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{stack.chat}") as channel:
        chat, feedback = chat_pb2_grpc.ChatServiceStub(channel), feedback_pb2_grpc.FeedbackServiceStub(channel)
        question = chat_pb2.CreateChatRequest(
            messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, content="tell me about the good they")],
            sampling=chat_pb2.Sampling(max_tokens=8),
            training_consent=True,
        )
        while not stop.is_set():
            try:
                token = await ask(chat, question, early)
            except grpc.aio.AioRpcError as error:
                refused[f"chat {error.code().name}"] += 1
                await asyncio.sleep(0.2)
                continue
            thumb = feedback_pb2.Feedback(
                feedback_tokens=[token],
                rater_id=str(uuid.uuid4()),
                source=feedback_pb2.FEEDBACK_SOURCE_END_USER,
                thumbs=feedback_pb2.THUMBS_UP,
            )
            request = feedback_pb2.SubmitFeedbackRequest(request_id=str(uuid.uuid4()), feedback=thumb)
            while not stop.is_set():
                try:
                    accepted.add((await feedback.SubmitFeedback(request, timeout=10)).feedback_id)
                    break
                except grpc.aio.AioRpcError as error:
                    refused[f"feedback {error.code().name}"] += 1
                    await asyncio.sleep(0.2)


def known(folder: Path) -> dict[str, str]:
    path = folder / "trainer/preferences.sqlite"
    if not path.exists():
        return {}
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        return dict(db.execute("SELECT feedback_id, state FROM feedback").fetchall())


async def audited(stack: Stack) -> dict[str, Any]:
    """What `foldback audit` says, once a broker answers it."""
    async with asyncio.timeout(AUDIT_S):
        while (said := await audit(stack)) is None:
            await stack.revive()
            await asyncio.sleep(0.5)
    return said


async def audit(stack: Stack) -> dict[str, Any] | None:
    """None where no broker answers."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "feedback", "audit", "--json"),
        env=stack.environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    printed, _ = await process.communicate()
    return json.loads(printed) if printed else None


async def run(options: argparse.Namespace, folder: Path) -> Report:
    dice = random.Random(options.seed)
    stack = Stack(folder, make_tiny_model(folder / "model"))
    accepted: set[str] = set()
    refused: Counter[str] = Counter()
    audits: list[int] = []
    stop = asyncio.Event()
    try:
        for name in SERVICES:
            await stack.start(name)
        users = [asyncio.create_task(use(stack, bool(n % 2), accepted, refused, stop)) for n in range(4)]
        while not accepted:  # noqa: ASYNC110 (a set has no event)
            await asyncio.sleep(0.1)
        end = time.monotonic() + (60 if options.quick else 300)
        while time.monotonic() < end:
            await asyncio.sleep(dice.uniform(2, 8))
            name = dice.choice(list(SERVICES))
            await stack.kill(name)
            await asyncio.sleep(dice.uniform(0, 2))
            await stack.start(name)
            await stack.revive()
            audits.append(len((await audited(stack))["lost"]))
        stop.set()
        await asyncio.gather(*users)
        settled = time.monotonic() + SETTLE_S
        while not accepted <= known(folder).keys() and time.monotonic() < settled:
            await stack.revive()
            await asyncio.sleep(0.5)
        said = await audited(stack)
    finally:
        await stack.stop()
    states = known(folder)
    result = Report(f"Kills under load (seed {options.seed})")
    counts = {"accepted, by the client": len(accepted), "acknowledged, by receipts": said["acknowledged"]}
    counts |= {f"killed: {name}": count for name, count in stack.kills.items()}
    counts |= {f"fate: {name}": count for name, count in said["fates"].items()}
    counts |= {f"refused: {name}": count for name, count in refused.items()}
    result.rows += [{"what": name, "count": count} for name, count in counts.items()]
    result.target("accepted and lost", len(accepted - states.keys()), at_most=0)
    result.target("audit: lost", len(said["lost"]), at_most=0)
    result.target(f"audit: lost, the most of {len(audits)}, one after each kill", max(audits), at_most=0)
    dead = sum(states.get(name) == "dead" for name in accepted)
    result.target("accepted and dead-lettered", dead, at_most=0)
    return result


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(options, Path(folder))).finish(options)


if __name__ == "__main__":
    main()
