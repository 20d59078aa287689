"""What the gate asks of a candidate's figures: its statistics against closed forms, and its verdicts."""

import math
from statistics import NormalDist

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from settings.gate import GateSettings
from settings.rules import Constitution
from trainer.evaluation import Evaluation
from trainer.gate_report import Check, Report, Verdict, judge
from trainer.rules import RuleScores
from trainer.tokens import Sample
from trainer.wilson import wilson_bounds

SETTINGS = GateSettings(prompts=4, max_new_tokens=8)
RULES = Constitution.model_validate({"rules": [{"name": "kind", "kind": "refusal", "weight": 0.5, "veto": 1.0}]})


def evaluation(
    rewards: list[float],
    *,
    length: int = 10,
    kl_nats: float = 3.0,
    entropy_nats: float = 2.0,
    repeat: int = 10**6,
    broken: int = 0,
    same: bool = False,
) -> Evaluation:
    """Answers of tokens that repeat after `repeat`; the first `broken` break the rule; all are one if `same`."""
    responses = [
        tuple((0 if same else 1000 * row) + token % repeat for token in range(length)) for row in range(len(rewards))
    ]
    kept_PQ = torch.tensor([[float(row >= broken)] for row in range(len(rewards))])
    return Evaluation(
        tuple(Sample((1,), response) for response in responses),
        torch.tensor(rewards)[:, None],
        kl_nats,
        entropy_nats,
        RuleScores(RULES, kept_PQ),
    )


def first_feature(answers: Evaluation) -> torch.Tensor:
    return answers.features_PF[:, 0]


def examined(
    candidate: Evaluation, active: Evaluation, reference: Evaluation | None = None, *, base_perplexity: float = 1.0
) -> Report:
    return judge(candidate, active, reference or active, base_perplexity, first_feature, SETTINGS)


def verdicts(candidate: Evaluation, active: Evaluation, reference: Evaluation | None = None) -> dict[str, Verdict]:
    return {check.name: check.verdict for check in examined(candidate, active, reference).checks}


def test_a_better_candidate_passes_every_check() -> None:
    report = examined(evaluation([1.0] * 20), evaluation([0.0] * 20))
    assert report.verdict is Verdict.PASSED
    assert report.figures["gate_win_rate"] == 1.0
    assert 0.9 < report.figures["gate_win_rate_bound"] < 1.0
    assert (report.reward, report.active_reward) == (1.0, 0.0)


def test_a_worse_candidate_fails_and_an_unclear_one_is_undecided() -> None:
    better, worse = [1.0] * 20, [0.0] * 20
    assert verdicts(evaluation(worse), evaluation(better))["win_rate_bound"] is Verdict.FAILED
    unclear = [1.0] * 9 + [-1.0] * 11
    assert verdicts(evaluation(unclear), evaluation(worse))["win_rate_bound"] is Verdict.UNDECIDED


def test_as_shipped_a_candidate_has_to_be_shown_to_be_better() -> None:
    """And how often that happens by luck, as GateSettings says."""
    shipped = GateSettings()
    active = evaluation([0.0] * shipped.prompts)

    def verdict(wins: int) -> Verdict:
        rewards = [1.0] * wins + [-1.0] * (shipped.prompts - wins)
        return judge(evaluation(rewards), active, active, 1.0, first_feature, shipped).verdict

    passing = [wins for wins in range(shipped.prompts + 1) if verdict(wins) is Verdict.PASSED]
    assert passing == list(range(17, shipped.prompts + 1))
    assert verdict(12) is Verdict.UNDECIDED
    assert verdict(11) is Verdict.FAILED

    def passes(rate: float) -> float:
        n = shipped.prompts
        return sum(math.comb(n, wins) * rate**wins * (1 - rate) ** (n - wins) for wins in passing)

    assert [passes(rate) for rate in (0.7, 0.5, 0.4)] == pytest.approx([9 / 10, 1 / 6, 1 / 50], rel=0.1)


def test_rewards_that_are_no_numbers_fail() -> None:
    assert verdicts(evaluation([math.nan] * 20), evaluation([0.0] * 20))["win_rate_bound"] is Verdict.FAILED


