"""Follows what users say of the version on trial, and of the one promoted last, and decides by it."""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable

from feedback.store import PreferenceStore
from registry import ArtifactError, IllegalTransition, PolicyState, Registry, RegistryState, Transition
from settings.canary import CanarySettings
from trainer import metrics
from trainer.canary import PROMOTES, Case, Report, Verdict, decide, found_worse
from trainer.publish import ACTOR

log = logging.getLogger("trainer")

_KEPT = 4
"""Cases in memory: one on trial, one watched, and some that ended just now."""


class CanaryMonitor:
    """Decides on its own thread, as a turn of the loop may last minutes; safe to ask from any.

    It writes to the registry alone: the loop and the servers follow what stands there, whoever decided. So there is
    nothing to resume: after a restart the same ratings make the same case.

    Args:
        since: sequence of the first judgement by what people like now (`RewardModel.since`). A version is not held
            against what was said of another one by a taste of before.
        clock: Unix seconds.
    """

    def __init__(
        self,
        settings: CanarySettings,
        store: PreferenceStore,
        registry: Registry,
        since: Callable[[], int],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._store = store
        self._registry = registry
        self._since = since
        self._clock = clock
        self._started = clock()
        self._lock = threading.Lock()
        self._cases: dict[tuple[str, str, float, int], Case] = {}

    def run(self, stop: threading.Event) -> None:
        """Look at the ratings again and again until `stop`."""
        while not stop.wait(self._settings.poll_interval_s):
            try:
                self.check()
            except (OSError, sqlite3.OperationalError) as error:
                log.warning(
                    "canary: registry or preference store cannot be read (%s); the next look tries again", error
                )

    def check(self, *, next_is_ready: bool = False) -> str:
        """Decide what the ratings so far allow. Returns what a canary still waits for; "" where there is none.

        Args:
            next_is_ready: the candidate after the canary waits for the decision.

        Raises:
            OSError: the registry cannot be reached.
        """
        with self._lock:
            state = self._registry.state()
            if not state.canary:
                metrics.canary_on_trial.set(0)
            self._watch(state)
            return self._try(state, next_is_ready=next_is_ready)

    # On trial

    def _try(self, state: RegistryState, *, next_is_ready: bool) -> str:
        if not (state.canary and state.active):
            return ""
        began = self._entry(state.canary, PolicyState.CANARY)
        if began is None:
            return ""
        report = self._report(state.canary, state.active, began.time)
        metrics.show_canary(report, on_trial=True)
        # After a restart what was said meanwhile has still to be read: it gets the time for that.
        waited_s = self._clock() - max(began.time, self._started)
        verdict = decide(report, self._settings, waited_s=waited_s, next_is_ready=next_is_ready)
        if verdict is Verdict.WAIT:
            return f"waiting for users' word on canary {state.canary}: {report}"
        self._settle(state.canary, state.active, verdict, report)
        return ""

    def _settle(self, canary: str, rival: str, verdict: Verdict, report: Report) -> None:
        try:
            self._registry.transition(
                canary,
                PolicyState.ACTIVE if verdict in PROMOTES else PolicyState.ROLLED_BACK,
                reason=f"{_WHY[verdict]}: {report}",
                actor=ACTOR,
                figures=report.figures,
                expected_active=rival,
            )
        except (IllegalTransition, ArtifactError) as error:
            log.info("canary %s: decided by somebody else: %s", canary, error)
            return
        metrics.canary_decisions.labels(verdict).inc()
        if verdict in PROMOTES:
            metrics.versions_published.inc()
        log.info("canary %s: %s: %s", canary, _WHY[verdict], report)

    # Promoted

    def _watch(self, state: RegistryState) -> None:
        """Roll the active version back if it turns out worse than the one whose place it took."""
        promoted = self._entry(state.active, PolicyState.ACTIVE)
        if promoted is None or promoted.before is not PolicyState.CANARY or promoted.actor != ACTOR:
            return  # the base, or an operator's word
        if self._clock() - promoted.time > self._settings.watch_s:
            return
        began = self._entry(promoted.version, PolicyState.CANARY)
        rival = next(
            (
                move.version
                for move in self._registry.transitions(promoted.sequence - 1)
                if move.sequence == promoted.sequence and move.to is PolicyState.RETIRED
            ),
            None,
        )
        if began is None or rival is None or state.states[rival] is not PolicyState.RETIRED:
            return
        report = self._report(promoted.version, rival, began.time)
        if not state.canary:
            metrics.show_canary(report, on_trial=False)
        if found_worse(report, self._settings):
            self._take_down(promoted.version, rival, report)

    def _take_down(self, version: str, rival: str, report: Report) -> None:
        try:
            self._registry.rollback(
                rival,
                reason=f"{_WHY[Verdict.ROLLED_BACK]}: {report}",
                actor=ACTOR,
                figures=report.figures,
                expected_active=version,
            )
        except (IllegalTransition, ArtifactError) as error:
            log.warning("%s is found worse than %s and stays active: %s", version, rival, error)
            return
        metrics.canary_decisions.labels("taken_down").inc()
        log.warning("%s: %s: %s: back to %s", version, _WHY[Verdict.ROLLED_BACK], report, rival)

    # Both

    def _entry(self, version: str | None, to: PolicyState) -> Transition | None:
        """The latest move of `version` to a state, if that is recorded."""
        moves = reversed(self._registry.transitions())
        return next((move for move in moves if move.version == version and move.to is to), None)

    def _report(self, version: str, rival: str, began: float) -> Report:
        since = self._since()
        key = version, rival, began, since
        case = self._cases.pop(key, None) or Case(version, rival, began, self._settings, after=max(0, since - 1))
        self._cases[key] = case  # the latest last
        while len(self._cases) > _KEPT:
            del self._cases[next(iter(self._cases))]
        latest = self._store.last_sequence()
        if latest > case.position:
            case.add(self._store.ratings((version, rival), case.position))
            case.position = max(case.position, latest)  # what came last may say nothing of versions
        return case.report()


_WHY = {
    Verdict.PROMOTED: "users find it as good",
    Verdict.TRUSTED: "undecided, so trusted and watched",
    Verdict.ROLLED_BACK: "users find it worse",
    Verdict.DISTRUSTED: "undecided, so not trusted",
}
