"""A thread that handles, in batches, what coroutines submit one by one: one commit, one wake-up for many."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Ticket(Generic[Result]):
    """Settles one submission from any thread; the first settlement counts."""

    __slots__ = ("_bridge", "_future")

    def __init__(self, bridge: "_Bridge", future: "asyncio.Future[Result]") -> None:
        self._bridge = bridge
        self._future = future

    def resolve(self, result: Result) -> None:
        self._bridge.settle(partial(_settle, self._future, self._future.set_result, result))

    def fail(self, error: BaseException) -> None:
        self._bridge.settle(partial(_settle, self._future, self._future.set_exception, error))


def _settle(future: "asyncio.Future[Any]", settle: Callable[[Any], None], outcome: object) -> None:
    if not future.done():  # whoever waited may have given up
        settle(outcome)


class BatchWorker(Generic[Item, Result]):
    """`handle` gets everything submitted since it last ran, in order, and settles each ticket, then or later."""

    def __init__(self, name: str, handle: Callable[[Sequence[tuple[Item, Ticket[Result]]]], None]) -> None:
        self._handle = handle
        self._bridge = _Bridge(asyncio.get_running_loop())
        self._pending: list[tuple[Item, Ticket[Result]]] = []
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, item: Item) -> "asyncio.Future[Result]":
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        with self._changed:
            self._pending.append((item, Ticket(self._bridge, future)))
            self._changed.notify()
        return future

    async def stop(self) -> None:
        """Handle what was submitted, then end."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while batch := self._take():
            try:
                self._handle(batch)
            except Exception as error:  # the submitters learn of it; the thread lives on
                for _, ticket in batch:
                    ticket.fail(error)

    def _take(self) -> list[tuple[Item, Ticket[Result]]]:
        with self._changed:
            while not self._pending and not self._stopping:
                self._changed.wait()
            batch, self._pending = self._pending, []
            return batch


class _Bridge:
    """Carries settlements to the event loop, many per wake-up."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._settlements: list[Callable[[], object]] = []

    def settle(self, settlement: Callable[[], object]) -> None:
        with self._lock:
            self._settlements.append(settlement)
            if len(self._settlements) > 1:
                return  # a wake-up is on its way
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._run)

    def _run(self) -> None:
        with self._lock:
            settlements, self._settlements = self._settlements, []
        for settlement in settlements:
            settlement()
