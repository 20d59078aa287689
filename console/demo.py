"""`foldback demo`: the loop on one machine, with simulated users, measured from outside."""

import asyncio
import tempfile
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from console.client import Client
from console.commands.common import load_settings
from console.demo_report import print_plan, print_point, print_trial, print_verdict, save
from console.demo_result import MIN_SWAPS, Result
from console.errors import CommandError
from console.measure import measure
from console.simulate import Crowd, simulate
from console.stack import settle_ports
from console.terminal import out
from console.up import run_until_stopped, running, scratch_environment
from foldback.v1 import policy_pb2

CAREFUL_SAMPLES = 4
"""Answers a held-out prompt in the first and the last measurement: the verdict rests on these two."""
QUICK_SAMPLES = 2
"""Answers a held-out prompt in between, so that measuring stays cheap beside learning."""
RESERVE_SHARE = 0.07
"""Kept of the time limit for the last measurement."""
SWAP_WAIT_S, SWAP_POLL_S = 20.0, 0.5
_IN_SERVICE = (policy_pb2.POLICY_STATE_CANARY, policy_pb2.POLICY_STATE_ACTIVE)


@dataclass(frozen=True, slots=True)
class Plan:
    crowd: Crowd
    limit_s: float
    full: bool
    """Go on to the limit even when the targets are met."""
    out_dir: Path
    scratch: Path | None
    """Data folder to use and keep; None: a temporary one."""
    use_running: bool
    """Use the Foldback that `console:` names."""
    shortest_gap_s: float = 30.0
    """Between measurements, however often versions are swapped."""
    longest_gap_s: float = 90.0
    """Between measurements, where none is swapped."""


def run_demo(plan: Plan) -> bool:
    """Whether every target holds. What was found is shown and saved however it ends."""
    result = Result(plan.crowd.persona.name)
    try:
        run_until_stopped(_run(plan, result))
    finally:
        if result.points:
            save(result, plan.out_dir)
            print_verdict(result, plan.out_dir)
    return bool(result.points) and result.holds


async def _run(plan: Plan, result: Result) -> None:
    async with AsyncExitStack() as stack:
        if plan.use_running:
            client = await stack.enter_async_context(Client.of(load_settings(), attempts=1))
            await Demo(plan, client, result).run()
            return
        scratch = plan.scratch or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="foldback-demo-")))
        scratch_environment(scratch)
        settings = settle_ports(load_settings())
        supervisor = await stack.enter_async_context(running(settings))
        client = await stack.enter_async_context(Client.of(settings, attempts=1))
        await first(supervisor.watch(), Demo(plan, client, result).run())


async def first(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Run all until one ends or raises; the others are cancelled."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


class Demo:
    """Measures, lets the users teach, and measures again; fills `result`."""

    def __init__(self, plan: Plan, client: Client, result: Result) -> None:
        self._plan, self._client, self._result = plan, client, result
        self._began, self._began_time = time.monotonic(), time.time()
        self._swapped = asyncio.Event()
        self._measured_at_s = 0.0

    @property
    def _elapsed_s(self) -> float:
        return time.monotonic() - self._began

    @property
    def _left_s(self) -> float:
        """Of the time for learning: the last measurement must fit within the limit, too."""
        return self._plan.limit_s * (1 - RESERVE_SHARE) - self._elapsed_s

    @property
    def _reached(self) -> bool:
        return self._result.rise >= self._result.least_rise and self._result.swapped >= MIN_SWAPS

    async def run(self) -> None:
        print_plan(self._plan.crowd, self._plan.limit_s)
        await self._measure(CAREFUL_SAMPLES)
        if self._result.base.std == 0:
            raise CommandError(
                f"every answer of the base policy has utility {self._result.base.mean:g} to this persona: "
                "there is no deviation to measure a rise in; choose another --persona"
            )
        await first(self._watch_swaps(), self._teach())

    async def _teach(self) -> None:
        """The users rate while measurements follow the swaps; ends with a careful one."""
        stop = asyncio.Event()
        users = asyncio.create_task(simulate(self._client, self._plan.crowd, self._result.tally, stop))
        try:
            while self._left_s > 0:
                await self._until_due(users)
                if self._left_s <= 0:
                    break
                await self._measure(QUICK_SAMPLES)
                if self._reached and not self._plan.full:
                    # One lucky sample must not decide: a fresh one, twice as large, does.
                    await self._measure(CAREFUL_SAMPLES)
                    if self._reached:
                        return
            await self._measure(CAREFUL_SAMPLES)
        finally:
            stop.set()
            await users

    async def _until_due(self, users: asyncio.Task[None]) -> None:
        """Wait for a swap, but the shortest gap at least and the longest at most. Raises what ended the users."""
        since_s = self._elapsed_s - self._measured_at_s
        with out.status("the users rate, the trainer learns"):
            await asyncio.sleep(max(0.0, min(self._plan.shortest_gap_s - since_s, self._left_s)))
            longest_s = max(0.0, min(self._plan.longest_gap_s - self._plan.shortest_gap_s, self._left_s))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._swapped.wait(), longest_s)
        self._swapped.clear()
        if users.done():
            users.result()

    async def _measure(self, samples: int) -> None:
        crowd, result = self._plan.crowd, self._result
        with out.status("measuring on held-out questions"):
            measured = await measure(
                self._client,
                crowd.persona,
                result.measurement_failures,
                samples=samples,
                max_tokens=crowd.max_tokens,
            )
        self._measured_at_s = self._elapsed_s
        result.add(measured, self._measured_at_s)
        print_point(result)

    async def _watch_swaps(self) -> None:
        """Note each version that comes into service since the demo began, and say what became of canaries. Raises
        CommandError when the server ends the watch."""
        async for transition in self._client.watch_policies():
            if transition.time.ToNanoseconds() / 1e9 <= self._began_time:
                continue
            print_trial(self._elapsed_s, transition)
            served = [version for _, version in self._result.swaps[-1:]]
            if transition.to in _IN_SERVICE and transition.version not in served:
                self._result.swaps.append((self._elapsed_s, transition.version))
                # A move is a wish until the replica serves it, or until the next one overtakes it.
                with suppress(TimeoutError):
                    await self._until_served(transition.version)
                self._swapped.set()
        raise CommandError("the server has ended; its log says why")

    async def _until_served(self, version: str) -> None:
        async with asyncio.timeout(SWAP_WAIT_S):
            while True:
                listed = await self._client.list_policies()
                if version in (listed.serving_version, listed.canary_version):
                    return
                await asyncio.sleep(SWAP_POLL_S)
