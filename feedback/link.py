"""The link to the brokers: one thread that connects, drains the spool in order, and connects anew when it must.

While events wait in the spool, `producer` is None and new events go behind them: order within a key is the order of
the answers. A batch that fails is sent again as a whole, so a record can arrive twice, never out of order.
"""

import logging
import threading

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from feedback.connection import admin_client, read_cluster_id
from feedback.embedded_broker import is_volatile
from feedback.event import Position
from feedback.producer import Producer
from feedback.spool import Spool
from feedback.topic_alter import find_differences
from feedback.topics import create_missing, joiner_group
from settings.feedback import FeedbackSettings

_DRAIN_BATCH = 500
_CHECK_INTERVAL_S = 1.0

log = logging.getLogger(__name__)


class Link:
    def __init__(self, settings: FeedbackSettings, spool: Spool | None) -> None:
        self._settings = settings
        self._spool = spool
        self._admin: KafkaAdminClient | None = None
        self._producer: Producer | None = None
        self._wake = threading.Event()
        self._stopping = False
        self._checked: set[str] = set()
        """Clusters whose topics have been looked at."""
        self._said = ""
        """Why there is no connection, as it was last logged; attempts go on twice a second."""
        self.first_attempt = threading.Event()
        """Set once the brokers were reached, or found away."""
        self._thread = threading.Thread(target=self._run, name="feedback-link", daemon=True)
        self._thread.start()

    @property
    def producer(self) -> Producer | None:
        """For events that may go straight to the brokers; None while they are away or the spool drains."""
        return None if self._spool and self._spool.unsent else self._producer

    @property
    def connected(self) -> bool:
        return self._producer is not None

    def keeps(self, producer: Producer) -> bool:
        """Whether events sent over it stay in the spool until they are read."""
        if self._spool is None or self._settings.keep_until_read == "never":
            return False
        return self._settings.keep_until_read == "always" or is_volatile(producer.cluster_id)

    def lost(self, producer: Producer, error: BaseException) -> None:
        """A send over `producer` failed: have a new one made."""
        if producer is self._producer:
            log.warning("brokers at %s: %s; spooling", self._settings.bootstrap_servers, error)
            self._producer = None
            producer.close()
            self._wake.set()

    def wake(self) -> None:
        """There is something to drain."""
        self._wake.set()

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping:
            self._wake.clear()
            try:
                producer = self._producer or self._connect()
                self._drain(producer)
                self._check(producer)
                idle_s = _CHECK_INTERVAL_S
            except Exception as error:  # whatever it was: the spool holds the events, so try anew
                self._disconnect(error)
                idle_s = self._settings.reconnect_interval_s
            self.first_attempt.set()
            self._wake.wait(idle_s)
        self._disconnect(None)

    def _connect(self) -> Producer:
        self._admin = admin_client(self._settings)
        create_missing(self._admin, self._settings)
        cluster_id = read_cluster_id(self._admin)
        self._check_topics(self._admin, cluster_id)
        producer = Producer(self._settings, cluster_id)
        if self._spool is not None and (again := self._spool.unsend_elsewhere(cluster_id)):
            log.info("the brokers are a new cluster; sending %d unread events again", again)
        self._producer = producer
        self._said = ""
        log.info("connected to brokers at %s, cluster %s", self._settings.bootstrap_servers, cluster_id)
        return producer

    def _check_topics(self, admin: KafkaAdminClient, cluster_id: str) -> None:
        """Say once a cluster what is not as wanted; it keeps nothing from being logged."""
        if cluster_id in self._checked:
            return
        self._checked.add(cluster_id)
        try:
            differences = find_differences(admin, self._settings)
        except KafkaError as error:  # a client may be allowed to write and not to look
            log.info("the topics cannot be checked: %s", error)
            return
        for difference in differences:
            log.warning("%s: %s; 'foldback topics apply' alters what can be", difference.topic, difference)

    def _disconnect(self, error: BaseException | None) -> None:
        if error is not None and str(error) != self._said:
            self._said = str(error)
            log.warning("brokers at %s: %s; spooling", self._settings.bootstrap_servers, error)
        if self._producer is not None:
            self._producer.close()
            self._producer = None
        if self._admin is not None:
            self._admin.close()
            self._admin = None

    def _drain(self, producer: Producer) -> None:
        """Send what waits, oldest first. Raises KafkaError; a batch that raised is sent again as a whole."""
        spool = self._spool
        while spool is not None and not self._stopping and (batch := spool.next_unsent(_DRAIN_BATCH)):
            outcomes = producer.send_all([spooled.event for spooled in batch], self._settings.ack_timeout_s + 1.0)
            sent: list[tuple[int, Position]] = []
            for spooled, outcome in zip(batch, outcomes, strict=True):
                if isinstance(outcome, Position):
                    sent.append((spooled.sequence, outcome))
                else:
                    log.error("spooled event %d is refused by the brokers for good: %s", spooled.sequence, outcome)
                    spool.mark_refused(spooled.sequence, str(outcome))
            spool.mark_sent(producer.cluster_id, sent, keep=self.keeps(producer))

    def _check(self, producer: Producer) -> None:
        """Are these still the same brokers, and what has the trainer read? Raises KafkaError."""
        assert self._admin is not None
        cluster_id = read_cluster_id(self._admin)
        if cluster_id != producer.cluster_id:
            raise KafkaError(f"cluster {producer.cluster_id} was replaced by {cluster_id}")
        if self._spool is not None and self.keeps(producer):
            group = joiner_group(cluster_id)
            read = self._admin.list_group_offsets({group: None}).get(group, {})
            self._spool.forget_read(
                cluster_id, {(part.topic, part.partition): place.offset for part, place in read.items()}
            )
