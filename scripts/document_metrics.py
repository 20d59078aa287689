"""Writes docs/metrics.md from the metrics that server and trainer define. `--check` says whether it is fresh."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import cast

from prometheus_client import Counter
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector

import server.log_metrics
import server.metrics
import trainer.metrics
from feedback.disk import DiskCollector
from feedback.eventlog import EventLog, EventLogState
from feedback.joiner import Joiner, JoinerState
from feedback.spool import SpoolState
from feedback.store import PreferenceStore
from registry import Registry
from registry.metrics import RegistryCollector
from server.log_metrics import EventLogCollector
from trainer.collectors import JoinerCollector, StoreCollector

PAGE = Path(__file__).parents[1] / "docs/metrics.md"

INTRODUCTION = """\
# Metrics

Prometheus text: the server's on port 9464, the trainer's on 9465. Units are base units and stand in the names. No label
holds a version, a conversation or a user, `foldback_policy_info` alone excepted. vLLM's own `vllm:*` metrics stand
beside the server's.

Made by `python scripts/document_metrics.py` from the code; a test keeps it fresh.
"""


@dataclass(frozen=True, order=True)
class Row:
    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


def of_module(module: ModuleType) -> Iterator[Row]:
    """Metrics held by a module's variables."""
    for value in vars(module).values():
        if isinstance(value, MetricWrapperBase):
            [metric] = value.describe()
            suffix = "_total" if isinstance(value, Counter) else ""
            yield Row(metric.name + suffix, metric.type, tuple(value._labelnames), metric.documentation)


def of_collector(collector: Collector) -> Iterator[Row]:
    """Metrics that are read when Prometheus asks."""
    for family in collector.collect():
        suffix = "_total" if family.type == "counter" else ""
        yield Row(family.name + suffix, family.type, tuple(getattr(family, "_labelnames", ())), family.documentation)


def server_rows() -> list[Row]:
    idle = EventLogState(connected=True, produced={}, lost={}, spool=SpoolState(0, 0, 0, 0, None))
    event_log = EventLogCollector(cast(EventLog, SimpleNamespace(state=lambda: idle)), 0)
    return sorted(
        [*of_module(server.metrics), *of_module(server.log_metrics), *of_collector(event_log), *rows_of_both()]
    )


def trainer_rows() -> list[Row]:
    joiner = JoinerCollector(cast(Joiner, SimpleNamespace(state=JoinerState())))
    empty = SimpleNamespace(funnel=dict, dead_letters=dict, raters=lambda _: [])
    store = StoreCollector(cast(PreferenceStore, empty))
    return sorted([*of_module(trainer.metrics), *of_collector(joiner), *of_collector(store), *rows_of_both()])


def rows_of_both() -> list[Row]:
    """Metrics that server and trainer share."""
    registry = RegistryCollector(cast(Registry, SimpleNamespace(reachable=True)))
    return [*of_collector(registry), *of_collector(DiskCollector(Path()))]


def page() -> str:
    sections = [("Server", server_rows()), ("Trainer", trainer_rows())]
    return INTRODUCTION + "".join(f"\n## {title}\n\n{_table(rows)}" for title, rows in sections)


def _table(rows: list[Row]) -> str:
    lines = ["| name | type | labels | meaning |", "|---|---|---|---|"]
    for row in rows:
        labels = ", ".join(f"`{label}`" for label in row.labels) or "–"
        lines.append(f"| `{row.name}` | {row.kind} | {labels} | {row.meaning} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    fresh = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(fresh)
    elif not PAGE.is_file() or PAGE.read_text() != fresh:
        print(f"stale: docs/{PAGE.name}; run 'python scripts/document_metrics.py' and commit", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
