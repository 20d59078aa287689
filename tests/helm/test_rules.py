"""The alerts: promtool finds them right, each fires and stays silent in a case of its own, and has a runbook."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.document_metrics import server_rows, trainer_rows
from tests.helm.chart import CHART, VALUES, of_kind, render
from tests.helm.prometheus import tool
from tests.helm.rules import RULES, alerts

ROOT = CHART.parents[1]
CASES = sorted((Path(__file__).parent / "rules").glob("*.test.yaml"))


@pytest.fixture(scope="module")
def promtool() -> str:
    return tool("promtool")


def test_rules_are_well_formed(promtool: str) -> None:
    done = subprocess.run([promtool, "check", "rules", *RULES], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_alerts_fire_and_stay_silent_as_they_should(promtool: str, case: Path, tmp_path: Path) -> None:
    for file in (*RULES, case):
        shutil.copy(file, tmp_path)
    done = subprocess.run([promtool, "test", "rules", case.name], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_firing_and_a_silent_case() -> None:
    expected: dict[str, set[bool]] = {alert["alert"]: set() for alert in alerts()}
    for file in CASES:
        for test in yaml.safe_load(file.read_text())["tests"]:
            for case in test["alert_rule_test"]:
                expected[case["alertname"]].add(bool(case["exp_alerts"]))
    assert expected
    assert {name for name, seen in expected.items() if seen != {True, False}} == set()


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_alert_tells_who_is_woken_what_to_do(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in {"page", "ticket"}
    annotations = alert["annotations"]
    assert annotations["summary"]
    assert annotations["description"]
    page, anchor = annotations["runbook"].split("#")
    titles = re.findall(r"^## (.+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert anchor in {title.lower().replace(" ", "-") for title in titles}


def test_rules_speak_of_metrics_that_exist() -> None:
    known = {row.name for row in (*server_rows(), *trainer_rows())}
    used = {name for file in RULES for name in re.findall(r"\bfoldback_\w+", file.read_text())}
    assert used
    assert used <= known


def test_the_chart_carries_every_rule() -> None:
    [rule] = of_kind(render(VALUES["kafka-sasl"]), "PrometheusRule")
    rendered = [one["alert"] for group in rule["spec"]["groups"] for one in group["rules"] if "alert" in one]
    assert rendered == [alert["alert"] for alert in alerts()]
    assert "{{ $value | humanizePercentage }}" in str(rule), "Prometheus fills these in, Helm must not"
