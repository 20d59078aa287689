"""Trainer, users, operator and servers in any order, the trainer killed at any moment: a real loop on a tiny model."""

import shutil
import sqlite3
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from registry import IllegalTransition, PolicyState
from tests.trainer.trials import ON_TRIAL, Killed, die, rated
from tests.trainer.world import World
from trainer import publish
from trainer.canary_monitor import CanaryMonitor
from trainer.gate_step import GateStep
from trainer.loop import Trainer

__all__ = ["rated"]

_STEPS = ((Trainer, "_save"), (Trainer, "_take"), (GateStep, "_publish"), (CanaryMonitor, "_settle"))


class Trials(RuleBasedStateMachine):
    def __init__(self, rated: Path, model: Path) -> None:
        super().__init__()
        self._directory = tempfile.TemporaryDirectory(prefix="trials-")
        self.world = World(shutil.copytree(rated, Path(self._directory.name) / "world"), model, ON_TRIAL)
        self.trainer = self.world.trainer()
        for _ in range(4):  # adopt the base, learn the reward, improve twice: the first candidate goes to the gate next
            assert self.trainer.turn() == ""
        self.rejected: set[str] = set()
        self.learned: dict[str, str] = {}

    def teardown(self) -> None:
        self.world.store.close()
        self._directory.cleanup()

    @rule(turns=st.integers(1, 4))
    def learn(self, turns: int) -> None:
        for _ in range(turns):
            if self.trainer.turn():
                break

    @rule(step=st.sampled_from(_STEPS))
    def die_on_the_way(self, step: tuple[type, str]) -> None:
        with patch.object(*step, die), suppress(Killed):
            self.trainer.turn()
        self.trainer = self.world.trainer()

    @rule(liked=st.booleans())
    def users_rate(self, liked: bool) -> None:
        self.world.users_thumb([liked or index % 12 == 0 for index in range(24)])

    @precondition(lambda self: self.world.registry.state().canary)
    @rule()
    def the_server_refuses_the_canary(self) -> None:
        canary = self.world.registry.state().canary
        assert canary
        self.world.registry.transition(canary, PolicyState.REJECTED, reason="logprobs differ", actor="server")
        self.rejected.add(canary)

    @rule()
    def the_operator_rolls_back(self) -> None:
        with suppress(IllegalTransition):
            self.world.registry.rollback(None, reason="users complain", actor="operator")

    @rule(data=st.data())
    def the_operator_promotes(self, data: st.DataObject) -> None:
        version = data.draw(st.sampled_from(list(self.world.registry.state().states)))
        with suppress(IllegalTransition):
            self.world.registry.transition(version, PolicyState.ACTIVE, reason="I like it", actor="operator")

    @invariant()
    def one_version_is_active_and_never_a_refused_one(self) -> None:
        state = self.world.registry.state()
        assert [v for v, status in state.states.items() if status is PolicyState.ACTIVE] == [state.active]
        assert sum(status is PolicyState.CANARY for status in state.states.values()) <= 1
        assert state.active not in self.rejected

    @invariant()
    def no_feedback_is_learned_twice_nor_by_what_never_served(self) -> None:
        with closing(sqlite3.connect(self.world.directory / "preferences.sqlite")) as db:
            rows = db.execute("SELECT feedback_id, learned_version FROM feedback WHERE learned_version IS NOT NULL")
            learned = dict(rows.fetchall())
        assert learned.items() >= self.learned.items()
        assert set(learned.values()) <= set(self.world.registry.state().history)
        self.learned = learned

    @invariant()
    def what_was_not_trained_since_is_what_is_served(self) -> None:
        progress, registry = self.trainer.progress, self.world.registry
        if progress.version and not progress.unpublished and registry.manifest(progress.continues_from).parent:
            adapter = registry.fetch(progress.continues_from, Path("unused")) / publish.ADAPTER
            assert self.trainer._learner.backbone.holds(adapter)


@pytest.mark.slow
def test_every_order_of_events_leaves_one_good_version_active(rated: Path, tiny_model: Path) -> None:
    run_state_machine_as_test(
        lambda: Trials(rated, tiny_model),  # type: ignore[arg-type]
        settings=settings(
            max_examples=5,
            stateful_step_count=14,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
