"""The event log's own counts, read when Prometheus asks."""

import time
from collections.abc import Iterator
from functools import cache

from prometheus_client import Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from feedback.eventlog import EventLog

EVENT_ACK_DURATION = Histogram(
    "foldback_event_ack_duration_seconds",
    "From sending an event, or a batch, to the brokers' acknowledgement.",
    ["topic"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)


_of_topic = cache(EVENT_ACK_DURATION.labels)  # looking one up by its label costs more than observing


def observe_ack(topic: str, seconds: float) -> None:
    _of_topic(topic).observe(seconds)


class EventLogCollector(Collector):
    def __init__(self, log: EventLog, spool_max_bytes: int) -> None:
        self._log = log
        self._spool_max_bytes = spool_max_bytes

    def collect(self) -> Iterator[Metric]:
        state = self._log.state()
        produced = CounterMetricFamily("foldback_events_produced", "Events made durable.", labels=["topic", "result"])
        for (topic, result), count in state.produced.items():
            produced.add_metric([topic, result], count)
        yield produced
        lost = CounterMetricFamily("foldback_events_lost", "Response events given up.", labels=["reason"])
        for reason, count in state.lost.items():
            lost.add_metric([reason], count)
        yield lost
        yield GaugeMetricFamily("foldback_broker_connected", "1 while brokers answer.", value=state.connected)
        if state.spool is None:
            return
        oldest = state.spool.oldest_unsent_time
        yield GaugeMetricFamily("foldback_spool_events", "Events waiting for the brokers.", value=state.spool.unsent)
        yield GaugeMetricFamily("foldback_spool_bytes", "What the spool holds.", value=state.spool.bytes)
        yield GaugeMetricFamily(
            "foldback_spool_bound_bytes",
            "Where it refuses feedback: feedback.spool_max_bytes.",
            value=self._spool_max_bytes,
        )
        yield GaugeMetricFamily(
            "foldback_spool_oldest_age_seconds",
            "Age of the oldest event that waits.",
            value=max(0.0, time.time() - oldest) if oldest else 0,
        )
