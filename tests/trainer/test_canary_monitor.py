"""The monitor over a real registry and a real preference store: what it writes down, and what it leaves alone."""

import threading
import time
import uuid
from pathlib import Path

import pytest

from feedback.record import Record
from feedback.store import PreferenceStore
from feedback.topics import FEEDBACK, RESPONSES
from foldback.v1 import feedback_pb2
from registry import PolicyState, Registry
from settings.canary import CanarySettings
from tests.feedback.events import make_feedback, make_response
from trainer import publish
from trainer.canary_monitor import CanaryMonitor

SETTINGS = CanarySettings(poll_interval_s=0.01)
RATERS = 12


class Trial:
    """A registry with a base and a version on trial, and users who give thumbs; the clock stands still."""

    def __init__(self, directory: Path, settings: CanarySettings = SETTINGS) -> None:
        self.directory, self.settings = directory, settings
        self.registry = Registry((directory / "registry").as_uri())
        self.store = PreferenceStore(directory / "preferences.sqlite")
        self.base = self.registry.publish_base("tiny", "0" * 64).version
        self.registry.transition(self.base, PolicyState.ACTIVE, reason="the base", actor="server")
        self.now = time.time()
        self.since = 0
        self.monitor = self.restart()
        self.said = 0

    def restart(self) -> CanaryMonitor:
        self.monitor = CanaryMonitor(
            self.settings, self.store, self.registry, since=lambda: self.since, clock=lambda: self.now
        )
        return self.monitor

    def put_on_trial(self) -> str:
        state = self.registry.state()
        assert state.active
        draft = self.directory / uuid.uuid4().hex
        draft.mkdir()
        (draft / "adapter.json").write_text(f'"{draft.name}"')
        version = self.registry.publish(
            draft,
            step=len(state.states),
            parent=state.active,
            base="tiny",
            base_digest="0" * 64,
            figures={},
        ).version
        publish.promote(self.registry, version, {}, on_trial=True, expected_active=state.active)
        return version

    def thumbs(self, version: str, up: int, down: int, *, raters: int = RATERS) -> None:
        """Evenly mixed, by one rater after the other."""
        liked = [index * (up + down) // max(1, up) for index in range(up)]
        for index in range(up + down):
            self.said += 1
            name = f"r{self.said}"
            response = make_response(name, conversation_id=name)
            response.policy_version = version
            thumbs = feedback_pb2.THUMBS_UP if index in liked else feedback_pb2.THUMBS_DOWN
            feedback = make_feedback(
                f"f{self.said}", [response], rater_id=f"u{self.said % raters}", time=self.now, thumbs=thumbs
            )
            records = [
                Record(topic, 0, self.said, name.encode(), event.SerializeToString(), "")
                for topic, event in ((RESPONSES, response), (FEEDBACK, feedback))
            ]
            self.store.ingest(records, "cluster", {})


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    return Trial(tmp_path)


def test_without_a_canary_there_is_nothing_to_wait_for(trial: Trial) -> None:
    assert trial.monitor.check() == ""


def test_a_disliked_canary_is_rolled_back_with_its_figures(trial: Trial) -> None:
    trial.thumbs(trial.base, 60, 20)
    version = trial.put_on_trial()
    assert trial.monitor.check() == f"waiting for users' word on canary {version}: no ratings"
    trial.thumbs(version, 2, 28)
    assert trial.monitor.check() == ""
    state = trial.registry.state()
    assert (state.active, state.canary) == (trial.base, None)
    assert state.states[version] is PolicyState.ROLLED_BACK
    assert "users find it worse: mean 0.0" in state.reasons[version]
    last = trial.registry.transitions()[-1]
    assert (last.version, last.to, last.actor) == (version, PolicyState.ROLLED_BACK, "trainer")
    figures = last.figures
    assert (figures["canary_ratings"], figures["canary_raters"]) == (30, RATERS)
    assert figures["canary_control_ratings"] == 80
    assert figures["canary_control_mean"] == pytest.approx(0.75, abs=0.05)
    assert figures["canary_evidence_against"] >= 20 > figures["canary_evidence_for"]


def test_a_canary_is_not_held_against_what_was_said_by_a_taste_of_before(trial: Trial) -> None:
    """All were pleased with the base, then want something else: no version pleases them as much, not even the base."""
    trial.thumbs(trial.base, 60, 5)
    version = trial.put_on_trial()
    trial.since = trial.said + 1
    trial.thumbs(trial.base, 2, 18)
    trial.thumbs(version, 4, 20)
    assert "mean 0.17 of 24 ratings by 12, before 0.12 of 20 by 12" in trial.monitor.check()
    assert trial.monitor.check(next_is_ready=True) == ""
    assert trial.registry.state().active == version
    trial.thumbs(version, 0, 30)
    trial.monitor.check()
    assert trial.registry.state().active == version, "nor once it is promoted, while it is watched"


def test_a_liked_canary_is_promoted_with_its_figures(trial: Trial) -> None:
    trial.thumbs(trial.base, 60, 60)
    version = trial.put_on_trial()
    trial.thumbs(version, 40, 2)
    assert trial.monitor.check() == ""
    state = trial.registry.state()
    assert (state.active, state.canary) == (version, None)
    assert "users find it as good" in state.reasons[version]
    assert trial.registry.transitions()[-1].figures["canary_evidence_for"] >= 20


def test_the_next_candidate_and_the_deadline_end_an_undecided_trial(trial: Trial) -> None:
    trial.thumbs(trial.base, 20, 20)
    first = trial.put_on_trial()
    trial.thumbs(first, 6, 6)
    assert "12 ratings by 12" in trial.monitor.check()
    assert trial.monitor.check(next_is_ready=True) == ""
    assert trial.registry.state().active == first
    second = trial.put_on_trial()
    assert trial.monitor.check(next_is_ready=True) != ""
    trial.now += SETTINGS.max_wait_s + 60
    trial.restart()  # what was said while the trainer was away has still to be read
    assert trial.monitor.check() != ""
    trial.now += SETTINGS.max_wait_s + 60
    assert trial.monitor.check() == ""
    state = trial.registry.state()
    assert state.active == second
    assert "undecided, so trusted and watched" in state.reasons[second]


def test_a_version_that_turns_out_bad_is_taken_down_after_its_promotion(trial: Trial) -> None:
    trial.thumbs(trial.base, 60, 20)
    version = trial.put_on_trial()
    trial.thumbs(version, 9, 3)
    trial.monitor.check(next_is_ready=True)
    assert trial.registry.state().active == version
    trial.restart()
    trial.thumbs(version, 0, 40)
    following = trial.put_on_trial()
    trial.monitor.check()
    state = trial.registry.state()
    assert (state.active, state.canary) == (trial.base, None)
    assert state.states[version] is state.states[following] is PolicyState.ROLLED_BACK
    restored = trial.registry.transitions()[-1]
    assert restored.version == trial.base
    assert restored.figures["canary_evidence_against"] >= 20
    # The base is active by this decision: there is nothing left to watch.
    assert trial.monitor.check() == ""
    assert trial.registry.transitions()[-1] == restored


@pytest.mark.parametrize("why", ["time", "operator"])
def test_the_watch_ends_and_an_operators_word_is_not_overridden(trial: Trial, why: str) -> None:
    trial.thumbs(trial.base, 60, 20)
    version = trial.put_on_trial()
    trial.thumbs(version, 9, 3)
    if why == "operator":
        trial.registry.transition(version, PolicyState.ACTIVE, reason="I like it", actor="operator")
    else:
        trial.monitor.check(next_is_ready=True)
        trial.now += SETTINGS.watch_s + 60
    trial.thumbs(version, 0, 40)
    trial.monitor.check()
    assert trial.registry.state().active == version


def test_one_hostile_rater_cannot_roll_back(trial: Trial) -> None:
    trial.thumbs(trial.base, 60, 20)
    version = trial.put_on_trial()
    trial.thumbs(version, 0, 100, raters=1)
    assert "100 ratings by 1" in trial.monitor.check()
    trial.now += SETTINGS.max_wait_s + 60
    assert trial.monitor.check() == ""
    assert trial.registry.state().active == version


def test_another_decision_that_comes_first_stands(trial: Trial) -> None:
    trial.thumbs(trial.base, 60, 20)
    version = trial.put_on_trial()
    trial.thumbs(version, 0, 40)
    late, early = trial.restart(), trial.registry
    before = early.state()
    early.transition(version, PolicyState.REJECTED, reason="canary logprobs differ", actor="server")
    # What it saw before the server's refusal leads to nothing.
    assert late._try(before, next_is_ready=False) == ""
    state = trial.registry.state()
    assert (state.active, state.states[version]) == (trial.base, PolicyState.REJECTED)


def test_a_restart_comes_to_the_same_case(trial: Trial) -> None:
    trial.thumbs(trial.base, 30, 30)
    version = trial.put_on_trial()
    straight = trial.monitor
    for _ in range(4):
        trial.thumbs(version, 2, 1)
        waiting = straight.check()
    assert waiting == trial.restart().check() != ""


def test_its_thread_decides_by_itself(trial: Trial) -> None:
    trial.thumbs(trial.base, 60, 20)
    version = trial.put_on_trial()
    stop = threading.Event()
    thread = threading.Thread(target=trial.monitor.run, args=(stop,))
    thread.start()
    try:
        trial.thumbs(version, 0, 40)
        deadline = time.monotonic() + 60
        while trial.registry.state().canary and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        stop.set()
        thread.join()
    assert trial.registry.state().states[version] is PolicyState.ROLLED_BACK
