"""Servers under test as processes of their own, and the settings they share."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

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
        server=ServerSettings(**{"port": 0, "admin_port": 0, "metrics_port": 0, **server}),  # type: ignore[arg-type]
    )


class Process:
    """A server that says where it listens: its first words by line, and what it costs."""

    def __init__(self, pid: int, said: dict[str, str]) -> None:
        self.said = said
        self._root = psutil.Process(pid)

    def cpu_s(self) -> float:
        """Seconds of user and system time of this process alone, not of its children."""
        if sys.platform == "linux":  # as clock_getcpuclockid(3): psutil counts ticks of 10 ms, a tenth of a round
            return time.clock_gettime((~self._root.pid << 3) | 2)
        times = self._root.cpu_times()
        return float(times.user + times.system)

    def rss_mb(self) -> float:
        """Resident memory of the process and all its children."""
        family = [self._root, *self._root.children(recursive=True)]
        return sum(process.memory_info().rss for process in family) / 2**20


@asynccontextmanager
async def spawned(*command: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python …` with what it prints in a pipe. Ends with SIGTERM, so that it may end its own children."""
    paths = os.pathsep.join(filter(None, [str(BENCH), str(ROOT), os.environ.get("PYTHONPATH", "")]))
    started = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": paths, **environment},
        start_new_session=True,
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(started.communicate(), 60)
            except TimeoutError:
                started.kill()
                await started.wait()


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
