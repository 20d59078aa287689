"""What becomes of a candidate that is not served, and of the next."""

import re
from pathlib import Path

import pytest
import torch

from registry import PolicyState
from settings.trainer import TrainerSettings
from tests.trainer.test_loop import mean_taste, policy, turns
from tests.trainer.world import SETTINGS, World


@pytest.mark.slow
@pytest.mark.parametrize(("rollouts_from", "patience"), [("fleet", SETTINGS.ppo.max_staleness + 1), ("trainer", 6)])
def test_an_undecided_candidate_trains_on_and_is_refused_in_the_end(
    tmp_path: Path, tiny_model: Path, rollouts_from: str, patience: int
) -> None:
    certain = SETTINGS.gate.model_copy(update={"confidence": 1 - 1e-6})
    changed = {"gate": certain, "rollouts_from": rollouts_from, "publish_every": 3}
    world = World(tmp_path, tiny_model, SETTINGS.model_copy(update=changed))
    world.users_rank(80)
    trainer = world.trainer()
    turns(trainer)
    states = world.registry.state().states
    refused = [version for version, state in states.items() if state is PolicyState.REJECTED]
    at = sorted(world.registry.manifest(version).figures["iteration"] for version in refused)
    assert at
    assert at == [patience * (number + 1) for number in range(len(at))]
    assert trainer.progress.version == world.base


def within(max_kl_nats: float, **changes: float) -> TrainerSettings:
    """Answers and steps that make the drift larger than its noise."""
    gate = SETTINGS.gate.model_copy(update={"prompts": 24, "max_kl_nats": max_kl_nats, **changes})
    ppo = SETTINGS.ppo.model_copy(update={"learning_rate": 1e-2})
    return SETTINGS.model_copy(
        update={"gate": gate, "ppo": ppo, "rollouts_from": "trainer", "iterations_per_judgement": 0.1}
    )


@pytest.mark.slow
def test_where_the_active_version_is_too_far_out_the_next_attempt_starts_within_bounds(
    tmp_path: Path, tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An operator narrows a bound; that other prompts show it to be too far out comes to the same."""
    world = World(tmp_path, tiny_model)
    world.users_rank(80)
    turns(world.trainer(within(1e3)))
    served = world.registry.state().active
    assert served
    kl = world.registry.manifest(served).figures["gate_kl_nats"]
    world.users_rank(20)
    narrowed = within(kl / 4, min_win_rate=0.9)
    trainer = world.trainer(narrowed)
    trainer._learner.ppo.next_stride()
    with caplog.at_level("INFO", "trainer"):
        turns(trainer)
    refused = [news for news in caplog.messages if "rejected" in news]
    assert refused
    assert all(f"on from here: {served} has drifted too far" in news for news in refused)
    assert world.registry.state().active == served, "users keep what pleases them more"
    assert trainer._learner.ppo.state_dict()["stride"] == 1
    reached = [float(nats) for nats in re.findall(r"ppo \d+: .* KL (.*) nats, entropy", caplog.text)]
    assert reached[0] > kl / 2 > reached[-1], "from the active version first, from within bounds then"
    resumed = world.trainer(narrowed)
    assert all(map(torch.equal, policy(resumed), policy(trainer)))


@pytest.mark.slow
def test_once_people_like_the_opposite_the_next_attempt_starts_over_from_the_base_policy(
    tmp_path: Path, tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(tmp_path, tiny_model)
    at_first = mean_taste(world)
    world.users_rank(120)
    settings = within(1e3, prompts=48)
    turns(world.trainer(settings))
    served, liked = world.registry.state().active, mean_taste(world)
    assert liked > at_first + 0.1
    world.users_rank(120, upside_down=True)
    trainer = world.trainer(settings)
    with caplog.at_level("INFO", "trainer"):
        turns(trainer)
    assert "people have come to like something else" in caplog.text
    assert f"the base policy pleases more than this, and than {served}: over again from there" in caplog.text
    assert mean_taste(world) < at_first
