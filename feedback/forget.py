"""A rater asks to be forgotten: the request goes onto the erasures topic, confirmed once the store has obeyed."""

import sqlite3
import time
import uuid
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from feedback.connection import admin_client, read_cluster_id
from feedback.database import open_reader
from feedback.erasure import ERASURE_TYPE
from feedback.event import Event, Position, envelope
from feedback.producer import Producer
from feedback.topics import ERASURES, ensure_topics, joiner_group
from foldback.v1 import events_pb2
from settings.feedback import FeedbackSettings

_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a preference store holds of a rater."""

    feedback: int
    responses: int


@dataclass(frozen=True, slots=True)
class Forgotten:
    request_time: float
    """Unix seconds: what the rater does after it is not touched."""
    confirmed: bool
    """The preference store has obeyed (the joiner committed past the request)."""


def forget(settings: FeedbackSettings, tenant: str, rater_id: str, timeout_s: float) -> Forgotten:
    """Ask for it, durably, and wait for the joiner up to `timeout_s`. Raises KafkaError: nothing was asked."""
    ensure_topics(settings)
    admin = admin_client(settings)
    try:
        cluster_id = read_cluster_id(admin)
        request_time, position = _request(settings, cluster_id, tenant, rater_id)
        group = joiner_group(cluster_id)
        deadline = time.monotonic() + timeout_s
        while True:
            for part, place in admin.list_group_offsets({group: None}).get(group, {}).items():
                if (part.topic, part.partition) == (ERASURES, position.partition) and place.offset > position.offset:
                    return Forgotten(request_time, True)
            if time.monotonic() > deadline:
                return Forgotten(request_time, False)
            time.sleep(_POLL_S)
    finally:
        admin.close()


def holdings(path: Path, tenant: str, rater_id: str) -> Holdings | None:
    """None where there is no store at `path`."""
    if not path.exists():
        return None
    with closing(open_reader(path)) as db:
        return Holdings(*(_count(db, table, tenant, rater_id) for table in ("feedback", "responses")))


def _count(db: sqlite3.Connection, table: str, tenant: str, rater_id: str) -> int:
    query = f"SELECT count(*) FROM {table} WHERE tenant = ? AND rater_id = ?"
    return int(db.execute(query, (tenant, rater_id)).fetchone()[0])


def _request(settings: FeedbackSettings, cluster_id: str, tenant: str, rater_id: str) -> tuple[float, Position]:
    now = time.time()
    request = events_pb2.ErasureRequested(tenant=tenant, rater_id=rater_id)
    request.request_time.FromNanoseconds(int(now * 1e9))
    headers = envelope(event_id=str(uuid.uuid4()), type=ERASURE_TYPE, tenant=tenant)
    # The topic is compacted, and raters of two tenants may share a name.
    event = Event(ERASURES, f"{tenant}/{rater_id}".encode(), request.SerializeToString(), headers)
    producer = Producer(settings, cluster_id)
    try:
        [outcome] = producer.send_all([event], settings.ack_timeout_s + 1.0)
    finally:
        producer.close()
    if not isinstance(outcome, Position):
        raise outcome
    return now, outcome
