"""How full the volume is that holds what must not be lost, for Prometheus."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class DiskCollector(Collector):
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterator[Metric]:
        usage = shutil.disk_usage(self._directory)
        yield GaugeMetricFamily(
            "foldback_disk_size_bytes", "Size of the volume that holds data_dir.", value=usage.total
        )
        yield GaugeMetricFamily("foldback_disk_free_bytes", "Free space of that volume.", value=usage.free)
