"""Events from a file onto the topics, over a broker's restart: sent again until acknowledged, counted once by id."""

import math
import time
from collections.abc import Iterable, Sequence

from kafka.errors import KafkaError

from feedback.connection import admin_client, read_cluster_id
from feedback.event import Event, Position
from feedback.producer import Producer
from feedback.topics import create_missing
from settings.feedback import FeedbackSettings

BATCH = 500
_ACK_TIMEOUT_S = 30.0


def send_import(settings: FeedbackSettings, batches: Iterable[Sequence[Event]], patience_s: float = 60.0) -> int:
    """Returns how many events the brokers refuse for good (too large); all others are acknowledged.

    Raises KafkaError: no broker answers at the start, or those that went away did not come back within `patience_s`.
    """
    producer = _connect(settings)
    acknowledged = refused = 0
    try:
        for batch in batches:
            deadline = math.inf
            while True:
                try:
                    outcomes = producer.send_all(batch, _ACK_TIMEOUT_S)
                    break
                except KafkaError as error:
                    producer.close()
                    deadline = min(deadline, time.monotonic() + patience_s)
                    producer = _connect_again(settings, deadline, acknowledged, error)
            taken = sum(isinstance(outcome, Position) for outcome in outcomes)
            acknowledged, refused = acknowledged + taken, refused + len(batch) - taken
    finally:
        producer.close()
    return refused


def _connect(settings: FeedbackSettings) -> Producer:
    admin = admin_client(settings)
    try:
        create_missing(admin, settings)
        return Producer(settings, read_cluster_id(admin))
    finally:
        admin.close()


def _connect_again(settings: FeedbackSettings, deadline: float, acknowledged: int, cause: KafkaError) -> Producer:
    while time.monotonic() < deadline:
        time.sleep(settings.reconnect_interval_s)
        try:
            return _connect(settings)
        except (KafkaError, OSError) as error:
            cause = error if isinstance(error, KafkaError) else cause
    raise KafkaError(
        f"the brokers went away after {acknowledged} events ({cause});"
        " import the file again once they are back: what has arrived counts once"
    )
