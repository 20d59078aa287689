"""One record of a topic, and reading it."""

from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import DecodeError

from foldback.v1 import events_pb2

Decoded = TypeVar("Decoded", events_pb2.ResponseRecorded, events_pb2.FeedbackRecorded, events_pb2.ErasureRequested)


REPLAY_HEADER = "ce_replay"
"""On a dead letter that was sent again; names the letter."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it was read from a topic."""

    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes
    type: str
    """The ce_type header; empty when absent."""
    replayed: bool = False
    """Sent again from the dead letters."""

    @property
    def origin(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


class Unusable(Exception):
    """This event cannot be used; it is dead-lettered and its partition moves on."""

    def __init__(self, reason: "events_pb2.DeadLetterReason.ValueType", detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def decode(record: Record, kind: type[Decoded], expected_type: str) -> Decoded:
    """Raises Unusable: UNKNOWN_SCHEMA, UNDECODABLE."""
    if record.type and record.type != expected_type:
        raise Unusable(
            events_pb2.DEAD_LETTER_REASON_UNKNOWN_SCHEMA, f"type {record.type!r}; this release reads {expected_type!r}"
        )
    try:
        return kind.FromString(record.value)
    except DecodeError as error:
        raise Unusable(events_pb2.DEAD_LETTER_REASON_UNDECODABLE, str(error)) from None
