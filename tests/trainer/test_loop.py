"""The whole loop on a tiny model: real store, real registry, real learning, a fleet of one."""

import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from prometheus_client import REGISTRY
from safetensors.torch import load_file

from feedback.judgement import Prompt
from registry import PolicyState
from settings.trainer import TrainerSettings
from tests.trainer.world import SETTINGS, World, taste
from trainer.checkpoint import Progress
from trainer.loop import Trainer


class Killed(Exception):
    pass


def die(*_: object, **__: object) -> None:
    raise Killed


def turns(trainer: Trainer, *, until_version: bool = False, limit: int = 60) -> str:
    """Turn until there is nothing to do (returns what is waited for), or until the trainer follows a new version."""
    before = trainer.progress.version
    for _ in range(limit):
        waiting = trainer.turn()
        if waiting:
            return waiting
        if until_version and before and trainer.progress.version != before:
            return ""
        before = before or trainer.progress.version
    raise AssertionError(f"still at work after {limit} turns: {trainer.progress}")


def adapter(directory: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load_file(directory / "adapter_model.safetensors")
    return tensors


def policy(trainer: Trainer) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in trainer._learner.backbone.parameters()]


def mean_taste(world: World) -> float:
    asked = [Prompt(f"h{i}", (("user", f"what is {i}?"),), (), 0.0) for i in range(32)]
    answers = world.fleet.sample(asked, seed=10**6)
    return sum(taste(answer.sample) for answer in answers) / len(answers)


def with_gate(**changes: float) -> TrainerSettings:
    """A few iterations against another gate."""
    gate = SETTINGS.gate.model_copy(update=changes)
    return SETTINGS.model_copy(update={"gate": gate, "iterations_per_judgement": 0.05})


