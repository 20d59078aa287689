"""What the dashboard asks, and a Prometheus beside a Foldback in use that has answers to it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.dashboard_panel import RATE
from scripts.dashboard_panels import ROWS, SWAPS
from tests.helm.prometheus import Prometheus, prometheus
from tests.helm.rules import RULES
from tests.integration.live import users
from tests.integration.stack import Stack

QUERIES = {
    f"{panel.title}: {legend or number}": expression
    for panels in ROWS.values()
    for panel in panels
    for number, (legend, expression) in enumerate(panel.queries.items())
} | {"Swaps (annotation)": SWAPS}
FOLDBACKS = {name: expression for name, expression in QUERIES.items() if "vllm:" not in expression}
WAIT_S = 120


@contextmanager
def watching(stack: Stack, folder: Path) -> Iterator[Prometheus]:
    """Prometheus with the rules, after users made the stack do what every query of ours asks for."""
    jobs = {
        "foldback-server": f"127.0.0.1:{stack.ports['SERVER__METRICS_PORT']}",
        "foldback-trainer": f"127.0.0.1:{stack.ports['TRAINER__METRICS_PORT']}",
    }
    with prometheus(folder, jobs, RULES) as running:
        with users(stack):
            deadline = time.monotonic() + WAIT_S
            while running.scrapes() < 8 or _unanswered(running):
                assert time.monotonic() < deadline, _unanswered(running)
                time.sleep(1)
        yield running


def _unanswered(running: Prometheus) -> list[str]:
    return [name for name, expression in FOLDBACKS.items() if not running.query(expression.replace(RATE, "30s"))]
