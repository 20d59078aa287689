"""One event on its way to Kafka: a protobuf value in a CloudEvents 1.0 binary-mode envelope.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from itertools import chain
from typing import NamedTuple

from google.protobuf.message import Message

SOURCE = b"foldback"
CONTENT_TYPE = b"application/protobuf"

Headers = tuple[tuple[str, bytes], ...]


class Durability(StrEnum):
    """Where an accepted event was safe when the answer was given; spelled as the API's DURABILITY_*."""

    BROKER = "BROKER"
    SPOOL = "SPOOL"


class Position(NamedTuple):
    """Where the brokers keep an acknowledged event."""

    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Event:
    topic: str
    key: bytes
    value: bytes
    headers: Headers

    @property
    def id(self) -> str:
        """Its ce_id; empty where it has none."""
        return next((value.decode() for name, value in self.headers if name == "ce_id"), "")

    @property
    def size(self) -> int:
        """Bytes, without Kafka's own framing."""
        return len(self.key) + len(self.value) + sum(map(len, chain.from_iterable(self.headers)))


def build_event(
    topic: str,
    key: str,
    value: Message,
    *,
    event_id: str,
    type: str,
    tenant: str,
    extra_headers: Mapping[str, str] | None = None,
) -> Event:
    headers = envelope(event_id=event_id, type=type, tenant=tenant, extra=extra_headers)
    return Event(topic, key.encode(), value.SerializeToString(), headers)


def envelope(
    *,
    event_id: str,
    type: str,
    tenant: str,
    extra: Mapping[str, str] | None = None,
) -> Headers:
    """`event_id` names the fact, not the attempt: sent twice, it is the same event."""
    return (
        ("ce_specversion", b"1.0"),
        ("ce_id", event_id.encode()),
        ("ce_source", SOURCE),
        ("ce_type", type.encode()),
        ("ce_time", datetime.now(UTC).isoformat().encode()),
        ("ce_tenant", tenant.encode()),
        ("content-type", CONTENT_TYPE),
        *((name, text.encode()) for name, text in (extra or {}).items()),
    )
