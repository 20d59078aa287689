"""The dead-letter topic, as an operator reads it."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from google.protobuf import text_format
from google.protobuf.message import DecodeError, Message

from feedback.consumer import open_consumer
from feedback.topics import DLQ, ERASURES, FEEDBACK, RESPONSES
from foldback.v1 import events_pb2
from settings.feedback import FeedbackSettings

_KINDS: dict[str, Callable[[], Message]] = {
    FEEDBACK: events_pb2.FeedbackRecorded,
    RESPONSES: events_pb2.ResponseRecorded,
    ERASURES: events_pb2.ErasureRequested,
}


@dataclass(frozen=True, slots=True)
class StoredLetter:
    partition: int
    offset: int
    letter: events_pb2.DeadLetter

    @property
    def reason(self) -> str:
        return events_pb2.DeadLetterReason.Name(self.letter.reason).removeprefix("DEAD_LETTER_REASON_")


def read_letters(settings: FeedbackSettings, start: tuple[int, int] | None = None) -> Iterator[StoredLetter]:
    """The letters there are now, from (partition, offset) if given. Raises KafkaError."""
    positions = {(DLQ, start[0]): start[1]} if start else {}
    consumer = open_consumer(settings, [DLQ], positions)
    try:
        ends = consumer.end_offsets(sorted(consumer.assignment()))
        while any(consumer.position(part) < end for part, end in ends.items()):
            for part, batch in consumer.poll(timeout_ms=settings.poll_interval_ms).items():
                for record in batch:
                    letter = events_pb2.DeadLetter.FromString(record.value or b"")
                    yield StoredLetter(part.partition, record.offset, letter)
    finally:
        consumer.close()


def newest_letters(settings: FeedbackSettings, limit: int) -> tuple[list[StoredLetter], int]:
    """The last `limit` letters, oldest first, and how many there are in all. Raises KafkaError."""
    newest: deque[StoredLetter] = deque(maxlen=limit)
    total = 0
    for total, stored in enumerate(read_letters(settings), 1):  # noqa: B007  # the last number is the total
        newest.append(stored)
    return list(newest), total


def find_letter(settings: FeedbackSettings, reference: str) -> StoredLetter:
    """`reference` is `partition:offset`. Raises LookupError, ValueError, KafkaError."""
    partition, separator, offset = reference.partition(":")
    if not (separator and partition.isdecimal() and offset.isdecimal()):
        raise ValueError(f"{reference!r}: give partition:offset, as `foldback dlq ls` lists it")
    place = (int(partition), int(offset))
    for stored in read_letters(settings, start=place):
        if (stored.partition, stored.offset) == place:
            return stored
    raise LookupError(f"{reference}: no such dead letter; `foldback dlq ls` lists them")


def describe(stored: StoredLetter) -> str:
    """A letter in full, with the event that it holds if that can be read."""
    letter = stored.letter
    head = [
        f"reason    {stored.reason}: {letter.detail}",
        f"origin    {letter.topic}/{letter.partition}/{letter.offset}, key {letter.key.decode(errors='replace')!r}",
        f"time      {letter.time.ToJsonString()}",
        f"feedback  {letter.feedback_id or '-'}",
    ]
    return "\n".join(head) + "\n\n" + _describe_value(letter)


def _describe_value(letter: events_pb2.DeadLetter) -> str:
    if not letter.value:
        return "(the event itself is left out)"
    event = _KINDS[letter.topic]() if letter.topic in _KINDS else None
    if event is not None:
        try:
            event.ParseFromString(letter.value)
        except DecodeError:
            pass
        else:
            return text_format.MessageToString(event, as_utf8=True)
    return f"{len(letter.value)} bytes: {letter.value[:256]!r}"
