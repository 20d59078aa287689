"""Watches server and trainer for all visitors at once, so that ten open tabs cost what one does."""

import asyncio
import time
from collections.abc import Iterable

import grpc

from console.client import Client
from console.endpoints import endpoints
from console.errors import explain
from console.scrape import by_label, scrape
from console.status import FUNNEL, trainer_figures
from console.web.history import History
from foldback.v1 import policy_pb2
from settings import Settings

POLL_S = 2.0


class Observer:
    """What is known now, and how it came to be. `start` and `stop` belong to the page's event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._place = endpoints(settings)
        self.client = Client.of(settings)
        self.listed = policy_pb2.ListPoliciesResponse()
        """As the server last told it."""
        self.problem = "connecting …"
        """Why the server cannot be asked; "" while it answers."""
        self.figures: dict[str, float] = {}
        """The trainer's, by the names that `foldback status` uses; empty while it does not answer."""
        self.funnel: dict[str, int] = {}
        """Events in the preference store by stage."""
        self.history = History()
        self.transitions: list[policy_pb2.PolicyTransition] = []
        """Every one since the registry began, in order."""

    @property
    def address(self) -> str:
        return self._place.chat

    async def start(self) -> None:
        await self.client.__aenter__()
        self._tasks = [asyncio.create_task(self._poll()), asyncio.create_task(self._watch())]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.client.__aexit__(None, None, None)

    async def refresh(self) -> None:
        """Ask now rather than at the next turn: somebody has just changed something."""
        try:
            self.listed = await self.client.list_policies()
        except grpc.aio.AioRpcError as error:
            self.problem = explain(error, self.address)
        else:
            self.problem = ""

    async def _poll(self) -> None:
        while True:
            await self.refresh()
            samples = await scrape(self._place.trainer_metrics)
            self.figures = trainer_figures(samples) if samples else {}
            self.funnel = {stage: int(count) for stage, count in by_label(samples or {}, FUNNEL, "stage").items()}
            if self.figures:
                # The age of a checkpoint changes with every look at it; as history it says nothing.
                self.history.add(
                    time.time(), {name: value for name, value in self.figures.items() if name != "checkpoint_age_s"}
                )
            await asyncio.sleep(POLL_S)

    async def _watch(self) -> None:
        while True:
            after = self.transitions[-1].sequence if self.transitions else 0
            try:
                async for transition in self.client.watch_policies(after):
                    self.transitions.append(transition)
            except grpc.aio.AioRpcError:
                pass  # `problem` says so; the watch begins again where it ended
            await asyncio.sleep(POLL_S)

    def activations(self) -> list[tuple[float, str]]:
        """(Unix time, version) of each activation, the base policy's included."""
        return [
            (seconds(transition), transition.version)
            for transition in self.transitions
            if transition.to == policy_pb2.POLICY_STATE_ACTIVE
        ]


def seconds(transition: policy_pb2.PolicyTransition) -> float:
    return transition.time.ToNanoseconds() / 1e9


def versions_with(policies: Iterable[policy_pb2.Policy], figure: str) -> list[policy_pb2.Policy]:
    """Those that have the figure, oldest first."""
    found = [policy for policy in policies if figure in policy.figures and policy.create_time.ToNanoseconds()]
    return sorted(found, key=lambda policy: policy.create_time.ToNanoseconds())
