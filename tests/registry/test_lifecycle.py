"""Exactly one version is active, however many processes decide at once."""

import multiprocessing
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from registry import ActiveChanged, IllegalTransition, Manifest, PolicyState, Registry
from registry.lifecycle import LEGAL
from tests.registry.conftest import BASE_DIGEST

Publish = Callable[..., Manifest]


def activate(registry: Registry, manifest: Manifest) -> None:
    registry.transition(manifest.version, PolicyState.CANDIDATE, reason="new", actor="test")
    registry.transition(manifest.version, PolicyState.ACTIVE, reason="better", actor="test")


def test_promotion_retires_the_active_version_in_the_same_entry(registry: Registry, publish: Publish) -> None:
    first, second = publish(registry, 1), publish(registry, 2)
    activate(registry, first)
    activate(registry, second)
    retired, promoted = registry.transitions()[-2:]
    assert (retired.version, retired.to) == (first.version, PolicyState.RETIRED)
    assert (promoted.version, promoted.to) == (second.version, PolicyState.ACTIVE)
    assert retired.sequence == promoted.sequence


def test_taking_the_active_version_down_restores_the_last_good_one(registry: Registry, publish: Publish) -> None:
    first, second = publish(registry, 1), publish(registry, 2)
    activate(registry, first)
    activate(registry, second)
    registry.transition(second.version, PolicyState.REJECTED, reason="canary logprobs differ", actor="server")
    state = registry.state()
    assert state.active == first.version
    assert state.states[second.version] is PolicyState.REJECTED
    assert "canary logprobs differ" in state.reasons[first.version]


def test_rollback_goes_to_the_named_version_or_the_last_good_one(registry: Registry, publish: Publish) -> None:
    versions = [publish(registry, step) for step in (1, 2, 3)]
    for manifest in versions:
        activate(registry, manifest)
    assert registry.rollback(None, reason="worse", actor="operator") == versions[1].version
    assert registry.rollback(versions[0].version, reason="worse", actor="operator") == versions[0].version
    assert registry.state().states[versions[2].version] is PolicyState.ROLLED_BACK


def on_trial(registry: Registry, manifest: Manifest) -> None:
    registry.transition(manifest.version, PolicyState.CANDIDATE, reason="new", actor="test")
    registry.transition(manifest.version, PolicyState.CANARY, reason="passed the gate", actor="test")


def test_a_rollback_without_a_name_ends_the_canary_and_leaves_the_active_version(
    registry: Registry, publish: Publish
) -> None:
    first, second, third = (publish(registry, step) for step in (1, 2, 3))
    activate(registry, first)
    activate(registry, second)
    on_trial(registry, third)
    assert registry.rollback(None, reason="worse", actor="operator") == second.version
    state = registry.state()
    assert (state.active, state.canary) == (second.version, None)
    assert state.states[third.version] is PolicyState.ROLLED_BACK
    assert registry.rollback(None, reason="worse", actor="operator") == first.version


def test_whoever_changes_the_active_version_ends_the_canary_in_the_same_entry(
    registry: Registry, publish: Publish
) -> None:
    first, second, third, fourth = (publish(registry, step) for step in (1, 2, 3, 4))
    activate(registry, first)
    activate(registry, second)
    for manifest, change in (
        (third, lambda: registry.rollback(first.version, reason="worse", actor="operator")),
        (
            fourth,
            lambda: registry.transition(second.version, PolicyState.ACTIVE, reason="after all", actor="operator"),
        ),
    ):
        on_trial(registry, manifest)
        before = registry.state().sequence
        change()
        ended = [move for move in registry.transitions(before) if move.version == manifest.version]
        assert [(move.to, move.sequence) for move in ended] == [(PolicyState.ROLLED_BACK, before + 1)]
        assert registry.state().canary is None


