"""The event log as servers use it: emit an event and know that it is safe.

`emit` answers after the brokers acknowledged, or else after the event was fsynced in the spool; which, it says.
Peers lose feedback between their answer and their log; here nothing is answered before it is durable.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import Message
from kafka.errors import KafkaError

from feedback.batching import BatchWorker, Ticket
from feedback.event import Durability, Event, Position, build_event
from feedback.link import Link
from feedback.producer import TOO_LARGE, Producer
from feedback.spool import Spool, SpoolFull, SpoolState
from settings.feedback import FeedbackSettings

__all__ = ["Durability", "EventLog", "EventLogState", "EventTooLarge", "LogUnavailable", "SpoolFull"]

_FIRST_CONNECT_S = 1.0

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
        """`spool_path` None: no spool. `observe_ack(topic, seconds)` is told how long brokers took."""
        self._settings = settings
        self._spool_path = spool_path
        self._observe_ack = observe_ack
        self._produced: Counter[tuple[str, str]] = Counter()
        self._lost: Counter[str] = Counter()
        self._background: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Returns after the first attempt to reach the brokers, or a second; brokers may be away."""
        self._spool = (
            await asyncio.to_thread(Spool, self._spool_path, self._settings.spool_max_bytes)
            if self._spool_path
            else None
        )
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
        event = build_event(topic, key, value, event_id=event_id, type=type, tenant=tenant, extra_headers=extra_headers)
        if event.size > self._settings.max_event_bytes:
            raise EventTooLarge(f"{event.size} bytes; feedback.max_event_bytes is {self._settings.max_event_bytes}")
        durability = await self._make_durable(event)
        self._produced[topic, durability.lower()] += 1
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
                await self.emit(
                    topic, key, value, event_id=event_id, type=type, tenant=tenant, extra_headers=extra_headers
                )
            except Exception as error:
                self._lost[type_name(error)] += 1
                log.error("event %s for %s is lost: %s", event_id, topic, error)

        task = asyncio.get_running_loop().create_task(emit())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def state(self) -> EventLogState:
        return EventLogState(
            self._link.connected, dict(self._produced), dict(self._lost), self._spool.state() if self._spool else None
        )

    async def stop(self) -> None:
        """Waits until everything emitted is durable; what the spool holds is sent at the next start."""
        if self._background:
            await asyncio.wait(set(self._background))
        await self._sending.stop()
        await self._spooling.stop()
        await asyncio.to_thread(self._link.stop)
        if self._spool:
            self._spool.close()

    async def _make_durable(self, event: Event) -> Durability:
        if (producer := self._link.producer) is not None:
            keep = self._link.keeps(producer)
            if keep and self._spool and not self._spool.has_room(event):
                raise SpoolFull("the spool is full of events that the trainer has not read; is it running?")
            try:
                position = await self._acknowledged(producer, event)
            except TOO_LARGE as error:
                raise EventTooLarge(str(error)) from None
            except (KafkaError, TimeoutError) as error:
                self._link.lost(producer, error)
            else:
                if keep:
                    await self._spooling.submit((event, (producer.cluster_id, position)))
                return Durability.BROKER
        if self._spool is None:
            raise LogUnavailable("no broker acknowledged in time and there is no spool; try again")
        await self._spooling.submit((event, None))
        self._link.wake()
        return Durability.SPOOL

    async def _acknowledged(self, producer: Producer, event: Event) -> Position:
        start = time.perf_counter()
        position = await asyncio.wait_for(self._sending.submit((producer, event)), self._settings.ack_timeout_s)
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