@pytest.fixture(scope="module")
def rankings(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The directory of a world whose users have ranked the base policy's answers in 80 conversations."""
    world = World(tmp_path_factory.mktemp("rankings"), tiny_model)
    world.users_rank(80)
    world.store.close()
    return world.directory


@pytest.fixture
def world(tmp_path: Path, tiny_model: Path, rankings: Path) -> World:
    """A copy of that world."""
    return World(shutil.copytree(rankings, tmp_path, dirs_exist_ok=True), tiny_model)


def test_it_says_how_much_feedback_it_waits_for(tmp_path: Path, tiny_model: Path) -> None:
    world = World(tmp_path, tiny_model)
    world.users_rank(3)
    assert turns(world.trainer()) == "waiting for feedback: 3 of 40 judgements; rate answers with 'foldback chat'"
    assert REGISTRY.get_sample_value("foldback_judgements_awaited") == 37


def test_a_checkpoint_of_another_foldback_is_refused_with_a_remedy(tmp_path: Path, tiny_model: Path) -> None:
    world = World(tmp_path, tiny_model)
    assert world.trainer().turn() == ""  # adopts the base policy, and writes it down
    [state] = tmp_path.rglob("checkpoint-*/reward.json")
    state.write_text("{}")
    with pytest.raises(SystemExit, match=r"cannot resume .* remove .* to learn afresh"):
        world.trainer()


def test_it_waits_for_a_base_policy(tmp_path: Path, tiny_model: Path) -> None:
    world = World(tmp_path, tiny_model)
    world.registry.state = type(world.registry)((tmp_path / "other").as_uri()).state  # type: ignore[method-assign]
    assert "waiting for the server" in world.trainer().turn()


@pytest.mark.slow
def test_users_rankings_become_versions_that_please_them_more(world: World) -> None:
    before = mean_taste(world)
    trainer = world.trainer()
    waiting = turns(trainer)
    assert waiting.startswith("waiting for more feedback")
    state = world.registry.state()
    assert state.active == trainer.progress.version != world.base
    assert state.states[world.base] is PolicyState.RETIRED
    assert mean_taste(world) > before + 0.1

    served = [version for version in state.history if version != world.base]
    manifest = world.registry.manifest(served[0])
    assert manifest.parent == world.base
    assert len(manifest.canary) == SETTINGS.canary_prompts
    assert {"gate_win_rate", "gate_kl_nats", "gate_distinct_2", "gate_entropy_nats"} <= set(manifest.figures)
    learned = world.registry.fetch(served[0], Path("unused")) / "learned_feedback.txt"
    assert sorted(learned.read_text().split()) == sorted(j.feedback_id for j in world.store.judgements())
    assert world.store.funnel()["learned"] == 80
    # The budget: a quarter of an iteration for each judgement, not one more.
    assert trainer.progress.iteration == 20


@pytest.mark.slow
def test_a_pause_is_honoured(world: World) -> None:
    trainer = world.trainer()
    trainer.turn()
    world.registry.set_training_state("paused", reason="maintenance", actor="operator")
    assert "paused" in trainer.turn()
    world.registry.set_training_state("running", reason="done", actor="operator")
    assert trainer.turn() == ""


@pytest.mark.slow
def test_the_policy_improves_however_much_people_say(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """More judgements come during every update of the reward model than ask for the next one."""
    trainer = world.trainer()
    monkeypatch.setattr(trainer._readiness, "of_reward_model", lambda progress: True)
    heard: list[int] = []
    learn = trainer._reward.learn

    def listen(progress: Progress) -> Progress:
        heard.append(progress.iteration)
        return learn(progress)

    monkeypatch.setattr(trainer._reward, "learn", listen)
    while trainer.progress.iteration < 2:
        assert trainer.turn() == ""
        assert len(heard) < 8, "PPO is kept waiting"
    assert {0, 1} <= set(heard), "and the reward model keeps up"


@pytest.mark.slow
def test_it_learns_from_rollouts_of_its_own(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    before = mean_taste(world)
    with monkeypatch.context() as patched:
        patched.setattr(world.fleet, "sample", die)  # servers are left to users
        turns(world.trainer(SETTINGS.model_copy(update={"rollouts_from": "trainer"})))
    assert world.registry.state().active != world.base
    assert mean_taste(world) > before + 0.1


@pytest.mark.slow
def test_training_stops_where_the_policy_leaves_the_reference_too_far(world: World) -> None:
    broken_by_all = SETTINGS.ppo.model_copy(update={"max_kl_nats": -1e3})
    trainer = world.trainer(SETTINGS.model_copy(update={"ppo": broken_by_all}))
    trainer.turn()
    active = policy(trainer)
    waiting = turns(trainer)
    assert waiting.startswith("waiting for more feedback")
    assert (trainer.progress.iteration, trainer.progress.budget) == (1, 0.0)
    assert trainer.progress.version == world.base
    assert all(map(torch.equal, active, policy(trainer)))


@pytest.mark.slow
def test_a_candidate_that_loses_is_rejected_with_the_reason(world: World) -> None:
    trainer = world.trainer(with_gate(min_entropy_nats=100.0))
    trainer.turn()
    active = policy(trainer)
    turns(trainer)
    state = world.registry.state()
    rejected = [version for version, status in state.states.items() if status is PolicyState.REJECTED]
    assert rejected
    assert "entropy nats" in state.reasons[rejected[0]]
    assert state.active == world.base
    assert all(map(torch.equal, active, policy(trainer)))
    assert world.store.funnel()["learned"] == 0


@pytest.mark.slow
def test_an_operator_who_rolls_back_is_followed(world: World) -> None:
    trainer = world.trainer()
    turns(trainer, until_version=True)
    first = trainer.progress.version
    world.users_rank(20)
    turns(trainer, until_version=True)
    assert trainer.progress.version != first
    world.registry.rollback(first, reason="users complain", actor="operator")
    trainer.turn()
    assert trainer.progress.version == first
    directory = world.registry.fetch(first, Path("unused")) / "adapter"
    trainer._learner.backbone.save_adapter(world.directory / "now")
    now, then = adapter(world.directory / "now"), adapter(directory)
    assert all(torch.equal(now[name], tensor) for name, tensor in then.items())

    world.registry.rollback(world.base, reason="users still complain", actor="operator")
    trainer.turn()
    assert trainer.progress.version == world.base
    fresh = world.trainer()
    fresh._learner.continue_from(fresh._base_adapter, world.base)
    assert all(map(torch.equal, policy(trainer), policy(fresh)))


@pytest.mark.slow
def test_killed_after_a_promotion_the_feedback_is_still_marked_learned(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = world.trainer()

    monkeypatch.setattr(world.store, "mark_learned", die)
    with pytest.raises(Killed):
        turns(trainer, until_version=True)
    monkeypatch.undo()
    active = world.registry.state().active
    assert active != trainer.progress.version
    again = world.trainer()
    again.turn()
    assert again.progress.version == active
    assert world.store.funnel()["learned"] == 80


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(with_gate(), id="free"),
        pytest.param(with_gate(max_base_perplexity=1.02), id="led back by perplexity"),
        pytest.param(with_gate(max_kl_nats=0.5), id="led back by kl"),
        pytest.param(with_gate().model_copy(update={"rollouts_from": "trainer"}), id="own rollouts"),
    ],
)
def test_killed_at_any_turn_it_comes_to_the_same_numbers(
    tmp_path: Path, tiny_model: Path, rankings: Path, monkeypatch: pytest.MonkeyPatch, settings: TrainerSettings
) -> None:
    straight, killed = (
        World(shutil.copytree(rankings, tmp_path / name), tiny_model, settings) for name in ("straight", "killed")
    )
    one = straight.trainer()
    turns(one)

    for _ in range(60):
        # A turn that dies before its checkpoint, then, after a new start, one that dies after it.
        dying = killed.trainer()
        monkeypatch.setattr(dying, "_save", die)
        with suppress(Killed):
            dying.turn()
        trainer = killed.trainer()
        if trainer.turn():
            break

    assert replace(trainer.progress, serial=0, anchor=0) == replace(one.progress, serial=0, anchor=0)
    assert all(map(torch.equal, policy(one), policy(trainer)))
    assert straight.registry.state().active == killed.registry.state().active


@pytest.mark.slow
def test_the_registry_lost_in_mid_turn_costs_that_turn_alone(
    tmp_path: Path, tiny_model: Path, rankings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A volume that is unmounted while a version is published, and comes back: the same numbers as without."""
    settings = SETTINGS.model_copy(update={"iterations_per_judgement": 0.05})
    straight, robbed = (
        World(shutil.copytree(rankings, tmp_path / name), tiny_model, settings) for name in ("straight", "robbed")
    )
    one, other = straight.trainer(), robbed.trainer()
    turns(one)

    home, aside = robbed.directory / "registry", robbed.directory / "aside"
    save_merged = other._learner.backbone.save_merged

    def save_and_lose(directory: Path) -> None:
        save_merged(directory)
        home.rename(aside)

    with monkeypatch.context() as losing:
        losing.setattr(other._learner.backbone, "save_merged", save_and_lose)
        assert turns(other).startswith("cut off in mid-turn")
    for _ in range(2):
        assert other.turn().startswith("waiting for the registry")
    shutil.rmtree(home, ignore_errors=True)  # what was written to the mount point meanwhile
    aside.rename(home)
    assert turns(other).startswith("waiting for more feedback")
    assert replace(other.progress, serial=0, anchor=0) == replace(one.progress, serial=0, anchor=0)
    assert all(map(torch.equal, policy(one), policy(other)))
    assert straight.registry.state().active == robbed.registry.state().active