@pytest.mark.parametrize(
    ("name", "candidate"),
    [
        ("kl_nats", evaluation([1.0] * 20, kl_nats=SETTINGS.max_kl_nats + 1)),
        ("kl_nats", evaluation([1.0] * 20, kl_nats=math.nan)),
        ("finite", evaluation([1.0] * 20, kl_nats=math.inf)),
        ("length_ratio", evaluation([1.0] * 20, length=2)),
        ("length_ratio", evaluation([1.0] * 20, length=40)),
        ("distinct_2", evaluation([1.0] * 20, repeat=1)),
        ("reference_distinct_2", evaluation([1.0] * 20, repeat=6)),
        ("reference_length_ratio", evaluation([1.0] * 20, length=41)),
        ("phrase_growth", evaluation([1.0] * 20, same=True)),
        ("rule_kind", evaluation([1.0] * 20, broken=5)),
        ("entropy_nats", evaluation([1.0] * 20, entropy_nats=0.01)),
    ],
)
def test_each_bound_refuses_on_its_own(name: str, candidate: Evaluation) -> None:
    active = evaluation([0.0] * 20)
    assert verdicts(candidate, active)[name] is Verdict.FAILED
    assert verdicts(evaluation([1.0] * 20), active)[name] is Verdict.PASSED


def test_figures_are_finite_for_the_manifest() -> None:
    report = examined(evaluation([1.0] * 4, kl_nats=math.nan), evaluation([0.0] * 4))
    assert all(map(math.isfinite, report.figures.values()))
    assert "gate_kl_nats" not in report.figures


def test_checks_read_as_comparisons() -> None:
    assert str(Check.within("kl_nats", 6.2, high=25)) == "kl nats 6.20 ≤ 25"
    assert str(Check.within("kl_nats", 26.0, high=25)) == "kl nats 26.00 > 25"
    assert str(Check.within("length_ratio", 0.2, low=0.4, high=2.5)) == "length ratio 0.20 < 0.4"


@given(count=st.integers(1, 200), wins=st.integers(0, 200), confidence=st.floats(0.51, 0.999))
def test_wilson_bounds_solve_their_equation(count: int, wins: int, confidence: float) -> None:
    """The bounds are the shares b at which the score test of `rate` just reaches z: (rate − b)² = z² b (1 − b) / n."""
    rate = min(wins, count) / count
    z = NormalDist().inv_cdf(confidence)
    low, high = wilson_bounds(rate, count, confidence)
    tiny = 1e-12
    assert -tiny <= low <= rate + tiny
    assert rate - tiny <= high <= 1 + tiny
    for bound in (low, high):
        assert (rate - bound) ** 2 == pytest.approx(z * z * bound * (1 - bound) / count, abs=1e-9)


def test_a_candidate_that_forgot_the_base_models_answers_fails() -> None:
    report = examined(evaluation([1.0] * 20), evaluation([0.0] * 20), base_perplexity=1.7)
    assert [check.name for check in report.checks if check.verdict is Verdict.FAILED] == ["base_perplexity"]


def test_small_steps_do_not_add_up() -> None:
    """Each is within bounds of the version before; beside the base model it is not."""
    active, candidate = evaluation([0.0] * 20, length=30), evaluation([1.0] * 20, length=45)
    assert examined(candidate, active).verdict is Verdict.PASSED
    found = verdicts(candidate, active, reference=evaluation([0.0] * 20, length=10))
    assert found["length_ratio"] is Verdict.PASSED
    assert found["reference_length_ratio"] is Verdict.FAILED
    improved, base = evaluation([0.0] * 20, broken=8), evaluation([0.0] * 20)
    assert verdicts(evaluation([1.0] * 20, broken=8), improved, base)["rule_kind"] is Verdict.FAILED


def test_a_rule_may_be_broken_as_often_as_before_and_by_chance() -> None:
    active = evaluation([0.0] * 20, broken=6)
    assert verdicts(evaluation([1.0] * 20, broken=6), active)["rule_kind"] is Verdict.PASSED
    assert verdicts(evaluation([1.0] * 20, broken=8), active)["rule_kind"] is Verdict.PASSED, "not shown at 80 %"
    assert verdicts(evaluation([1.0] * 20, broken=14), active)["rule_kind"] is Verdict.FAILED


def test_rules_take_part_in_who_wins() -> None:
    """Rewards differ by less than the rule's weight."""
    better_but_rude, active = evaluation([0.3] * 20, broken=20), evaluation([0.0] * 20)
    assert examined(better_but_rude, active).win_rate == 0.0
    assert examined(evaluation([0.3] * 20), active).win_rate == 1.0
