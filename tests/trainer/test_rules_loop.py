"""Rules in the loop: they pull at the policy, show in the metrics, and refuse a version with its figures."""

from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from registry import PolicyState
from settings.rules import Constitution
from tests.trainer.world import SETTINGS, World
from trainer.policy_step import PolicyStep
from trainer.ppo.figures import PpoFigures


def constitution(most: int) -> Constitution:
    rule = {"name": "short", "kind": "length", "most": most, "weight": 5.0, "veto": 1.0}
    return Constitution.model_validate({"rules": [rule]})


@pytest.mark.slow
def test_a_rule_is_in_the_reward_in_the_metrics_and_in_the_manifest(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores: dict[str, list[float]] = {}
    improve = PolicyStep.improve

    def observed(step: PolicyStep, *given: object, **also: object) -> PpoFigures:
        figures = improve(step, *given, **also)  # type: ignore[arg-type]
        scores[now].append(figures.score)
        return figures

    monkeypatch.setattr(PolicyStep, "improve", observed)
    for now, rules in (("free", None), ("ruled", constitution(1))):
        scores[now] = []
        settings = SETTINGS.model_copy(update={"iterations_per_judgement": 0.05, "judgements_to_start": 40})
        world = World(tmp_path / now, tiny_model, settings)
        world.users_rank(44)
        trainer = world.trainer(constitution=rules)
        for _ in range(20):
            if trainer.turn():
                break
    assert scores["ruled"][0] < scores["free"][0] - 0.5, "the same first rollouts, of more words than one"
    shown = REGISTRY.get_sample_value("foldback_rule_score", {"rule": "short"})
    assert shown is not None
    assert 0 < shown < 1
    judged = [
        version
        for version, state in world.registry.state().states.items()
        if version != world.base and state is not PolicyState.TRAINING
    ]
    assert judged
    assert all("gate_rule_short" in world.registry.manifest(version).figures for version in judged)
