"""The joiner: reads responses, feedback and erasures into the preference store, and tells what became of them.

It trusts no committed offset but the store's own. What it commits to Kafka is for others to see: lag for operators,
read receipts for the servers' spools.
"""

import logging
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata

from feedback.connection import admin_client, read_cluster_id
from feedback.consumer import open_consumer
from feedback.event import Event, envelope
from feedback.producer import Producer
from feedback.record import REPLAY_HEADER, Record
from feedback.store import PreferenceStore
from feedback.topics import ERASURES, FEEDBACK, RESPONSES, create_missing, joiner_group
from settings.feedback import FeedbackSettings

_CHECK_INTERVAL_S = 1.0

log = logging.getLogger(__name__)


@dataclass(slots=True)
class JoinerState:
    """For metrics. Counts are of this process, by topic."""

    connected: bool = False
    consumed: Counter[str] = field(default_factory=Counter)
    lag_records: dict[str, int] = field(default_factory=dict)
    lag_seconds: dict[str, float] = field(default_factory=dict)
    """Age of the newest record read, where more wait; 0 where all is read."""


class Joiner:
    def __init__(self, settings: FeedbackSettings, store: PreferenceStore) -> None:
        self._settings = settings
        self._store = store
        self.state = JoinerState()

    def run(self, stop: threading.Event) -> None:
        """Join until `stop` is set; brokers that are away are tried again. For a thread of its own."""
        said = ""
        while not stop.is_set():
            try:
                with _Session(self._settings, self._store, self.state) as session:
                    said = ""
                    while not stop.is_set():
                        session.step()
            except (KafkaError, OSError) as error:
                if str(error) != said:
                    log.warning("joiner: brokers at %s: %s; trying again", self._settings.bootstrap_servers, error)
                said = str(error)
            except Exception:  # nothing may end the joiner unseen: feedback would pile up behind it
                log.exception("joiner: starting again from what is stored")
            stop.wait(self._settings.reconnect_interval_s)


class _Session:
    """One connection to one cluster."""

    def __init__(self, settings: FeedbackSettings, store: PreferenceStore, state: JoinerState) -> None:
        self._settings = settings
        self._store = store
        self._state = state
        self._admin: KafkaAdminClient | None = None
        self._consumer: KafkaConsumer | None = None
        self._producer: Producer | None = None
        self._check_time = 0.0
        self._committed: dict[tuple[str, int], int] = {}
        self._read_time: dict[str, float] = {}

    def __enter__(self) -> "_Session":
        """Raises KafkaError."""
        try:
            self._admin = admin_client(self._settings)
            create_missing(self._admin, self._settings)
            self._cluster_id: str = read_cluster_id(self._admin)
            self._consumer = open_consumer(
                self._settings,
                (ERASURES, RESPONSES, FEEDBACK),
                self._store.offsets(self._cluster_id),
                group=joiner_group(self._cluster_id),
            )
            self._producer = Producer(self._settings, self._cluster_id)
        except BaseException:
            self.__exit__()
            raise
        self._state.connected = True
        if self._store.meet_cluster(self._cluster_id):
            log.info("the brokers are a new cluster; telling again what became of recent feedback")
        return self

    def __exit__(self, *_: object) -> None:
        self._state.connected = False
        if self._consumer is not None:
            self._consumer.close()
        if self._producer is not None:
            self._producer.close()
        if self._admin is not None:
            self._admin.close()

    def step(self) -> None:
        """Read a batch, store it, emit what follows from it. Raises KafkaError."""
        assert self._consumer is not None
        batches = self._consumer.poll(timeout_ms=self._settings.poll_interval_ms)
        if batches:
            records = [_record(record) for batch in batches.values() for record in batch]
            offsets = {(part.topic, part.partition): batch[-1].offset + 1 for part, batch in batches.items()}
            self._store.ingest(records, self._cluster_id, offsets)
            for part, batch in batches.items():
                self._state.consumed[part.topic] += len(batch)
                self._read_time[part.topic] = batch[-1].timestamp / 1000
        self._emit_outbox()
        if time.monotonic() - self._check_time > _CHECK_INTERVAL_S:
            self._check()
            self._check_time = time.monotonic()

    def _emit_outbox(self) -> None:
        """At least once: an entry is cleared after the brokers have it, and its id does not change."""
        assert self._producer is not None
        while entries := self._store.outbox(self._settings.join_batch):
            events = [
                Event(
                    entry.topic,
                    entry.key,
                    entry.value,
                    envelope(event_id=entry.event_id, type=entry.type, tenant=entry.tenant),
                )
                for entry in entries
            ]
            self._producer.send_all(events, self._settings.ack_timeout_s + 1.0)
            self._store.clear_outbox(entries[-1].id)

    def _check(self) -> None:
        assert self._admin is not None
        cluster_id = read_cluster_id(self._admin)
        if cluster_id != self._cluster_id:
            raise KafkaError(f"cluster {self._cluster_id} was replaced by {cluster_id}")
        self._store.expire_waiting(self._settings.response_horizon_s)
        self._commit()
        self._measure_lag()

    def _commit(self) -> None:
        assert self._consumer is not None
        stored = self._store.offsets(self._cluster_id)
        if stored != self._committed:
            self._consumer.commit(
                {TopicPartition(*part): OffsetAndMetadata(offset, "", -1) for part, offset in stored.items()}
            )
            self._committed = stored

    def _measure_lag(self) -> None:
        assert self._consumer is not None
        lag: Counter[str] = Counter()
        for part in self._consumer.assignment():
            highwater = self._consumer.highwater(part)
            read = self._committed.get((part.topic, part.partition), 0)
            lag[part.topic] += max(0, highwater - read) if highwater is not None else 0
        self._state.lag_records = dict(lag)
        self._state.lag_seconds = {
            topic: max(0.0, time.time() - self._read_time.get(topic, time.time())) if waiting else 0.0
            for topic, waiting in lag.items()
        }


def _record(record: ConsumerRecord) -> Record:
    headers = dict(record.headers)
    return Record(
        record.topic,
        record.partition,
        record.offset,
        record.key or b"",
        record.value or b"",
        headers.get("ce_type", b"").decode(errors="replace"),
        REPLAY_HEADER in headers,
    )
