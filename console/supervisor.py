"""Starts child processes in order, watches them, starts again what returns, and stops them in reverse."""

import asyncio
import math
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
"""A child that was well for less would only end again: it waits before its next start, each time twice as long."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0


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


class ServiceFailed(CommandError):
    """A child ended by itself or did not get well in time: how (`how`: in a few words), and the end of its log."""

    def __init__(self, how: str, last_words: str) -> None:
        super().__init__(f"{how}; {last_words}")
        self.how = how


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
            ServiceFailed: it ended first, or is not healthy after the start timeout.
        """
        return await self._healthy(service, await self._spawn(service, "wb"))

    async def _healthy(self, service: Service, process: asyncio.subprocess.Process) -> float:
        began = time.monotonic()
        while not await service.healthy():
            if process.returncode is not None:
                raise self._died(service, process.returncode)
            if time.monotonic() - began > self._start_timeout_s:
                raise ServiceFailed(
                    f"{service.name} is not healthy after {self._start_timeout_s:.0f} s",
                    f"{self._tail(service.name)}\nGive it longer with FOLDBACK_CONSOLE__START_TIMEOUT_S.",
                )
            await asyncio.sleep(POLL_S)
        self._well_since[service.name] = time.monotonic()
        return self._well_since[service.name] - began

    async def watch(self) -> None:
        """Returns never: raises ServiceFailed when a child ends by itself."""
        await self._each(self._until_it_ends)

    async def keep(self, tell: Callable[[str], None]) -> None:
        """Watch, and start again what returns, telling so; its log goes on where it ended.

        However often that takes: the others can do without it, so it never ends them.

        Raises:
            ServiceFailed: a child ended that does not return.
        """
        await self._each(lambda service, process: self._keep(service, process, tell))

    async def _each(self, look_after: Callable[[Service, asyncio.subprocess.Process], Awaitable[None]]) -> None:
        """Look after every child at once, until it fails for one."""
        tasks = [asyncio.ensure_future(look_after(*child)) for child in self._children]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            # So that none starts a child while the others are being stopped.
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _until_it_ends(self, service: Service, process: asyncio.subprocess.Process) -> None:
        raise self._died(service, await process.wait())

    async def _keep(self, service: Service, process: asyncio.subprocess.Process, tell: Callable[[str], None]) -> None:
        failure = self._died(service, await process.wait())
        pause_s = 0.0
        while service.returns:
            steady = time.monotonic() - self._well_since.pop(service.name, math.inf) >= STEADY_S
            pause_s = 0.0 if steady else min(max(FIRST_PAUSE_S, 2 * pause_s), LONGEST_PAUSE_S)
            when = f" in {pause_s:g} s" if pause_s else ""
            tell(f"{failure.how}: it is started again{when}, the others go on ({self.log(service.name)})")
            await self._bury(service)
            await asyncio.sleep(pause_s)
            process = await self._spawn(service, "ab")
            try:
                tell(f"{service.name} is back after {await self._healthy(service, process):.1f} s")
                failure = self._died(service, await process.wait())
            except ServiceFailed as again:
                failure = again
        raise failure

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
        """End a child, if it has not yet, and what it started; forget it."""
        for child in [child for child in self._children if child[0] is service]:
            await self._stop(child[1])
            self._children.remove(child)

    async def _stop(self, process: asyncio.subprocess.Process) -> None:
        """SIGTERM to the child, then SIGKILL to whatever is left of its group."""
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), self._stop_timeout_s)
        send(process.pid, signal.SIGKILL)
        await process.wait()

    def _died(self, service: Service, code: int) -> ServiceFailed:
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return ServiceFailed(f"{service.name} {how}", self._tail(service.name))

    def _tail(self, name: str) -> str:
        path = self.log(name)
        lines = path.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        return f"the end of {path}:\n" + "\n".join(f"  {line}" for line in lines)
