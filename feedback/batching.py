"""Between the event loop and threads, in batches: one commit, one wake-up for many."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Settlements(Generic[Result]):
    """Carries outcomes from any thread to futures of one event loop, many per wake-up."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._waiting: list[tuple[asyncio.Future[Result], Result | BaseException]] = []

    def put(self, future: "asyncio.Future[Result]", outcome: "Result | BaseException") -> None:
        """The first outcome of a future counts; whoever waited may also have given up."""
        self.put_all([(future, outcome)])

    def put_all(self, outcomes: "Sequence[tuple[asyncio.Future[Result], Result | BaseException]]") -> None:
        with self._lock:
            wake = not self._waiting  # else a wake-up is on its way
            self._waiting += outcomes
        if wake and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for future, outcome in waiting:
            if future.done():
                continue
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)


class BatchWorker(Generic[Item, Result]):
    """A thread: `handle` gets what was submitted since it last ran, in order, and returns an outcome for each."""

    def __init__(self, name: str, handle: Callable[[Sequence[Item]], "Sequence[Result | BaseException]"]) -> None:
        self._handle = handle
        self._settlements: Settlements[Result] = Settlements(asyncio.get_running_loop())
        self._pending: list[tuple[Item, asyncio.Future[Result]]] = []
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, item: Item) -> "asyncio.Future[Result]":
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        with self._changed:
            self._pending.append((item, future))
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
            outcomes: Sequence[Result | BaseException]
            try:
                outcomes = self._handle([item for item, _ in batch])
            except Exception as error:  # the submitters learn of it; the thread lives on
                outcomes = [error] * len(batch)
            futures = [future for _, future in batch]
            self._settlements.put_all(list(zip(futures, outcomes, strict=True)))

    def _take(self) -> "list[tuple[Item, asyncio.Future[Result]]]":
        with self._changed:
            while not self._pending and not self._stopping:
                self._changed.wait()
            batch, self._pending = self._pending, []
            return batch
