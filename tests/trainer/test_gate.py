"""The gate: its statistics against closed forms, its verdicts, and real policies through it."""

import math
from contextlib import nullcontext
from pathlib import Path
from statistics import NormalDist

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from settings.ppo import LoraSettings
from settings.trainer import GateSettings
from trainer.backbone import Backbone
from trainer.evaluation import Evaluation, distinct_bigrams, evaluate
from trainer.gate import Check, Verdict, judge, wilson_bounds
from trainer.tokens import Sample

SETTINGS = GateSettings(prompts=4, max_new_tokens=8)


def evaluation(
    rewards: list[float], *, length: int = 10, kl_nats: float = 3.0, entropy_nats: float = 2.0, repeat: bool = False
) -> Evaluation:
    response = (1,) * length if repeat else tuple(range(length))
    samples = tuple(Sample((1,), response) for _ in rewards)
    return Evaluation(samples, torch.tensor(rewards)[:, None], kl_nats, entropy_nats)


def first_feature(features_BF: torch.Tensor) -> torch.Tensor:
    return features_BF[:, 0]


def verdicts(candidate: Evaluation, active: Evaluation) -> dict[str, Verdict]:
    report = judge(candidate, active, first_feature, SETTINGS)
    return {check.name: check.verdict for check in report.checks}


def test_a_better_candidate_passes_every_check() -> None:
    report = judge(evaluation([1.0] * 20), evaluation([0.0] * 20), first_feature, SETTINGS)
    assert report.verdict is Verdict.PASSED
    assert report.figures["gate_win_rate"] == 1.0
    assert 0.9 < report.figures["gate_win_rate_bound"] < 1.0
    assert (report.reward, report.active_reward) == (1.0, 0.0)


def test_a_worse_candidate_fails_and_an_unclear_one_is_undecided() -> None:
    better, worse = [1.0] * 20, [0.0] * 20
    assert verdicts(evaluation(worse), evaluation(better))["win_rate_bound"] is Verdict.FAILED
    unclear = [1.0] * 8 + [-1.0] * 12
    assert verdicts(evaluation(unclear), evaluation(worse))["win_rate_bound"] is Verdict.UNDECIDED


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
        ("distinct_2", evaluation([1.0] * 20, repeat=True)),
        ("entropy_nats", evaluation([1.0] * 20, entropy_nats=0.01)),
    ],
)
def test_each_bound_refuses_on_its_own(name: str, candidate: Evaluation) -> None:
    active = evaluation([0.0] * 20)
    assert verdicts(candidate, active)[name] is Verdict.FAILED
    assert verdicts(evaluation([1.0] * 20), active)[name] is Verdict.PASSED


def test_figures_are_finite_for_the_manifest() -> None:
    report = judge(evaluation([1.0] * 4, kl_nats=math.nan), evaluation([0.0] * 4), first_feature, SETTINGS)
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


def test_distinct_bigrams() -> None:
    assert distinct_bigrams((1, 2, 3, 4)) == 1.0
    assert distinct_bigrams((1, 1, 1, 1, 1)) == 0.25
    assert distinct_bigrams((1,)) == 1.0


def test_the_untrained_policy_is_no_nats_from_the_reference_and_repeats_itself(tiny_model: Path) -> None:
    backbone = Backbone(tiny_model, LoraSettings(rank=4), dtype=torch.float32, seed=0)
    prompts = [(5, 6, 7), (8, 9), (10, 11, 12, 13)]
    first = evaluate(backbone, prompts, max_new_tokens=8, temperature=1.0, seed=3)
    again = evaluate(backbone, prompts, max_new_tokens=8, temperature=1.0, seed=3)
    assert first.kl_nats == pytest.approx(0.0, abs=1e-3)
    assert 0 < first.entropy_nats <= math.log(512)
    assert first.samples == again.samples
    assert torch.equal(first.features_PF, again.features_PF)


def test_kl_of_a_policy_is_the_sum_of_log_ratios(tiny_model: Path) -> None:
    backbone = Backbone(tiny_model, LoraSettings(rank=4), dtype=torch.float32, seed=0)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.normal_(std=0.05, generator=torch.Generator().manual_seed(1))
    found = evaluate(backbone, [(5, 6, 7), (8, 9)], max_new_tokens=8, temperature=0.7, seed=3)
    expected = 0.0
    for sample in found.samples:
        policy, reference = (logprobs(backbone, sample, 0.7, adapted=adapted) for adapted in (True, False))
        expected += (policy - reference).sum().item() / 2
    assert found.kl_nats == pytest.approx(expected, abs=1e-3)
    assert found.kl_nats > 0.1


def logprobs(backbone: Backbone, sample: Sample, temperature: float, *, adapted: bool) -> torch.Tensor:
    """float64 log-softmax of the model's own logits, one sample alone."""
    ids = torch.tensor([sample.prompt_ids + sample.response_ids])
    with torch.no_grad(), nullcontext() if adapted else backbone.model.disable_adapter():
        logits = backbone.model(input_ids=ids).logits[0, len(sample.prompt_ids) - 1 : -1].double() / temperature
    return logits.log_softmax(-1).gather(-1, torch.tensor(sample.response_ids)[:, None])[:, 0]
