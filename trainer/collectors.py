"""What the trainer knows of the events, read when Prometheus asks: a turn of the loop may last minutes."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from feedback.joiner import Joiner
from feedback.store import PreferenceStore
from foldback.v1 import events_pb2

RECENT = 1000
"""Judgements over which the weight of one rater is told."""


class JoinerCollector(Collector):
    def __init__(self, joiner: Joiner) -> None:
        self._joiner = joiner

    def collect(self) -> Iterator[Metric]:
        state = self._joiner.state
        consumed = CounterMetricFamily("foldback_events_consumed", "Events that were joined.", labels=["topic"])
        lag = GaugeMetricFamily("foldback_consumer_lag_records", "Events not read yet.", labels=["topic"])
        lag_seconds = GaugeMetricFamily(
            "foldback_consumer_lag_seconds", "Age of the newest event read, where more wait.", labels=["topic"]
        )
        for topic, count in list(state.consumed.items()):
            consumed.add_metric([topic], count)
        for topic, records in list(state.lag_records.items()):
            lag.add_metric([topic], records)
        for topic, seconds in list(state.lag_seconds.items()):
            lag_seconds.add_metric([topic], seconds)
        yield consumed
        yield lag
        yield lag_seconds
        yield GaugeMetricFamily(
            "foldback_broker_connected", "1 while brokers answer the joiner.", value=float(state.connected)
        )


class StoreCollector(Collector):
    """Counts of the preference store, which outlive the process."""

    def __init__(self, store: PreferenceStore) -> None:
        self._store = store

    def collect(self) -> Iterator[Metric]:
        funnel = GaugeMetricFamily(
            "foldback_feedback_funnel", "Events of the preference store by stage.", labels=["stage"]
        )
        for stage, count in self._store.funnel().items():
            funnel.add_metric([stage], count)
        yield funnel
        dead = CounterMetricFamily("foldback_dead_letters", "Events that could not be used, by why.", labels=["reason"])
        for reason, count in self._store.dead_letters().items():
            name = events_pb2.DeadLetterReason.Name(reason)
            dead.add_metric([name.removeprefix("DEAD_LETTER_REASON_").lower()], count)
        yield dead
        raters = self._store.raters(RECENT)
        yield GaugeMetricFamily(
            "foldback_raters", f"Raters of the latest {RECENT} judgements that count.", value=len(raters)
        )
        yield GaugeMetricFamily(
            "foldback_rater_largest_share_ratio",
            "Share of these judgements that came from the busiest rater.",
            value=max(raters) / sum(raters) if raters else 0,
        )
