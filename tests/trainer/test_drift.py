"""A policy that has drifted too far is led back: by itself, at the gate, in the loop."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from settings.gate import GateSettings
from tests.trainer.policies import backbone
from tests.trainer.test_evaluation import answers
from tests.trainer.test_gate import gate_over, pool
from tests.trainer.test_gate_report import evaluation, first_feature
from tests.trainer.test_loop import adapter, mean_taste, turns, with_gate
from tests.trainer.world import World
from trainer.backbone import Backbone
from trainer.drift import lead_back, of_answers
from trainer.evaluation import Reference, perplexity_ratio


def led_back(policy: Backbone, reference: Reference, most: float) -> tuple[float, float]:
    return lead_back(policy, lambda: perplexity_ratio(policy, reference, 0.7), math.log, most=math.log(most))


def weights_of(policy: Backbone) -> dict[str, torch.Tensor]:
    return {name: weights.detach() for name, weights in policy.model.named_parameters() if "lora_" in name}


@pytest.mark.parametrize("most", [1.3, 1.05, 1.005])
def test_a_policy_that_has_drifted_is_led_back_no_further_than_it_must(tiny_model: Path, most: float) -> None:
    reference = answers(backbone(tiny_model), 0.7)
    policy = backbone(tiny_model, moved=0.3)
    far = {name: weights.clone() for name, weights in weights_of(policy).items()}
    assert perplexity_ratio(policy, reference, 0.7) > 1.5
    ratio, kept = led_back(policy, reference, most)
    assert ratio == perplexity_ratio(policy, reference, 0.7)
    assert 1 + 0.5 * (most - 1) < ratio <= most
    for name, weights in weights_of(policy).items():
        torch.testing.assert_close(weights, far[name] * (kept if "lora_B" in name else 1))
    assert led_back(policy, reference, most) == (ratio, 1.0), "once is enough"


def test_a_policy_within_bounds_or_past_hope_is_left_as_it_is(tiny_model: Path) -> None:
    reference = answers(backbone(tiny_model), 0.7)
    policy = backbone(tiny_model, moved=0.1)
    before = {name: weights.clone() for name, weights in weights_of(policy).items()}
    ratio, kept = led_back(policy, reference, 100.0)
    assert 1 < ratio < 100
    assert kept == 1
    assert all(torch.equal(weights, before[name]) for name, weights in weights_of(policy).items())
    policy.parameters()[0].data.fill_(math.nan)
    ratio, kept = led_back(policy, reference, 1.3)
    assert math.isnan(ratio)
    assert kept == 1


def test_a_candidate_is_led_back_to_both_bounds_on_its_drift(tiny_model: Path, tmp_path: Path) -> None:
    """Either may bind; the figures that are told are of the policy that is left, and looking again changes nothing."""
    asked = pool("a", "bb", "ccc", "dddd")

    def figures(**bounds: float) -> dict[str, float]:
        policy = backbone(tiny_model)
        gate = gate_over(policy, tmp_path, max_new_tokens=16, **bounds)
        policy.load_adapter(tmp_path / "far")
        for candidate in (1, 2):
            report, _ = gate.examine(
                asked, first_feature, candidate=candidate, active="p0", active_adapter=tmp_path / "base"
            )
            told = {check.name: check.figure for check in report.checks}
            if candidate == 1:
                first, weights = told, [parameter.detach().clone() for parameter in policy.parameters()]
        assert told == first
        assert all(map(torch.equal, weights, policy.parameters()))
        return told

    backbone(tiny_model, moved=0.2).save_adapter(tmp_path / "far")
    free = figures(max_kl_nats=1e3, max_base_perplexity=1e9)
    kl, perplexity = free["kl_nats"], free["base_perplexity"]
    assert kl > 1
    assert perplexity > 1.1
    by_kl = figures(max_kl_nats=kl / 3, max_base_perplexity=1e9)
    assert kl / 6 < by_kl["kl_nats"] <= kl / 3
    assert by_kl["base_perplexity"] < perplexity
    by_perplexity = figures(max_kl_nats=1e3, max_base_perplexity=1 + (perplexity - 1) / 4)
    assert by_perplexity["base_perplexity"] <= 1 + (perplexity - 1) / 4
    assert by_perplexity["kl_nats"] < kl
    both = figures(max_kl_nats=kl / 3, max_base_perplexity=1 + (by_kl["base_perplexity"] - 1) / 2)
    assert both["kl_nats"] <= kl / 3
    assert both["base_perplexity"] <= 1 + (by_kl["base_perplexity"] - 1) / 2


def test_saying_the_same_to_everybody_is_drift() -> None:
    """A share of what either bound allows, whichever is nearer."""
    reference = evaluation([0.0] * 3, kl_nats=0.0)
    varied, alike = (evaluation([0.0] * 3, kl_nats=6.0, same=same) for same in (False, True))
    limits = GateSettings(max_kl_nats=12, min_reference_distinct_2=1 / 9)
    assert of_answers(varied, reference, limits) == 0.5
    assert of_answers(alike, reference, limits) == 0.5, "a third as distinct: half the way to a ninth, too"
    nearer = limits.model_copy(update={"min_reference_distinct_2": 3**-0.5})
    assert of_answers(alike, reference, nearer) == pytest.approx(2)
    assert of_answers(alike, reference, limits.model_copy(update={"min_reference_distinct_2": 0.0})) == 0.5
    assert math.isnan(of_answers(replace(varied, kl_nats=math.nan), reference, limits))


@pytest.mark.slow
@pytest.mark.parametrize(("bound", "most", "enough"), [("max_base_perplexity", 1.02, 1.01), ("max_kl_nats", 2.0, 1.2)])
def test_a_candidate_that_has_drifted_too_far_is_led_back_and_served(
    tmp_path: Path, tiny_model: Path, caplog: pytest.LogCaptureFixture, bound: str, most: float, enough: float
) -> None:
    world = World(tmp_path, tiny_model)
    world.users_rank(80)
    before = mean_taste(world)
    # Answers and steps that make the drift far larger than its noise; to win is for other tests.
    settings = with_gate(**{bound: most, "prompts": 24, "min_win_rate": 0.35})
    ppo = settings.ppo.model_copy(update={"learning_rate": 1e-2})
    trainer = world.trainer(settings.model_copy(update={"ppo": ppo}))
    with caplog.at_level("INFO", "trainer"):
        turns(trainer)
    served = [version for version in world.registry.state().history if version != world.base]
    assert served, "where it was refused for its drift alone"
    figures = [world.registry.manifest(version).figures for version in served]
    told = [each["gate_" + bound.removeprefix("max_")] for each in figures]
    assert all(each <= most for each in told)
    assert max(told) > enough, "and no further than it must"
    assert "led back to 0." in caplog.text
    weights = adapter(world.registry.fetch(served[-1], Path("unused")) / "adapter")
    held = adapter(trainer._anchored_adapter)
    assert all(torch.equal(weights[name], held[name]) for name in weights), "training goes on from what is served"
    assert mean_taste(world) > before, "and what was learned is not lost"
