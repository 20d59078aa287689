"""Dead letters put back on the topic they came from, once their cause is mended."""

from collections import Counter
from collections.abc import Iterable

from feedback.dlq import StoredLetter
from feedback.erasure import ERASURE_TYPE
from feedback.event import Event, Position, envelope
from feedback.producer import Producer
from feedback.record import REPLAY_HEADER
from feedback.response import RESPONSE_TYPE
from feedback.submission import FEEDBACK_TYPE
from feedback.topics import ERASURES, FEEDBACK, RESPONSES

_TYPES = {FEEDBACK: FEEDBACK_TYPE, RESPONSES: RESPONSE_TYPE, ERASURES: ERASURE_TYPE}
_BATCH = 500
_TIMEOUT_S = 30.0


class NotReplayable(ValueError):
    """The letter does not hold the event (left out for its size or for want of consent), or is of no known topic."""


def replay(producer: Producer, letters: Iterable[StoredLetter]) -> Counter[str]:
    """Send each again, marked as a replay: the joiner then gives a dead feedback another chance.

    Returns counts of "replayed", "left out" (NotReplayable) and "refused" (by the brokers). Raises KafkaError: then any
    of them may have been sent; to replay one twice is harmless.
    """
    counts: Counter[str] = Counter()
    events: list[Event] = []
    for stored in letters:
        try:
            events.append(event_of(stored))
        except NotReplayable:
            counts["left out"] += 1
    for start in range(0, len(events), _BATCH):
        for outcome in producer.send_all(events[start : start + _BATCH], _TIMEOUT_S):
            counts["replayed" if isinstance(outcome, Position) else "refused"] += 1
    return counts


def summary(stored: StoredLetter) -> dict[str, object]:
    """A letter in a line of JSON, without the event that it holds."""
    letter = stored.letter
    try:
        event_of(stored)
    except NotReplayable:
        replayable = False
    else:
        replayable = True
    return {
        "reference": f"{stored.partition}:{stored.offset}",
        "time": letter.time.ToJsonString(),
        "reason": stored.reason,
        "detail": letter.detail,
        "origin": f"{letter.topic}/{letter.partition}/{letter.offset}",
        "feedback_id": letter.feedback_id,
        "replayable": replayable,
    }


def event_of(stored: StoredLetter) -> Event:
    """The event as it was, with this release's type. Raises NotReplayable."""
    letter = stored.letter
    reference = f"{stored.partition}:{stored.offset}"
    if letter.topic not in _TYPES:
        raise NotReplayable(f"{reference}: it came from {letter.topic!r}, which the joiner does not read")
    if not letter.value:
        raise NotReplayable(f"{reference}: the event itself was left out of the letter ({stored.reason})")
    headers = envelope(
        event_id=letter.feedback_id or reference, type=_TYPES[letter.topic], tenant="", extra={REPLAY_HEADER: reference}
    )
    return Event(letter.topic, letter.key, letter.value, headers)
