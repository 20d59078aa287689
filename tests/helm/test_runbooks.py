"""The runbooks: one section an alert, of one shape, and every query and command in them works on a running Foldback."""

import os
import re
import subprocess

import pytest

from scripts.document_metrics import server_rows, trainer_rows
from tests.helm.chart import CHART
from tests.helm.prometheus import Prometheus
from tests.helm.rules import RULES, alerts
from tests.integration.stack import Stack
from tests.repository.files import ROOT, TOOLS

PAGE = (CHART.parents[1] / "docs/runbooks.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+)\n((?:(?!## ).*\n?)*)", PAGE, re.MULTILINE))
QUERIES = [line for block in re.findall(r"^```promql\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
           for line in block.splitlines()]  # fmt: skip
COMMANDS = re.findall(r"^```sh\n# needs a running Foldback\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
RARE = re.compile("code=~|!=|events_lost|dead_letters|failed_checks|increase1d")
"""What has no data while nothing fails, or in the first hour."""
PARTS = ("**Means:**", "**Look:**", "**Do:**", "**Over when**")
SEVERITIES = {"page": "**Page**", "ticket": "**Ticket**"}


@pytest.mark.parametrize("title", SECTIONS)
def test_a_section_says_what_it_means_where_to_look_what_to_do_and_when_it_is_over(title: str) -> None:
    places = [SECTIONS[title].find(part) for part in PARTS]
    assert -1 not in places, f"{title}: one of {PARTS} is missing"
    assert places == sorted(places), f"{title}: not in the order {PARTS}"
    assert "```promql" in SECTIONS[title], f"{title}: no query to look with"


def test_every_alert_is_named_in_its_section_with_its_severity() -> None:
    anchors = {title.lower().replace(" ", "-"): text for title, text in SECTIONS.items()}
    named = {
        anchor: set(re.findall(r"`(Foldback\w+)`", text.strip().splitlines()[0])) for anchor, text in anchors.items()
    }
    expected: dict[str, set[str]] = {}
    for alert in alerts():
        anchor = alert["annotations"]["runbook"].split("#")[1]
        expected.setdefault(anchor, set()).add(alert["alert"])
        assert anchors[anchor].strip().startswith(SEVERITIES[alert["labels"]["severity"]]), anchor
    assert named == expected


def test_it_speaks_of_metrics_and_settings_that_exist() -> None:
    metrics = {row.name for row in (*server_rows(), *trainer_rows())}
    used = {re.sub("_(bucket|sum|count)$", "", name) for name in re.findall(r"\bfoldback_\w+", PAGE)}
    assert used <= metrics
    recorded = {line.split()[-1] for file in RULES for line in file.read_text().splitlines() if "- record:" in line}
    assert set(re.findall(r"\bfoldback:\w+(?::\w+)?", PAGE)) <= recorded


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_query_is_answered(watched: Prometheus) -> None:
    assert len(QUERIES) > 50
    for query in QUERIES:
        watched.query(query)  # raises where Prometheus does not understand it
    silent = {query for query in QUERIES if not RARE.search(query) and not watched.query(query)}
    assert not silent, "no data from a Foldback in use"


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("block", COMMANDS)
def test_every_command_runs(block: str, live_stack: Stack) -> None:
    environment = live_stack.environment | {"PATH": f"{TOOLS}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-euc", block], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
    assert (done.stdout + done.stderr).strip(), block