def test_a_promoted_canary_stays(registry: Registry, publish: Publish) -> None:
    first, second = publish(registry, 1), publish(registry, 2)
    activate(registry, first)
    on_trial(registry, second)
    figures = {"canary_ratings": 40.0}
    registry.transition(second.version, PolicyState.ACTIVE, reason="liked", actor="trainer", figures=figures)
    state = registry.state()
    assert (state.active, state.canary) == (second.version, None)
    assert registry.transitions()[-1].figures == figures


def test_a_decision_that_rests_on_another_active_version_is_refused(registry: Registry, publish: Publish) -> None:
    first, second, third = (publish(registry, step) for step in (1, 2, 3))
    activate(registry, first)
    activate(registry, second)
    registry.transition(third.version, PolicyState.CANDIDATE, reason="new", actor="trainer")
    registry.rollback(None, reason="users complain", actor="operator")
    before = registry.state()
    with pytest.raises(ActiveChanged, match=f"{first.version} is active, no longer {second.version}"):
        registry.transition(
            third.version, PolicyState.CANARY, reason="passed", actor="trainer", expected_active=second.version
        )
    with pytest.raises(ActiveChanged):
        registry.rollback(None, reason="worse", actor="trainer", expected_active=second.version)
    assert registry.state() == before


def test_a_rollback_goes_to_what_was_active_before(registry: Registry, publish: Publish) -> None:
    first, trial, untried = (publish(registry, step) for step in (1, 2, 3))
    activate(registry, first)
    on_trial(registry, trial)
    registry.transition(untried.version, PolicyState.CANDIDATE, reason="new", actor="trainer")
    before = registry.state()
    for manifest in (trial, untried):
        with pytest.raises(IllegalTransition, match="was never active: promote it"):
            registry.rollback(manifest.version, reason="worse", actor="operator")
    assert registry.state() == before


def test_the_only_version_cannot_be_taken_down(registry: Registry, publish: Publish) -> None:
    only = publish(registry)
    activate(registry, only)
    with pytest.raises(IllegalTransition, match="no retired predecessor"):
        registry.rollback(None, reason="worse", actor="operator")
    assert registry.state().active == only.version


def test_what_failed_its_checks_never_serves(registry: Registry, publish: Publish) -> None:
    bad = publish(registry)
    registry.transition(bad.version, PolicyState.CANDIDATE, reason="new", actor="test")
    registry.transition(bad.version, PolicyState.REJECTED, reason="KL", actor="test")
    with pytest.raises(IllegalTransition, match="it can become nothing, not active"):
        registry.transition(bad.version, PolicyState.ACTIVE, reason="please", actor="operator")


def test_training_state_reaches_other_processes(tmp_path: Path) -> None:
    url = (tmp_path / "registry").as_uri()
    mine, theirs = Registry(url), Registry(url)
    mine.set_training_state("paused", reason="incident", actor="operator")
    assert theirs.state().training_state == "paused"


def test_listeners_hear_what_this_process_wrote(registry: Registry, publish: Publish) -> None:
    heard: list[tuple[str, str]] = []
    registry.listen(lambda move: heard.append((move.version, move.to)))
    manifest = publish(registry)
    activate(registry, manifest)
    assert heard == [(manifest.version, "candidate"), (manifest.version, "active")]


def _promote_one(url: str, version: str, results: "multiprocessing.Queue[str]") -> None:
    Registry(url).transition(version, PolicyState.ACTIVE, reason="race", actor=version)
    results.put(version)


@pytest.mark.slow
def test_racing_processes_agree(tmp_path: Path, publish: Publish) -> None:
    url = (tmp_path / "registry").as_uri()
    registry = Registry(url)
    versions = [publish(registry, step).version for step in range(1, 7)]
    for version in versions:
        registry.transition(version, PolicyState.CANDIDATE, reason="new", actor="test")
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[str] = context.Queue()
    racers = [context.Process(target=_promote_one, args=(url, version, results)) for version in versions]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)
        assert racer.exitcode == 0
    state = registry.state()
    assert list(state.states.values()).count(PolicyState.ACTIVE) == 1
    assert sorted(state.history) == sorted(versions)


