"""The event log as servers use it: emit an event and know that it is safe.

`emit` answers after the brokers acknowledged, or else after the event was fsynced in the spool; which, it says.
Peers lose feedback between their answer and their log; here nothing is answered before it is durable.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from kafka.errors import KafkaError

from feedback.batching import BatchWorker, Ticket
from feedback.event import Durability, Event, Position, build_event
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
        """`spool_path` None: no spool, and no receipts beside it. `observe_ack(topic, seconds)` hears of each ack."""
        self._settings = settings
        self._spool_path = spool_path
        self._observe_ack = observe_ack
        self._produced: Counter[tuple[str, str]] = Counter()
        self._lost: Counter[str] = Counter()
        self._soon: dict[str, asyncio.Task[None]] = {}
        self.hand_over: Callable[[], None] = lambda: None
        """Called before `settled` looks: whoever gathers events for `emit_soon` sends them now."""

    async def start(self) -> None:
        """Returns after the first attempt to reach the brokers, or a second; brokers may be away."""
        self._spool = (
            await asyncio.to_thread(Spool, self._spool_path, self._settings.spool_max_bytes)
            if self._spool_path
            else None
        )
        self._receipts = Receipts(self._spool_path.with_name("receipts")) if self._spool_path else None
        self._sending: BatchWorker[tuple[Producer, Event], Position] = BatchWorker("feedback-send", _send)
        self._spooling: BatchWorker[tuple[Event, tuple[str, Position] | None], None] = BatchWorker(
            "feedback-spool", self._append
        )
        self._link = Link(self._settings, self._spool)
        await asyncio.to_thread(self._link.first_attempt.wait, _FIRST_CONNECT_S)

    async def emit(
        self,
        topic: str,
        key: str,
        value: Message,
        *,
        event_id: str,
        type: str,
        tenant: str,
        extra_headers: Mapping[str, str] | None = None,
    ) -> Durability:
        """Returns once the event is durable.

        Raises SpoolFull, LogUnavailable (there is no spool), EventTooLarge; in each case nothing was accepted.
        """
        event = self._build(topic, key, value, event_id=event_id, type=type, tenant=tenant, extra_headers=extra_headers)
        durability = await self._make_durable(event, None)
        if self._receipts and topic == FEEDBACK:
            self._receipts.add(event_id, durability)
        return durability

    def emit_soon(
        self,
        topic: str,
        key: str,
        value: Message,
        *,
        event_id: str,
        type: str,
        tenant: str,
        extra_headers: Mapping[str, str] | None = None,
    ) -> None:
        """`emit` without waiting, for what must not hold up an answer: never raises; a loss is counted and logged."""

        async def emit() -> None:
            try:
                event = self._build(
                    topic, key, value, event_id=event_id, type=type, tenant=tenant, extra_headers=extra_headers
                )
                await self._make_durable(event, _SOON_PATIENCE_S if self._spool else None)
            except Exception as error:
                self._lost[type_name(error)] += 1
                log.error("event %s for %s is lost: %s", event_id, topic, error)

        task = asyncio.get_running_loop().create_task(emit())
        self._soon[event_id] = task
        task.add_done_callback(lambda _: self._soon.pop(event_id, None))

    async def settled(self, event_ids: Iterable[str]) -> None:
        """Wait until those of `event_ids` that `emit_soon` took here are durable, or given up.

        Feedback is accepted after the answer it is about: no crash keeps the one without the other.
        """
        self.hand_over()
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
        await self._sending.stop()
        await self._spooling.stop()
        await asyncio.to_thread(self._link.stop)
        if self._spool:
            self._spool.close()
        if self._receipts:
            self._receipts.close()

    def _build(self, topic: str, key: str, value: Message, **envelope: Any) -> Event:
        event = build_event(topic, key, value, **envelope)
        if event.size > self._settings.max_event_bytes:
            raise EventTooLarge(f"{event.size} bytes; feedback.max_event_bytes is {self._settings.max_event_bytes}")
        return event

    async def _make_durable(self, event: Event, patience_s: float | None) -> Durability:
        """`patience_s`: spool what is not acknowledged by then, though the brokers may yet do it."""
        durability = await self._to_brokers(event, patience_s)
        if durability is None:
            if self._spool is None:
                raise LogUnavailable("no broker acknowledged in time and there is no spool; try again")
            await self._spooling.submit((event, None))
            self._link.wake()
            durability = Durability.SPOOL
        self._produced[event.topic, durability.lower()] += 1
        return durability

    async def _to_brokers(self, event: Event, patience_s: float | None) -> Durability | None:
        """None: they have not acknowledged it."""
        if (producer := self._link.producer) is None:
            return None
        keep = self._link.keeps(producer)
        if keep and self._spool and not self._spool.has_room(event):
            raise SpoolFull("the spool is full of events that the trainer has not read; is it running?")
        try:
            position = await self._acknowledged(producer, event, patience_s or self._settings.ack_timeout_s)
        except TOO_LARGE as error:
            raise EventTooLarge(str(error)) from None
        except (KafkaError, TimeoutError) as error:
            if patience_s is None or not isinstance(error, TimeoutError):
                self._link.lost(producer, error)
            return None
        if keep:
            await self._spooling.submit((event, (producer.cluster_id, position)))
        return Durability.BROKER

    async def _acknowledged(self, producer: Producer, event: Event, timeout_s: float) -> Position:
        start = time.perf_counter()
        position = await asyncio.wait_for(self._sending.submit((producer, event)), timeout_s)
        if self._observe_ack:
            self._observe_ack(event.topic, time.perf_counter() - start)
        return position

    def _append(self, batch: Sequence[tuple[tuple[Event, tuple[str, Position] | None], Ticket[None]]]) -> None:
        assert self._spool is not None
        outcomes = self._spool.append([item for item, _ in batch])
        for (_, ticket), full in zip(batch, outcomes, strict=True):
            if full is None:
                ticket.resolve(None)
            else:
                ticket.fail(full)


def type_name(error: BaseException) -> str:
    return type(error).__name__


def _send(batch: Sequence[tuple[tuple[Producer, Event], Ticket[Position]]]) -> None:
    for (producer, event), ticket in batch:
        producer.send(event, ticket.resolve, ticket.fail)
