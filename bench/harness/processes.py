"""Servers under test as processes of their own, and the settings they share."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil

from console.leash import send
from settings import Settings
from settings.feedback import FeedbackSettings
from settings.model import ModelSettings
from settings.registry import RegistrySettings
from settings.server import ServerSettings

BENCH = Path(__file__).parents[1]
ROOT = BENCH.parent
DEFAULT_MODEL = ROOT / ".foldback/models/SmolLM2-135M-Instruct"


def bench_settings(data_dir: Path, model: str, broker: str, **server: object) -> Settings:
    """As shipped, on free ports and a data directory of its own."""
    return Settings(
        data_dir=data_dir,
        model=ModelSettings(name=model),
        feedback=FeedbackSettings(bootstrap_servers=broker),
        registry=RegistrySettings(poll_interval_s=0.1),
        server=ServerSettings(**{"port": 0, "admin_port": 0, "metrics_port": 0, **server}),
    )


class Process:
    """A server that says where it listens: its first words by line, and what it costs."""

    def __init__(self, pid: int, said: dict[str, str]) -> None:
        self.said = said
        self._root = psutil.Process(pid)

    def cpu_s(self) -> float:
        """Seconds of user and system time of this process alone, not of its children."""
        if sys.platform == "linux":  # as clock_getcpuclockid(3): psutil counts ticks of 10 ms, a tenth of a round
            return float(time.clock_gettime((~self._root.pid << 3) | 2))
        times = self._root.cpu_times()
        return float(times.user + times.system)

    def rss_mb(self) -> float:
        """Resident memory of the process and all its children."""
        family = [self._root, *self._root.children(recursive=True)]
        return float(sum(process.memory_info().rss for process in family) / 2**20)


class Leash:
    """Ends a process and its children when this one dies, by SIGTERM or `kill -9` too: whoever leads a session of its
    own hears nothing of that. Made before the process is, so that there is no moment without."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(
            [sys.executable, "-m", "console.leash"], cwd=ROOT, stdin=subprocess.PIPE, start_new_session=True
        )
        self._group = 0

    def hold(self, pid: int) -> None:
        """`pid` leads its process group."""
        self._group = pid
        assert self._holder.stdin
        self._holder.stdin.write(f"{pid}\n".encode())
        self._holder.stdin.flush()

    def release(self) -> None:
        """The process has ended; so does, by SIGKILL, what is left of its group."""
        if self._group:
            send(self._group, signal.SIGKILL)
        self._holder.kill()
        self._holder.communicate()


def completed(command: Sequence[str], check: bool, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """As subprocess.run with captured output does it, in ROOT and on a leash. Raises CalledProcessError."""
    leash = Leash()
    try:
        child = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        leash.hold(child.pid)
        said, complained = child.communicate()
    finally:
        leash.release()
    ended = subprocess.CompletedProcess(command, child.returncode, said, complained)
    if check:
        ended.check_returncode()
    return ended


@asynccontextmanager
async def spawned(*command: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python …` with what it prints in a pipe. Ends with SIGTERM, so that it may end its own children."""
    paths = os.pathsep.join(filter(None, [str(BENCH), str(ROOT), os.environ.get("PYTHONPATH", "")]))
    leash = Leash()
    try:
        started = await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": paths, **environment},
            start_new_session=True,
        )
        leash.hold(started.pid)
        try:
            yield started
        finally:
            if started.returncode is None:
                started.send_signal(signal.SIGTERM)
                with suppress(TimeoutError):
                    await asyncio.wait_for(started.wait(), 60)
    finally:
        leash.release()


@asynccontextmanager
async def process(*command: str, **environment: str) -> AsyncIterator[Process]:
    """`python …` that prints lines `word rest`; ready when it has printed the word `serving`."""
    async with spawned(*command, **environment) as started:
        said: dict[str, str] = {}
        assert started.stdout
        while "serving" not in said:
            line = (await started.stdout.readline()).decode()
            if not line:
                raise RuntimeError(f"{' '.join(command)} ended before it served")
            word, _, rest = line.strip().partition(" ")
            said[word] = rest
        yield Process(started.pid, said)