class Lifecycle(RuleBasedStateMachine):
    """Random moves through one handle, read through another: both always see one consistent history."""

    @initialize()
    def start(self) -> None:
        url = f"memory://{uuid.uuid4().hex}"
        self.writer, self.reader = Registry(url), Registry(url)
        base = self.writer.publish_base("tiny", BASE_DIGEST)
        self.writer.transition(base.version, PolicyState.ACTIVE, reason="first", actor="test")
        self.versions = [base.version]
        self.rejected: set[str] = set()
        self.stale = self.writer.state()
        self.rival: tuple[str | None, str | None] = (None, None)

    @rule()
    def publish(self) -> None:
        manifest = self.writer.publish(
            Path(tempfile.mkdtemp()),
            step=len(self.versions),
            parent=self.versions[-1],
            base="tiny",
            base_digest=BASE_DIGEST,
            figures={},
        )
        self.writer.transition(manifest.version, PolicyState.CANDIDATE, reason="new", actor="test")
        self.versions.append(manifest.version)

    @rule(data=st.data(), to=st.sampled_from(PolicyState))
    def move(self, data: st.DataObject, to: PolicyState) -> None:
        version = data.draw(st.sampled_from(self.versions))
        before = self.writer.state()
        try:
            self.writer.transition(version, to, reason="random", actor="test")
        except IllegalTransition:
            after = self.writer.state()
            assert after.sequence == before.sequence
            return
        assert to in LEGAL[before.states[version]]
        if to is PolicyState.REJECTED:
            self.rejected.add(version)

    @rule(to=st.sampled_from([PolicyState.ACTIVE, PolicyState.REJECTED, PolicyState.ROLLED_BACK]), late=st.booleans())
    def decide_on_the_canary(self, to: PolicyState, late: bool) -> None:
        """The trainer promotes or rolls back, a server refuses; late: by what they saw before the others' moves."""
        seen = self.stale if late else self.writer.state()
        if not seen.canary:
            return
        before = self.writer.state()
        try:
            self.writer.transition(seen.canary, to, reason="decided", actor="test", expected_active=seen.active)
        except IllegalTransition:
            assert self.writer.state() == before
            assert late
            return
        after = self.writer.state()
        assert before.active == seen.active
        assert after.active == (seen.canary if to is PolicyState.ACTIVE else seen.active)
        assert after.canary is None
        if to is PolicyState.REJECTED:
            self.rejected.add(seen.canary)

    @rule(data=st.data(), named=st.booleans())
    def roll_back(self, data: st.DataObject, named: bool) -> None:
        target = data.draw(st.sampled_from(self.versions)) if named else None
        before = self.writer.state()
        try:
            active = self.writer.rollback(target, reason="worse", actor="operator")
        except IllegalTransition:
            assert self.writer.state() == before
            return
        after = self.writer.state()
        assert (after.active, after.canary) == (active, None)
        assert active in (before.active, *before.history)
        assert target in (None, active)
        taken_down = before.canary or before.active
        assert after.states[str(taken_down)] is PolicyState.ROLLED_BACK

    @rule()
    def look(self) -> None:
        self.stale = self.writer.state()

    @invariant()
    def a_canary_keeps_its_rival(self) -> None:
        """While a canary stands, the version that it is compared with stays active."""
        if not hasattr(self, "reader"):
            return
        state = self.reader.state()
        if state.canary and state.canary == self.rival[0]:
            assert state.active == self.rival[1]
        self.rival = state.canary, state.active

    @invariant()
    def exactly_one_version_is_active(self) -> None:
        if not hasattr(self, "reader"):
            return
        state = self.reader.state()
        active = [version for version, status in state.states.items() if status is PolicyState.ACTIVE]
        assert active == [state.active]
        assert state.active not in self.rejected
        assert sum(status is PolicyState.CANARY for status in state.states.values()) <= 1


TestLifecycle = Lifecycle.TestCase
TestLifecycle.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
