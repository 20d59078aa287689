"""Starts child processes in order, watches them, starts again what returns, and stops them in reverse."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from console.errors import CommandError
from console.leash import send

POLL_S = 0.1
TAIL_LINES = 15
STEADY_S = 60.0
"""A child that was well for less would only end again."""


@dataclass(frozen=True, slots=True)
class Service:
    """One child: how it starts, and how to see that it is well."""

    name: str
    command: Sequence[str]
    healthy: Callable[[], Awaitable[bool]]
    where: str
    """What it offers and at which address, for people."""
    environment: Mapping[str, str] = field(default_factory=dict)
    returns: bool = False
    """Started again when it ends by itself: it goes on where it was, and the others can do without it meanwhile."""


class ServiceDied(CommandError):
    """A child ended by itself; the message holds how (`how`: in a few words) and the end of its log."""

    def __init__(self, service: Service, how: str, last_words: str) -> None:
        super().__init__(f"{how}; {last_words}")
        self.service, self.how = service, how


class Supervisor:
    """Owns the children; leaving the context stops them, last started first.

    Each child leads its own process group, so that Ctrl-C reaches the supervisor alone, and writes its output straight
    to a log file, so that it never blocks on us.
    """

    def __init__(self, log_dir: Path, *, start_timeout_s: float, stop_timeout_s: float) -> None:
        self._log_dir = log_dir
        self._start_timeout_s, self._stop_timeout_s = start_timeout_s, stop_timeout_s
        self._children: list[tuple[Service, asyncio.subprocess.Process]] = []
        self._well_since: dict[str, float] = {}

    async def __aenter__(self) -> Self:
        self._log_dir.mkdir(parents=True, exist_ok=True)
        self._leash = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "console.leash"), stdin=asyncio.subprocess.PIPE, start_new_session=True
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, process in reversed(self._children):
            await self._stop(process)
        # Nothing is left to hold, and its group numbers may soon belong to others.
        self._leash.kill()
        await self._leash.wait()

    def log(self, name: str) -> Path:
        return self._log_dir / f"{name}.log"

    async def start(self, service: Service) -> float:
        """Start a child and wait until it is healthy; returns the seconds that took.

        Raises:
            ServiceDied: it ended first.
            CommandError: it is not healthy after the start timeout.
        """
        return await self._healthy(service, await self._spawn(service, "wb"))

    async def _healthy(self, service: Service, process: asyncio.subprocess.Process) -> float:
        began = time.monotonic()
        while not await service.healthy():
            if process.returncode is not None:
                raise self._died(service, process.returncode)
            if time.monotonic() - began > self._start_timeout_s:
                raise CommandError(
                    f"{service.name} is not healthy after {self._start_timeout_s:.0f} s; {self._tail(service.name)}\n"
                    "Give it longer with FOLDBACK_CONSOLE__START_TIMEOUT_S."
                )
            await asyncio.sleep(POLL_S)
        self._well_since[service.name] = time.monotonic()
        return self._well_since[service.name] - began

    async def keep(self, tell: Callable[[str], None]) -> None:
        """Watch, and start again what returns, telling so; its log goes on where it ended.

        Raises:
            ServiceDied: a child ended that does not return, or that had been well for less than STEADY_S.
            CommandError: one that returns did not get well in time.
        """
        while True:
            try:
                await self.watch()
            except ServiceDied as death:
                service = death.service
                if not service.returns or time.monotonic() - self._well_since[service.name] < STEADY_S:
                    raise
                tell(f"{death.how}: it is started again, the others go on ({self.log(service.name)})")
                await self._bury(service)
                seconds = await self._healthy(service, await self._spawn(service, "ab"))
                tell(f"{service.name} is back after {seconds:.1f} s")

    async def watch(self) -> None:
        """Returns never: raises ServiceDied when a child ends by itself."""
        waits = {asyncio.ensure_future(process.wait()): service for service, process in self._children}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        ended = done.pop()
        raise self._died(waits[ended], ended.result())

    async def _spawn(self, service: Service, mode: Literal["wb", "ab"]) -> asyncio.subprocess.Process:
        with self.log(service.name).open(mode) as log:
            process = await asyncio.create_subprocess_exec(
                *service.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **service.environment},
                start_new_session=True,
            )
        self._children.append((service, process))
        assert self._leash.stdin is not None
        self._leash.stdin.write(f"{process.pid}\n".encode())
        await self._leash.stdin.drain()
        return process

    async def _bury(self, service: Service) -> None:
        """Forget a child that has ended, and end what it started."""
        for child in [child for child in self._children if child[0] is service]:
            self._children.remove(child)
            await self._stop(child[1])

    async def _stop(self, process: asyncio.subprocess.Process) -> None:
        """SIGTERM to the child, then SIGKILL to whatever is left of its group."""
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), self._stop_timeout_s)
        send(process.pid, signal.SIGKILL)
        await process.wait()

    def _died(self, service: Service, code: int) -> ServiceDied:
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return ServiceDied(service, f"{service.name} {how}", self._tail(service.name))

    def _tail(self, name: str) -> str:
        path = self.log(name)
        lines = path.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        return f"the end of {path}:\n" + "\n".join(f"  {line}" for line in lines)
