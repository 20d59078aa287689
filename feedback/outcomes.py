"""The server's side of what became of a feedback: an index over the outcomes topic, bounded in size."""

import asyncio
import logging
import threading
import time
from collections import OrderedDict

from google.protobuf.message import DecodeError
from kafka import KafkaConsumer
from kafka.admin import KafkaAdminClient
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError

from feedback.connection import admin_client, read_cluster_id
from feedback.consumer import open_consumer
from feedback.topics import OUTCOMES, create_missing
from foldback.v1 import events_pb2
from settings.feedback import FeedbackSettings

_CHECK_INTERVAL_S = 1.0

log = logging.getLogger(__name__)


class Outcomes:
    """The latest outcome of each recent feedback, told to its tenant alone. `start` returns at once, brokers or not."""

    def __init__(self, settings: FeedbackSettings) -> None:
        self._settings = settings
        self._outcomes: OrderedDict[tuple[str, str], events_pb2.FeedbackOutcome] = OrderedDict()
        """By (tenant, feedback_id): what is another's is not found, as what there is not."""
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    async def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="feedback-outcomes", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def lookup(self, tenant: str, feedback_id: str) -> events_pb2.FeedbackOutcome | None:
        """None: nothing is known yet, or no longer (older than `outcomes_capacity` others), or it is not `tenant`'s."""
        with self._lock:
            return self._outcomes.get((tenant, feedback_id))

    def add(self, tenant: str, outcome: events_pb2.FeedbackOutcome) -> None:
        """The later outcome counts; the first version that learned stays on record."""
        feedback = tenant, outcome.feedback_id
        with self._lock:
            known = self._outcomes.pop(feedback, None)
            if known is not None and known.policy_version:
                outcome.policy_version = known.policy_version
            self._outcomes[feedback] = outcome
            while len(self._outcomes) > self._settings.outcomes_capacity:
                self._outcomes.popitem(last=False)

    def _run(self) -> None:
        positions: dict[str, dict[tuple[str, int], int]] = {}
        while not self._stop.is_set():
            try:
                self._follow(positions)
            except (KafkaError, OSError) as error:
                log.debug("outcomes: %s; trying again", error)
                self._stop.wait(self._settings.reconnect_interval_s)

    def _follow(self, by_cluster: dict[str, dict[tuple[str, int], int]]) -> None:
        """Until it stops, or the brokers are replaced by others: positions belong to a cluster. Raises KafkaError."""
        admin = admin_client(self._settings)
        try:
            create_missing(admin, self._settings)
            cluster_id = read_cluster_id(admin)
            self._follow_cluster(admin, cluster_id, by_cluster.setdefault(cluster_id, {}))
        finally:
            admin.close()

    def _follow_cluster(self, admin: KafkaAdminClient, cluster_id: str, positions: dict[tuple[str, int], int]) -> None:
        consumer = open_consumer(self._settings, [OUTCOMES], positions)
        checked = time.monotonic()
        try:
            if not positions:
                self._skip_old(consumer)
            while not self._stop.is_set():
                if time.monotonic() - checked > _CHECK_INTERVAL_S:
                    if read_cluster_id(admin) != cluster_id:
                        return
                    checked = time.monotonic()
                for part, batch in consumer.poll(timeout_ms=self._settings.poll_interval_ms).items():
                    for record in batch:
                        self._add_record(record)
                    positions[part.topic, part.partition] = batch[-1].offset + 1
        finally:
            consumer.close()

    def _skip_old(self, consumer: KafkaConsumer) -> None:
        """Begin with what can still be remembered: a start takes no longer behind a longer topic."""
        parts = sorted(consumer.assignment())
        beginnings, ends = consumer.beginning_offsets(parts), consumer.end_offsets(parts)
        for part in parts:
            consumer.seek(part, max(beginnings[part], ends[part] - self._settings.outcomes_capacity))

    def _add_record(self, record: ConsumerRecord) -> None:
        tenant = dict(record.headers).get("ce_tenant", b"").decode(errors="replace")
        try:
            self.add(tenant, events_pb2.FeedbackOutcome.FromString(record.value or b""))
        except DecodeError as error:
            log.warning("an outcome cannot be read and is passed over: %s", error)
