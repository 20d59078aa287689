"""What the first update of the reward model need not wait for is done while feedback is awaited; and what follows from
an update."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.trainer.test_loop import turns
from tests.trainer.world import SETTINGS, World
from trainer.reward import RewardExample, RewardFigures, RewardModel


def test_the_reward_is_scaled_while_the_first_feedback_is_awaited(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, tiny_model)
    trainer = world.trainer()
    world.users_rank(3)
    assert turns(trainer).startswith("waiting for feedback")
    assert trainer.progress.calibrated_on == -1, "by so few questions it would soon be scaled anew"
    world.users_rank(30)
    assert turns(trainer).startswith("waiting for feedback")
    assert trainer.progress.calibrated_on == SETTINGS.calibration_samples

    world.users_rank(10)
    monkeypatch.setattr(trainer._learner.backbone, "generate", lambda *_, **__: pytest.fail("a scale drawn anew"))
    assert trainer.turn() == ""
    assert trainer.progress.judgement_position
    assert trainer._learner.reward.ready


def test_the_scale_survives_a_restart_between_it_and_the_first_update(tmp_path: Path, tiny_model: Path) -> None:
    world = World(tmp_path, tiny_model)
    world.users_rank(33)
    turns(world.trainer())
    restarted = world.trainer()
    world.users_rank(10)
    restarted.turn()
    base = restarted._learner.reward._reference_BF
    assert len(base) == SETTINGS.calibration_samples
    mean_B, _ = restarted._learner.reward.score(base)
    assert mean_B.mean().item() == pytest.approx(0, abs=1e-4)
    assert mean_B.std(correction=0).item() == pytest.approx(1, abs=1e-4)


def test_steps_are_whole_again_once_people_like_something_else(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, tiny_model)
    trainer = world.trainer()
    ppo, update = trainer._learner.ppo, RewardModel.update
    world.users_rank(43)
    for changed, stride in ((0, 0.5), (50, 1.0)):

        def noticing(model: RewardModel, examples: Sequence[RewardExample], changed: int = changed) -> RewardFigures:
            return replace(update(model, examples), changed=changed)

        monkeypatch.setattr(RewardModel, "update", noticing)
        ppo.restore_stride()
        ppo.next_stride()
        trainer._learn_reward()
        assert ppo.state_dict()["stride"] == stride
