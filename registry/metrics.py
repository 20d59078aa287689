"""Whether the registry answers, for Prometheus."""

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from registry.registry import Registry


class RegistryCollector(Collector):
    """Asks nothing itself: whoever follows the registry looks often enough."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "foldback_registry_up",
            "1 while the registry answers; 0: it is out of reach, and what is served goes on.",
            value=float(self._registry.reachable),
        )
