"""The loop around a canary on a tiny model: it trains on meanwhile, and ends where the decision leads."""

import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from registry import PolicyState
from tests.trainer.trials import ON_TRIAL, Killed, die, rated
from tests.trainer.world import World
from trainer.canary_monitor import CanaryMonitor
from trainer.checkpoint import Checkpoints
from trainer.gate import Gate
from trainer.gate_step import GateStep
from trainer.loop import Trainer

__all__ = ["rated"]


def policy(trainer: Trainer) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in trainer._learner.backbone.parameters()]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(map(torch.equal, one, other))


def until_canary(trainer: Trainer) -> str:
    for _ in range(40):
        assert trainer.turn() == ""
        if trainer.progress.canary:
            return trainer.progress.canary
    raise AssertionError(f"no canary: {trainer.progress}")


def until_waiting(trainer: Trainer) -> str:
    for _ in range(40):
        if waiting := trainer.turn():
            return waiting
    raise AssertionError(f"still at work: {trainer.progress}")


@pytest.fixture
def world(tmp_path: Path, tiny_model: Path, rated: Path) -> World:
    return World(shutil.copytree(rated, tmp_path, dirs_exist_ok=True), tiny_model, ON_TRIAL)


@pytest.mark.slow
def test_training_goes_on_from_the_canary_and_the_next_candidate_waits_for_the_users(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = world.trainer()
    canary = until_canary(trainer)
    state = world.registry.state()
    assert (state.active, state.canary) == (world.base, canary)
    assert world.store.funnel()["learned"] == 0
    assert until_waiting(trainer) == f"waiting for users' word on canary {canary}: no ratings"
    assert trainer.progress.unpublished == ON_TRIAL.publish_every
    assert trainer._gate._gate.knows(trainer.progress.iteration), "examined while there was time"
    # As many new judgements as the reward model asks for: the decision does not wait until they are learned.
    world.users_rank(ON_TRIAL.judgements_per_update)
    world.users_thumb([index % 4 != 0 for index in range(12)])
    position = trainer.progress.judgement_position
    assert trainer.turn() == ""
    assert (world.registry.state().active, trainer.progress.judgement_position) == (canary, position)
    assert trainer.turn() == ""
    assert (trainer.progress.version, trainer.progress.canary) == (canary, "")
    assert world.store.funnel()["learned"] == 100
    # The candidate that waited is judged against it now, by what was found of both before.
    monkeypatch.setattr(Gate, "_answers", die)
    assert trainer.turn() == ""
    following = [version for version in world.registry.state().states if version not in (world.base, canary)]
    assert [world.registry.manifest(version).parent for version in following] == [canary]


@pytest.mark.slow
def test_a_disliked_canary_takes_the_trainer_back_with_it(world: World) -> None:
    trainer = world.trainer()
    trainer.turn()
    active = policy(trainer)
    canary = until_canary(trainer)
    trainer.turn()
    assert not same(policy(trainer), active)
    world.users_thumb([False] * 32)
    assert trainer.turn() == ""
    state = world.registry.state()
    assert (state.active, state.canary, state.states[canary]) == (world.base, None, PolicyState.ROLLED_BACK)
    progress = trainer.progress
    assert (progress.version, progress.canary, progress.unpublished, progress.fallback) == (world.base, "", 0, 0)
    assert same(policy(trainer), active)
    assert world.store.funnel()["learned"] == 0
    assert world.fleet.serving == world.base
    # What it learned from will be learned by the next version.
    following = until_canary(trainer)
    assert world.registry.manifest(following).parent == world.base
    learned = world.registry.fetch(following, Path("unused")) / "learned_feedback.txt"
    assert len(learned.read_text().split()) == 100


@pytest.mark.slow
@pytest.mark.parametrize("who", ["operator", "server"])
def test_whoever_ends_the_trial_is_followed(world: World, who: str) -> None:
    trainer = world.trainer()
    trainer.turn()
    active = policy(trainer)
    canary = until_canary(trainer)
    trainer.turn()
    if who == "operator":
        world.registry.rollback(None, reason="users complain", actor=who)
    else:
        world.registry.transition(canary, PolicyState.REJECTED, reason="canary logprobs differ", actor=who)
    trainer.turn()
    assert (trainer.progress.version, trainer.progress.canary) == (world.base, "")
    assert same(policy(trainer), active)


@pytest.mark.slow
def test_an_operator_who_promotes_the_canary_is_followed(world: World) -> None:
    trainer = world.trainer()
    canary = until_canary(trainer)
    trained = policy(trainer)
    world.registry.transition(canary, PolicyState.ACTIVE, reason="I like it", actor="operator")
    trainer.turn()
    assert (trainer.progress.version, trainer.progress.canary) == (canary, "")
    assert same(policy(trainer), trained)
    assert world.store.funnel()["learned"] == 100


@pytest.mark.slow
def test_an_operators_rollback_between_gate_and_trial_stands(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = world.trainer()
    first = until_canary(trainer)
    world.registry.transition(first, PolicyState.ACTIVE, reason="I like it", actor="operator")
    trainer.turn()
    publish = GateStep._publish

    def meanwhile(*arguments: object) -> str:
        version = publish(*arguments)  # type: ignore[arg-type]
        world.registry.rollback(None, reason="users complain", actor="operator")
        return version

    monkeypatch.setattr(GateStep, "_publish", meanwhile)
    for _ in range(10):
        trainer.turn()
        if world.registry.state().active == world.base:
            break
    state = world.registry.state()
    assert (state.active, state.canary) == (world.base, None)
    refused = [version for version, status in state.states.items() if status is PolicyState.REJECTED]
    assert "users complain" in state.reasons[refused[-1]]
    trainer.turn()
    assert trainer.progress.version == world.base


@pytest.mark.slow
def test_the_checkpoints_of_canary_and_active_version_are_kept(world: World) -> None:
    trainer = world.trainer()
    until_canary(trainer)
    progress = trainer.progress
    assert 0 < progress.fallback < progress.anchor
    for _ in range(4):
        trainer._save(trainer.progress)
    checkpoints = Checkpoints(world.directory / "trainer" / "checkpoints", keep=2)
    assert all(checkpoints.path(serial).is_dir() for serial in (progress.fallback, progress.anchor))
    assert not checkpoints.path(progress.anchor + 1).exists()


def live(world: World, monkeypatch: pytest.MonkeyPatch, *, killed: bool) -> Trainer:
    """Users like the first canary and dislike the second. Killed: every turn dies before it is written down, and again
    right after the registry was told of the decision."""
    trainer = world.trainer()
    thumbs = [[index % 4 != 0 for index in range(12)], [False] * 40]
    for _ in range(80):
        if killed:
            for what, name in ((Trainer, "_save"), (CanaryMonitor, "_settle"), (CanaryMonitor, "_take_down")):
                dying = world.trainer()
                with monkeypatch.context() as patch, suppress(Killed):
                    patch.setattr(what, name, die)
                    dying.turn()
            trainer = world.trainer()
        waiting = trainer.turn()
        if "users' word" in waiting and thumbs:
            world.users_thumb(thumbs.pop(0))
        elif waiting:
            return trainer
    raise AssertionError(f"still at work: {trainer.progress}")


@pytest.mark.slow
@pytest.mark.parametrize(
    "drift", [(1e9, 1e3), (1.02, 1e3), (1e9, 0.5)], ids=["free", "led back by perplexity", "led back by kl"]
)
def test_killed_at_any_step_of_a_trial_it_comes_to_the_same_numbers(
    tmp_path: Path, tiny_model: Path, rated: Path, monkeypatch: pytest.MonkeyPatch, drift: tuple[float, float]
) -> None:
    gate = ON_TRIAL.gate.model_copy(update={"max_base_perplexity": drift[0], "max_kl_nats": drift[1]})
    settings = ON_TRIAL.model_copy(update={"gate": gate})
    straight, killed = (
        World(shutil.copytree(rated, tmp_path / name), tiny_model, settings) for name in ("straight", "killed")
    )
    one, other = live(straight, monkeypatch, killed=False), live(killed, monkeypatch, killed=True)
    assert replace(one.progress, serial=0, anchor=0) == replace(other.progress, serial=0, anchor=0)
    assert same(policy(one), policy(other))
    ends = [world.registry.state() for world in (straight, killed)]
    assert ends[0].active == ends[1].active != straight.base
    assert all(PolicyState.ROLLED_BACK in end.states.values() for end in ends)
    told = [[world.registry.manifest(name).figures for name in sorted(ends[0].states)] for world in (straight, killed)]
    assert told[0] == told[1], "what the gate found, too"
    learned = [[j.feedback_id for j in world.store.judgements()] for world in (straight, killed)]
    assert learned[0] == learned[1]
    assert straight.store.funnel() == killed.store.funnel()
