"""The event log as servers use it: emit an event and know that it is safe.

`emit_all` answers after the brokers acknowledged, or else after the event was fsynced in the spool; which, it says.
Peers lose feedback between their answer and their log; here nothing is answered before it is durable.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from feedback.batching import BatchWorker, Settlements
from feedback.event import Durability, Event, Position
from feedback.link import Link
from feedback.producer import TOO_LARGE, Producer
from feedback.receipts import Receipts
from feedback.spool import Spool, SpoolFull, SpoolState
from feedback.topics import FEEDBACK
from settings.feedback import FeedbackSettings

__all__ = ["Durability", "EventLog", "EventLogState", "EventTooLarge", "LogUnavailable", "SpoolFull"]

_FIRST_CONNECT_S = 1.0
_SOON_PATIENCE_S = 0.25
"""What `emit_soon` took and no broker has acknowledged by then goes to the spool as well. It may arrive twice, which
the joiner sees by its id; not at all, it may not: whoever was answered will send feedback on it."""

Kept = tuple[Event, tuple[str, Position] | None]
"""An event for the spool, with (cluster, position) where it has been acknowledged."""

log = logging.getLogger(__name__)


class LogUnavailable(RuntimeError):
    """The brokers do not answer and there is no spool: nothing was accepted; try again later."""


class EventTooLarge(ValueError):
    """The event exceeds `feedback.max_event_bytes`, or what the brokers take."""


@dataclass(frozen=True, slots=True)
class EventLogState:
    """For metrics; all counts since the start of this process."""

    connected: bool
    produced: dict[tuple[str, str], int]
    """By (topic, result): result is "broker" or "spool"."""
    lost: dict[str, int]
    """Response events that were given up, by reason. Feedback is never among them: it is refused instead."""
    spool: SpoolState | None


class EventLog:
    """One per process. Use from one event loop; `start` before, `stop` after."""

    def __init__(
        self,
        settings: FeedbackSettings,
        spool_path: Path | None,
        *,
        observe_ack: Callable[[str, float], None] | None = None,
    ) -> None:
        """`spool_path` None: no spool, and no receipts beside it. `observe_ack(topic, seconds)` hears how
        long the events of a topic took that went together."""
        self._settings = settings
        self._spool_path = spool_path
        self._observe_ack = observe_ack
        self._produced: Counter[tuple[str, str]] = Counter()
        self._lost: Counter[str] = Counter()
        self._soon: dict[str, asyncio.Task[None]] = {}

    async def start(self) -> None:
        """Returns after the first attempt to reach the brokers, or a second; brokers may be away."""
        self._spool = (
            await asyncio.to_thread(Spool, self._spool_path, self._settings.spool_max_bytes)
            if self._spool_path
            else None
        )
        self._receipts = Receipts(self._spool_path.with_name("receipts")) if self._spool_path else None
        self._acknowledgements: Settlements[list[Position | BaseException]] = Settlements(asyncio.get_running_loop())
        self._spooling: BatchWorker[Kept, None] = BatchWorker("feedback-spool", self._append)
        self._link = Link(self._settings, self._spool)
        await asyncio.to_thread(self._link.first_attempt.wait, _FIRST_CONNECT_S)

    async def emit_all(self, events: Sequence[Event]) -> list[Durability | BaseException]:
        """Returns once each is durable, or was not accepted: SpoolFull, LogUnavailable (there is no spool) or
        EventTooLarge stands in its place. Events that go together cost a third of as many by themselves."""
        outcomes = await self._make_durable(events, None)
        if self._receipts and (
            accepted := [
                (event.id, outcome)
                for event, outcome in zip(events, outcomes, strict=True)
                if event.topic == FEEDBACK and isinstance(outcome, Durability)
            ]
        ):
            self._receipts.add(accepted)
        return outcomes

    def emit_soon(self, events: Sequence[Event]) -> None:
        """Not waited for, as they must not hold up an answer: never raises; a loss is counted and logged."""
        task = asyncio.get_running_loop().create_task(self._emit(events))
        ids = [event.id for event in events]
        self._soon |= dict.fromkeys(ids, task)
        task.add_done_callback(lambda _: [self._soon.pop(event_id, None) for event_id in ids])

    async def _emit(self, events: Sequence[Event]) -> None:
        outcomes: Sequence[Durability | BaseException]
        try:
            outcomes = await self._make_durable(events, _SOON_PATIENCE_S if self._spool else None)
        except Exception as error:
            outcomes = [error] * len(events)
        for event, outcome in zip(events, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                self._lost[type_name(outcome)] += 1
                log.error("event %s for %s is lost: %s", event.id, event.topic, outcome)

    async def settled(self, event_ids: Iterable[str]) -> None:
        """Wait until those of `event_ids` that `emit_soon` took here are durable, or given up."""
        if pending := [self._soon[event_id] for event_id in event_ids if event_id in self._soon]:
            await asyncio.wait(pending)

    def state(self) -> EventLogState:
        return EventLogState(
            self._link.connected, dict(self._produced), dict(self._lost), self._spool.state() if self._spool else None
        )

    async def stop(self) -> None:
        """Waits until everything emitted is durable; what the spool holds is sent at the next start."""
        while self._soon:
            await asyncio.wait(list(self._soon.values()))
        await self._spooling.stop()
        await asyncio.to_thread(self._link.stop)
        if self._spool:
            self._spool.close()
        if self._receipts:
            self._receipts.close()

    async def _make_durable(
        self, events: Sequence[Event], patience_s: float | None
    ) -> list[Durability | BaseException]:
        """`patience_s`: spool what is not acknowledged by then, though the brokers may yet do it."""
        found = await self._to_brokers(events, patience_s)
        spooled = [place for place, outcome in enumerate(found) if outcome is None]
        if spooled:
            refusals = await self._to_spool([(events[place], None) for place in spooled])
            for place, refusal in zip(spooled, refusals, strict=True):
                found[place] = refusal or Durability.SPOOL
            self._link.wake()
        outcomes = [outcome for outcome in found if outcome is not None]
        made = zip((event.topic for event in events), outcomes, strict=True)
        for (topic, outcome), count in Counter(made).items():
            if isinstance(outcome, Durability):
                self._produced[topic, outcome.lower()] += count
        return outcomes

    async def _to_brokers(
        self, events: Sequence[Event], patience_s: float | None
    ) -> list[Durability | BaseException | None]:
        """None: they have not acknowledged it."""
        producer = self._link.producer
        keep = producer is not None and self._link.keeps(producer)
        found: list[Durability | BaseException | None] = [self._refusal(event, keep) for event in events]
        fit = [place for place, refusal in enumerate(found) if refusal is None]
        if producer is None or not fit:
            return found
        positions = await self._acknowledged(
            producer, [events[place] for place in fit], patience_s or self._settings.ack_timeout_s
        )
        acknowledged: list[int] = []
        kept: list[Kept] = []
        for place, position in zip(fit, positions, strict=True):
            match position:
                case Position():
                    found[place] = Durability.BROKER
                    if keep:
                        acknowledged.append(place)
                        kept.append((events[place], (producer.cluster_id, position)))
                case error if isinstance(error, TOO_LARGE):
                    found[place] = EventTooLarge(str(error))
                case error if patience_s is None or not isinstance(error, TimeoutError):
                    self._link.lost(producer, error)
        if kept:
            for place, refusal in zip(acknowledged, await self._to_spool(kept), strict=True):
                found[place] = refusal or found[place]  # a broker that forgets is no safe place by itself
        return found

    def _refusal(self, event: Event, keep: bool) -> BaseException | None:
        if event.size > self._settings.max_event_bytes:
            return EventTooLarge(f"{event.size} bytes; feedback.max_event_bytes is {self._settings.max_event_bytes}")
        if keep and self._spool and not self._spool.has_room(event):
            return SpoolFull("the spool is full of events that the trainer has not read; is it running?")
        return None

    async def _acknowledged(
        self, producer: Producer, events: Sequence[Event], timeout_s: float
    ) -> list[Position | BaseException]:
        loop, begun = asyncio.get_running_loop(), time.perf_counter()
        future: asyncio.Future[list[Position | BaseException]] = loop.create_future()
        # Handing over to kafka-python does not block; a thread between would cost two switches an event.
        producer.send(events, partial(self._acknowledgements.put, future))
        expiry = loop.call_later(timeout_s, _expire, future, len(events))  # a third of what asyncio.wait_for costs
        try:
            outcomes = await future
        finally:
            expiry.cancel()
        if self._observe_ack:
            seconds = time.perf_counter() - begun
            made = zip(events, outcomes, strict=True)
            for topic in {event.topic for event, outcome in made if isinstance(outcome, Position)}:
                self._observe_ack(topic, seconds)
        return outcomes

    async def _to_spool(self, items: Sequence[Kept]) -> Sequence[BaseException | None]:
        if self._spool is None:
            return [LogUnavailable("no broker acknowledged in time and there is no spool; try again")] * len(items)
        return await asyncio.gather(*(self._spooling.submit(item) for item in items), return_exceptions=True)

    def _append(self, batch: Sequence[Kept]) -> Sequence[SpoolFull | None]:
        assert self._spool is not None
        return self._spool.append(batch)


def _expire(future: "asyncio.Future[list[Position | BaseException]]", count: int) -> None:
    if not future.done():
        future.set_result([TimeoutError("no acknowledgement in time")] * count)


def type_name(error: BaseException) -> str:
    return type(error).__name__
