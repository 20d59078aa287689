"""Faults in a running Foldback fire their alerts in a real Prometheus, and the alerts clear when it is well again.

Only the waiting is shortened: each `for:` of the rules is three seconds here.
"""

import time
from pathlib import Path

import pytest
import yaml

from feedback.embedded_broker import EmbeddedBroker
from tests.helm.prometheus import Prometheus, prometheus
from tests.helm.rules import RULES
from tests.integration.stack import Stack

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
PATIENCE_S = 3
WAIT_S = 60
GONE = {"FoldbackTrainerGone", "FoldbackNothingServes"}


@pytest.fixture
def impatient_rules(tmp_path: Path) -> list[Path]:
    written = []
    for file in RULES:
        rules = yaml.safe_load(file.read_text())
        for rule in (rule for group in rules["groups"] for rule in group["rules"] if "for" in rule):
            rule["for"] = f"{PATIENCE_S}s"
        written.append(tmp_path / file.name)
        written[-1].write_text(yaml.safe_dump(rules))
    return written


def firing(running: Prometheus) -> set[str]:
    return {sample["metric"]["alertname"] for sample in running.query('ALERTS{alertstate="firing"}')}


def wait_for(running: Prometheus, expected: set[str]) -> None:
    deadline = time.monotonic() + WAIT_S
    while firing(running) != expected:
        assert time.monotonic() < deadline, f"{firing(running)} fire, not {expected}"
        time.sleep(0.5)


def test_broker_server_and_trainer_gone_and_back(tiny_model: Path, tmp_path: Path, impatient_rules: list[Path]) -> None:
    with EmbeddedBroker() as broker:
        kafka = {"FOLDBACK_FEEDBACK__BOOTSTRAP_SERVERS": broker.bootstrap_servers}
        stack = Stack(tmp_path / "data", tiny_model, "transformers", **kafka)
        jobs = {name: f"127.0.0.1:{stack.ports[f'{name.upper()}__METRICS_PORT']}" for name in ("server", "trainer")}
        stack.start()
        try:
            with prometheus(tmp_path, jobs, impatient_rules) as running:
                time.sleep(PATIENCE_S + 1)
                wait_for(running, set())
                broker.stop()
                wait_for(running, {"FoldbackBrokerAway"})
                told = running.query('ALERTS{alertname="FoldbackBrokerAway"}')
                assert {sample["metric"]["job"] for sample in told} == {"server", "trainer"}
                broker.start()
                wait_for(running, set())
                assert stack.stop() == 0
                wait_for(running, GONE)
                stack.start()
                wait_for(running, set())
        finally:
            stack.stop()
