"""What becomes of a candidate of which the gate can say nothing."""

from pathlib import Path

import pytest

from registry import PolicyState
from tests.trainer.test_loop import turns
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
