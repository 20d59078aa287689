"""The registry: versions' files, and the life cycle that they move through."""

import threading
import time
from collections.abc import Callable

import fsspec

from registry.artifacts import Artifacts
from registry.journal import Entry, Journal, Taken, TrainingChange, Transition
from registry.lifecycle import ENDED, Move, PolicyState, RegistryState, TrainingState

Listener = Callable[[Transition], None]


class Registry(Artifacts):
    """Safe to share between threads and processes: artifacts never change, transitions are compare-and-swap."""

    def __init__(self, url: str) -> None:
        filesystem, root = fsspec.core.url_to_fs(url)
        super().__init__(filesystem, str(root).rstrip("/"))
        self._journal = Journal(self._fs, self._root)
        self._lock = threading.RLock()
        self._state = RegistryState()
        self._entries: list[Entry] = []
        self._listeners: list[Listener] = []

    def collect(self, keep: int) -> list[str]:
        """Delete the artifacts of ended versions but `keep`: first rejected ones, which cannot serve again, and the
        oldest of each kind; never the active one, its parent, the one to fall back to, or the base.

        Their transitions stay in the log.
        """
        state = self.state()
        spared = {state.active, state.canary, *state.good_predecessors()[-1:]}
        if state.active:
            spared.add(self.manifest(state.active).parent)
        ended = [
            version
            for version, status in state.states.items()
            if status in ENDED and version not in spared and not version.startswith("p000000-")
        ]
        ended.sort(key=lambda version: state.states[version] is not PolicyState.REJECTED)
        present = [version for version in ended if self.has(version)]
        collected = present[: max(0, len(present) - keep)]
        for version in collected:
            self.remove(version)
        return collected

    # Life cycle

    def state(self) -> RegistryState:
        """What all transitions up to this moment add up to; the caller's own copy. Raises OSError: out of reach."""
        with self._lock:
            self._catch_up()
            return self._state.copy()

    def transitions(self, after: int = 0) -> list[Transition]:
        """Every move with a sequence number above `after`, oldest first."""
        with self._lock:
            self._catch_up()
            return [move for entry in self._entries[max(after, 0) :] for move in entry.transitions]

    def transition(
        self,
        version: str,
        to: PolicyState,
        *,
        reason: str,
        actor: str,
        figures: dict[str, float] | None = None,
        expected_active: str | None = None,
    ) -> Transition:
        """Move `version` to `to`. In the same entry, promoting it retires the version that was active, and taking the
        active version down makes the last good one active again. A canary whose rival goes is rolled back with it.

        Args:
            expected_active: the version whose being active the decision rests on.

        Raises:
            IllegalTransition: the life cycle has no such move; ActiveChanged: `expected_active` is not active.
            ArtifactError: a version that is not in the registry would become active.
        """

        def decide(state: RegistryState) -> list[Move]:
            state.expect_active(expected_active)
            return self._possible(state.moves_to(version, to, reason))

        moves = self._append(decide, actor, figures or {})
        return next(move for move in moves if move.version == version)

    def rollback(
        self,
        to_version: str | None,
        *,
        reason: str,
        actor: str,
        figures: dict[str, float] | None = None,
        expected_active: str | None = None,
    ) -> str:
        """Take down what came last: the canary if there is one, else the active version; or all down to `to_version`.
        Returns the version that is active now: in the same entry, the last good one or `to_version`.

        Raises:
            IllegalTransition: nothing to return to, or `to_version` never served; ActiveChanged: as in `transition`.
            ArtifactError: it is no longer in the registry.
        """
        active = ""

        def decide(state: RegistryState) -> list[Move]:
            nonlocal active
            state.expect_active(expected_active)
            moves = self._possible(state.moves_back(to_version, reason))
            active = next((name for name, to, _ in moves if to is PolicyState.ACTIVE), state.active or "")
            return moves

        self._append(decide, actor, figures or {})
        return active

    def set_training_state(self, state: TrainingState, *, reason: str, actor: str) -> None:
        """Ask every trainer to run or to pause; `reason` and `actor` stay in the log."""
        with self._lock:
            while True:
                self._catch_up()
                if self._state.training_state == state:
                    return
                try:
                    change = TrainingChange(state, reason, actor, time.time())
                    self._journal.append(Entry(self._state.sequence + 1, training=change))
                except Taken:
                    continue
                self._catch_up()
                return

    @property
    def reachable(self) -> bool:
        """Whether the last look at the transitions succeeded."""
        return self._journal.reachable

    def listen(self, listener: Listener) -> None:
        """Call `listener` after each move that this process writes."""
        self._listeners.append(listener)

    # Inside

    def _possible(self, moves: list[Move]) -> list[Move]:
        """Raises ArtifactError unless the version that becomes active is there."""
        for name, to, _ in moves:
            if to is PolicyState.ACTIVE:
                self.manifest(name)
        return moves

    def _append(
        self,
        decide: Callable[[RegistryState], list[Move]],
        actor: str,
        figures: dict[str, float],
    ) -> tuple[Transition, ...]:
        with self._lock:
            while True:
                self._catch_up()
                sequence, moment = self._state.sequence + 1, time.time()
                moves = tuple(
                    Transition(sequence, name, self._state.states.get(name), to, why, actor, moment, figures)
                    for name, to, why in decide(self._state)
                )
                try:
                    self._journal.append(Entry(sequence, moves))
                except Taken:
                    continue
                self._catch_up()
                break
        for listener in self._listeners:
            for move in moves:
                listener(move)
        return moves

    def _catch_up(self) -> None:
        while entry := self._journal.read(self._state.sequence + 1):
            for move in entry.transitions:
                self._state.apply(move.version, move.to, move.reason)
            if entry.training:
                self._state.training_state = entry.training.state
            self._state.sequence = entry.sequence
            self._entries.append(entry)
