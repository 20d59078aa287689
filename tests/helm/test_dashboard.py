"""The Grafana dashboard: fresh, drawn in Grafana's grid, and every query answered by a real Prometheus."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

from scripts.dashboard_panel import RATE
from scripts.document_metrics import server_rows, trainer_rows
from scripts.generate_dashboard import PAGE, WIDTH, dashboard
from tests.helm.chart import VALUES, named, render
from tests.helm.prometheus import Prometheus
from tests.helm.rules import alerts
from tests.helm.watching import FOLDBACKS, QUERIES


def test_the_file_is_fresh() -> None:
    assert json.loads(PAGE.read_text()) == dashboard(), "run 'python -m scripts.generate_dashboard' and commit"


def test_panels_fill_the_grid_without_overlap() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        taken = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}  # fmt: skip
        assert not taken & cells, panel["title"]
        assert place["x"] + place["w"] <= WIDTH
        cells |= taken
    ids = [panel["id"] for panel in dashboard()["panels"]]
    assert len(set(ids)) == len(ids)


def test_every_metric_of_ours_is_on_it() -> None:
    """What is worth measuring is worth a look."""
    shown = " ".join(QUERIES.values())
    known = {row.name for row in (*server_rows(), *trainer_rows())}
    used = {re.sub("_(bucket|sum|count)$", "", name) for name in re.findall(r"foldback_\w+", shown)}
    assert used <= known
    assert known - used == {
        "foldback_consumer_lag_seconds",
        "foldback_events_consumed_total",
        "foldback_policy_versions_published_total",
        "foldback_ppo_dropped_rollouts_total",
        "foldback_ppo_iterations_total",
        "foldback_reward_model_source_accuracy_ratio",
    }, "on the dashboard or on this list: these say again what others show"


def test_vllm_knows_the_metrics_named_after_it() -> None:
    found = importlib.util.find_spec("vllm")
    if found is None or found.origin is None:
        pytest.skip("vLLM is not installed here")
    source = "".join(file.read_text() for file in (Path(found.origin).parent / "v1/metrics").glob("*.py"))
    names = set(re.findall(r"vllm:\w+", " ".join(QUERIES.values())))
    assert names
    for name in names:
        assert f'"{name.removesuffix("_total")}"' in source, name


def test_the_chart_carries_it() -> None:
    config = named(render(VALUES["kafka-sasl"]), "ConfigMap", "prod-foldback-dashboards")
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    carried: dict[str, Any] = json.loads(config["data"]["foldback.json"])
    assert carried == dashboard(), "Helm must leave Grafana's braces alone"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_query_is_answered(watched: Prometheus) -> None:
    for name, expression in QUERIES.items():
        samples = watched.query(expression.replace(RATE, "1m"))
        if name in FOLDBACKS:
            assert samples, name
    [share] = watched.query(QUERIES["Users' calls that did not fail, last hour: 0"])
    assert float(share["value"][1]) == 1.0
    stages = watched.query(QUERIES["Funnel: {{stage}}"])
    assert {sample["metric"]["stage"] for sample in stages} > {"accepted", "joined", "learned"}


FAULTS = re.compile('lost_total|result!="served"|code=~')
"""Selectors of what need not have happened in a Foldback that is well."""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_the_rules_select_exists(watched: Prometheus) -> None:
    """A label that no series has would keep an alert silent for ever."""
    for alert in alerts():
        for selector in re.findall(r"foldback_\w+(?:\{[^}]*\})?", alert["expr"]):
            assert FAULTS.search(selector) or watched.query(selector), f"{alert['alert']}: {selector}"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_rules_load_and_nothing_fires_in_a_healthy_foldback(watched: Prometheus) -> None:
    groups = watched.get("/api/v1/rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {rule["name"] for rule in rules if rule["type"] == "alerting"} == {alert["alert"] for alert in alerts()}
    assert {rule["name"]: rule["lastError"] for rule in rules if rule["health"] == "err"} == {}
    # A policy of random weights may well displease; that is no fault.
    firing = {rule["name"] for rule in rules if rule.get("state") == "firing"}
    assert firing <= {"FoldbackCanaryRolledBack"}
