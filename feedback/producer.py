"""The idempotent producer: acks from all in-sync replicas, in order within a partition."""

import contextlib
import threading
from collections.abc import Callable, Sequence
from functools import partial

from kafka import KafkaProducer
from kafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
)

from feedback.connection import client_options
from feedback.event import Event, Position
from feedback.topics import all_topics
from settings.feedback import FeedbackSettings

_LINGER_MS = 2

TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)
"""Errors that another attempt cannot mend."""


class Producer:
    """Blocks only in the constructor: the topics' metadata is there before the first send."""

    def __init__(self, settings: FeedbackSettings, cluster_id: str) -> None:
        """Raises a KafkaError when the brokers do not answer."""
        self.cluster_id = cluster_id
        timeout_ms = int(settings.ack_timeout_s * 1000)
        self._kafka = KafkaProducer(
            **client_options(settings)
            | {
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
        )
        try:
            for topic in all_topics(settings):
                self._kafka.partitions_for(topic.name)
        except KafkaError:
            self.close()
            raise

    def send(
        self, event: Event, acknowledged: Callable[[Position], None], failed: Callable[[BaseException], None]
    ) -> None:
        """Exactly one of the callbacks is called, from the producer's own thread."""
        try:
            future = self._kafka.send(event.topic, event.value, key=event.key, headers=list(event.headers))
        except (KafkaError, ValueError) as error:
            failed(error)
            return
        future.add_callback(lambda metadata: acknowledged(Position(metadata.partition, metadata.offset)))
        future.add_errback(failed)

    def send_all(self, events: Sequence[Event], timeout_s: float) -> list[Position | KafkaError]:
        """Wait for all of them; an error in the place of each that the brokers will never take (TOO_LARGE).

        Raises KafkaError when one was not acknowledged in time: then any of them may have arrived.
        """
        outcomes: list[Position | BaseException | None] = [None] * len(events)
        left = len(events)
        done = threading.Event()
        lock = threading.Lock()

        def settle(place: int, outcome: Position | BaseException) -> None:
            nonlocal left
            with lock:
                outcomes[place] = outcome
                left -= 1
                if not left:
                    done.set()

        for place, event in enumerate(events):
            self.send(event, partial(settle, place), partial(settle, place))
        if events and not done.wait(timeout_s):
            raise KafkaTimeoutError(f"{left} of {len(events)} events not acknowledged within {timeout_s:g} s")
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
