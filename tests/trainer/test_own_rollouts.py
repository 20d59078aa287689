"""The trainer's own rollouts are by the policy as it stands, whatever version it continued from."""

from pathlib import Path

import pytest
import torch
from prometheus_client import REGISTRY
from pydantic import ValidationError

from feedback.judgement import Prompt
from settings.trainer import TrainerSettings
from tests.trainer.policies import backbone
from trainer import metrics
from trainer.own_rollouts import OwnRollouts
from trainer.tokens import IN_TRAINING, Rollout

PROMPTS = [Prompt(words, (("user", words),), (), 0.0) for words in ("tea?", "why is it good")]
SETTINGS = TrainerSettings(max_new_tokens=8, samples_per_prompt=3, temperature=1.0)


def staleness_seen(part: str) -> float:
    """`part`: count, of rollouts, or sum, of the versions that they were behind."""
    return REGISTRY.get_sample_value(f"foldback_sample_staleness_versions_{part}") or 0.0


@pytest.fixture
def rollouts(tiny_model: Path) -> list[Rollout]:
    policy = backbone(tiny_model, moved=0.3)
    policy.stored = torch.float32  # without the rounding of its files
    return OwnRollouts(policy, SETTINGS).sample(PROMPTS, seed=1, version="p7")


def test_their_logprobs_are_those_of_the_policy_that_is_trained(tiny_model: Path, rollouts: list[Rollout]) -> None:
    policy = backbone(tiny_model, moved=0.3)
    with torch.no_grad():
        expected_BT, _, _ = policy.policy_logprobs([each.sample for each in rollouts], SETTINGS.temperature)
    assert [each.group for each in rollouts] == [0, 0, 0, 1, 1, 1]
    for rollout, expected_T in zip(rollouts, expected_BT, strict=True):
        drawn_T = torch.tensor(rollout.behaviour_logprobs)
        assert torch.allclose(drawn_T, expected_T[: len(drawn_T)], atol=1e-4)


def test_none_of_them_is_stale(rollouts: list[Rollout]) -> None:
    counted, behind = staleness_seen("count"), staleness_seen("sum")
    metrics.show_staleness(rollouts, ["p5", "p6", "p7"])
    assert {version for each in rollouts for version in each.policy_version} == {IN_TRAINING}
    assert staleness_seen("count") == counted + len(rollouts)
    assert staleness_seen("sum") == behind


def test_only_the_fleets_rollouts_bound_the_iterations_of_a_version() -> None:
    many = {"publish_every": 9, "ppo": {"max_staleness": 3}}
    assert TrainerSettings.model_validate(many | {"rollouts_from": "trainer"}).publish_every == 9
    with pytest.raises(ValidationError, match=r"at most ppo.max_staleness \+ 1 = 4"):
        TrainerSettings.model_validate(many | {"rollouts_from": "fleet"})
