"""The idempotent producer: acks from all in-sync replicas, in order within a partition."""

import contextlib
import itertools
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, cast

from kafka import KafkaProducer
from kafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
)
from kafka.future import Future

from feedback.connection import client_options
from feedback.event import Event, Position
from feedback.partitioner import ByKey
from feedback.topics import all_topics
from settings.feedback import FeedbackSettings

_LINGER_MS = 5
"""As Apache Kafka's own producer since 4.0. At 2, requests are so small under load that a feedback costs the server a
third more CPU, though a lone call waits 4 ms less (bench/event_log.py)."""

TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)
"""Errors that another attempt cannot mend."""


def producer_options(settings: FeedbackSettings) -> dict[str, Any]:
    """Of a KafkaProducer whose acknowledgement can be relied on."""
    timeout_ms = int(settings.ack_timeout_s * 1000)
    return client_options(settings) | {
        "acks": "all",
        "enable_idempotence": True,
        "linger_ms": _LINGER_MS,
        "batch_size": 256 * 1024,
        "request_timeout_ms": timeout_ms,
        "delivery_timeout_ms": timeout_ms + _LINGER_MS + 1,
        "max_block_ms": timeout_ms,
        "max_request_size": max(2 * settings.max_event_bytes, 1 << 20),
        "metrics_enabled": False,
    }


class Producer:
    """`send` blocks nobody, an event loop included: the constructor has fetched the topics' metadata."""

    def __init__(self, settings: FeedbackSettings, cluster_id: str) -> None:
        """Raises a KafkaError when the brokers do not answer."""
        self.cluster_id = cluster_id
        self._kafka = KafkaProducer(**producer_options(settings), partitioner=ByKey())
        try:
            for topic in all_topics(settings):
                self._kafka.partitions_for(topic.name)
        except KafkaError:
            self.close()
            raise
        # From here on a topic that the brokers no longer know fails at once; nothing else in `send` waits.
        self._kafka.config["max_block_ms"] = 0

    def send(self, events: Sequence[Event], done: Callable[[list[Position | BaseException]], None]) -> None:
        """`done` is called once, with an outcome for each: by the producer's own thread, or before this returns."""
        futures = [self._send(event) for event in events]
        settled = itertools.count(1)  # counts right for two threads at once

        def settle(_: object) -> None:
            if next(settled) == len(futures):
                done([_outcome(future) for future in futures])

        for future in futures:
            future.add_both(settle)

    def _send(self, event: Event) -> Future:
        try:
            return self._kafka.send(event.topic, event.value, key=event.key, headers=list(event.headers))
        except (KafkaError, ValueError) as error:
            return Future().failure(error)

    def send_all(self, events: Sequence[Event], timeout_s: float) -> list[Position | KafkaError]:
        """Wait for all of them; an error in the place of each that the brokers will never take (TOO_LARGE).

        Raises KafkaError when one was not acknowledged in time: then any of them may have arrived.
        """
        answers: queue.SimpleQueue[list[Position | BaseException]] = queue.SimpleQueue()
        self.send(events, answers.put)
        try:
            outcomes = answers.get(timeout=timeout_s) if events else []
        except queue.Empty:
            raise KafkaTimeoutError(f"{len(events)} events not all acknowledged within {timeout_s:g} s") from None
        settled: list[Position | KafkaError] = []
        for outcome in outcomes:
            if not isinstance(outcome, (Position, *TOO_LARGE)):
                raise KafkaError(f"not acknowledged: {outcome}")
            settled.append(outcome)
        return settled

    def close(self) -> None:
        """In a thread of its own: it waits for what is in flight to be acknowledged or to expire."""

        def close() -> None:
            with contextlib.suppress(KafkaError):
                self._kafka.close(timeout=10)

        threading.Thread(target=close, name="feedback-producer-close", daemon=True).start()


def _outcome(settled: Future) -> Position | BaseException:
    if settled.exception is not None:
        return cast(BaseException, settled.exception)
    return Position(settled.value.partition, settled.value.offset)
