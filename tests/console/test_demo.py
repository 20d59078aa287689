"""The demo's logic and its files, against a peer whose answers improve with every version."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from console.demo import Plan, run_demo
from console.demo_result import Point, Result
from console.personas import PERSONAS
from console.simulate import Crowd
from tests.console.fake_server import FakeFoldback

QUICK: dict[str, Any] = {"shortest_gap_s": 0.1, "longest_gap_s": 1.0}


def learning(version: str, question: str, index: int) -> str:
    """Each version says "you" once more among twelve words; candidates differ by one."""
    number = int(version[1:7])
    count = min(12, number // 2 + (index + len(question)) % 2)
    return " ".join([f"you word{n}" for n in range(count)] + [f"word{n}" for n in range(24 - 2 * count)])


def plan(out_dir: Path, **options: Any) -> Plan:
    crowd = Crowd(PERSONAS["second_person"], users=4, rate=100, candidate_count=2)
    return Plan(
        crowd,
        **{"limit_s": 30, "full": False, "out_dir": out_dir, "scratch": None, "use_running": True, **QUICK, **options},
    )


@pytest.mark.slow
def test_the_demo_sees_a_policy_learn(
    fake_server: FakeFoldback, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_server.answer, fake_server.versions_after = learning, 15
    assert run_demo(plan(tmp_path))
    report = json.loads((tmp_path / "demo.json").read_text())
    assert [target["holds"] for target in report["targets"]] == [True, True, True]
    assert report["rows"][0]["version"] == "p000000-base0000"
    assert report["rows"][-1]["answers"] == 128, "the verdict rests on a careful measurement"
    assert len(report["swaps"]) >= 3
    assert (tmp_path / "demo.png").stat().st_size > 10_000
    assert capsys.readouterr().out.count("✓ holds") == 3


@pytest.mark.slow
def test_a_policy_that_does_not_learn_fails_the_demo(fake_server: FakeFoldback, tmp_path: Path) -> None:
    fake_server.answer = learning
    assert not run_demo(plan(tmp_path, limit_s=2))
    report = json.loads((tmp_path / "demo.json").read_text())
    assert {target["name"]: target["holds"] for target in report["targets"]} == {
        "rise in standard deviations": False,
        "versions hot-swapped": False,
        "failed requests": True,
    }


@pytest.mark.slow
def test_swaps_from_before_the_demo_do_not_count(fake_server: FakeFoldback, tmp_path: Path) -> None:
    fake_server.answer = learning
    result_before = len(fake_server.transitions)
    run_demo(plan(tmp_path, limit_s=1))
    assert result_before == 1
    assert json.loads((tmp_path / "demo.json").read_text())["swaps"] == []


def point(mean: float) -> Point:
    return Point(
        0, "p000000-x", mean, std=0.2, standard_error=0.03, answers=44, example="", rated=0, words=9, distinct_2=0.8
    )


def test_the_rise_is_counted_in_deviations_of_the_base_policy() -> None:
    result = Result("brief", points=[point(0.1), point(0.4)])
    assert result.rise == pytest.approx(1.5)
    assert result.rise_error == pytest.approx(math.sqrt(2) * 0.03 / 0.2)


def test_no_more_is_asked_for_than_half_of_what_there_is_to_gain() -> None:
    nearly_met = Result("nearly met", points=[point(0.9), point(0.96)])
    assert nearly_met.headroom == pytest.approx(0.5)
    assert nearly_met.least_rise == pytest.approx(0.25)
    assert nearly_met.targets[0].holds
    assert Result("brief", points=[point(0.1)]).least_rise == 1.0


def test_a_version_that_answered_nothing_is_not_a_swap() -> None:
    result = Result("brief", points=[point(0.1), point(0.4)])
    result.swaps = [(1.0, "p000001-x"), (2.0, "p000002-x"), (3.0, "p000003-x")]
    result.tally.versions = ["p000000-x", "p000001-x", "p000002-x"]
    assert result.swapped == 2
    result.measured_versions["p000003-x"] += 1
    assert result.swapped == 3


def test_one_failed_request_fails_the_demo() -> None:
    result = Result("brief", points=[point(0.1), point(0.4)])
    result.swaps = [(1.0, version) for version in "abc"]
    result.tally.versions = list("abc")
    assert result.holds
    result.measurement_failures["UNAVAILABLE"] += 1
    assert not result.holds
    assert result.failed == {"UNAVAILABLE": 1}
