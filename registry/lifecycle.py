"""The states of a policy version, the moves between them, and the state of the whole registry."""

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal

TrainingState = Literal["running", "paused"]


class PolicyState(StrEnum):
    TRAINING = "training"
    CANDIDATE = "candidate"
    CANARY = "canary"
    ACTIVE = "active"
    RETIRED = "retired"
    REJECTED = "rejected"
    ROLLED_BACK = "rolled_back"


_S = PolicyState

# From None: a version that is published and has no state yet. The base policy alone is born active.
LEGAL: dict[PolicyState | None, frozenset[PolicyState]] = {
    None: frozenset({_S.TRAINING, _S.CANDIDATE, _S.ACTIVE}),
    _S.TRAINING: frozenset({_S.CANDIDATE, _S.REJECTED}),
    _S.CANDIDATE: frozenset({_S.CANARY, _S.ACTIVE, _S.REJECTED}),
    _S.CANARY: frozenset({_S.ACTIVE, _S.REJECTED, _S.ROLLED_BACK}),
    _S.ACTIVE: frozenset({_S.RETIRED, _S.REJECTED, _S.ROLLED_BACK}),
    # An operator may return to what once served; never to what failed its checks.
    _S.RETIRED: frozenset({_S.ACTIVE}),
    _S.ROLLED_BACK: frozenset({_S.ACTIVE}),
    _S.REJECTED: frozenset(),
}

ENDED = frozenset({_S.RETIRED, _S.REJECTED, _S.ROLLED_BACK})


class IllegalTransition(Exception):
    """A move that the life cycle does not have; the message names the version, where it is and what is possible."""


class ActiveChanged(IllegalTransition):
    """Another version was made active since the caller decided."""


Move = tuple[str, PolicyState, str]
"""Version, where to, why."""


@dataclass(slots=True)
class RegistryState:
    """Everything the transitions so far add up to."""

    active: str | None = None
    canary: str | None = None
    states: dict[str, PolicyState] = field(default_factory=dict)
    """By version, oldest first."""
    reasons: dict[str, str] = field(default_factory=dict)
    history: list[str] = field(default_factory=list)
    """Versions in the order they became active."""
    training_state: TrainingState = "running"
    sequence: int = 0

    def copy(self) -> "RegistryState":
        """One that later moves leave as it is."""
        return replace(self, states=dict(self.states), reasons=dict(self.reasons), history=list(self.history))

    def check(self, version: str, to: PolicyState) -> None:
        """Raise IllegalTransition unless `version` may move to `to` now."""
        now = self.states.get(version)
        if to not in LEGAL[now]:
            possible = ", ".join(sorted(LEGAL[now])) or "nothing"
            raise IllegalTransition(f"{version} is {now or 'new'}; it can become {possible}, not {to}")
        if to is PolicyState.CANARY and self.canary:
            raise IllegalTransition(f"{self.canary} is the canary; decide on it before {version}")

    def expect_active(self, version: str | None) -> None:
        """Raise ActiveChanged unless `version` is active; None expects nothing."""
        if version and version != self.active:
            raise ActiveChanged(f"{self.active} is active, no longer {version}: {self.reasons.get(self.active or '')}")

    def moves_to(self, version: str, to: PolicyState, reason: str) -> list[Move]:
        """All that has to happen at once when `version` moves to `to`. Raises IllegalTransition."""
        self.check(version, to)
        if to is PolicyState.ACTIVE:
            retired = [(self.active, PolicyState.RETIRED, f"{version} took its place")] if self.active else []
            return [*retired, *self._end_canary(version), (version, to, reason)]
        if version == self.active:
            last_good = self.last_good()
            restored = (last_good, PolicyState.ACTIVE, f"{version} was {to}: {reason}")
            return [(version, to, reason), *self._end_canary(last_good), restored]
        return [(version, to, reason)]

    def moves_back(self, to_version: str | None, reason: str) -> list[Move]:
        """A rollback: to `to_version`; else from the canary to the active version, else from that to the last good one.

        Raises IllegalTransition: there is nothing to return to, or `to_version` was never active: it is no way around
        the gate, nor one to end a trial in the canary's favour.
        """
        if self.canary and to_version in (None, self.active):
            return [(self.canary, PolicyState.ROLLED_BACK, reason)]
        target = to_version or self.last_good()
        if not self.active or target == self.active:
            raise IllegalTransition(f"{target} is active already")
        if target not in self.history:
            now = self.states.get(target, "unknown")
            raise IllegalTransition(f"{target} is {now} and was never active: promote it")
        self.check(target, PolicyState.ACTIVE)
        return [
            (self.active, PolicyState.ROLLED_BACK, reason),
            *self._end_canary(target),
            (target, PolicyState.ACTIVE, f"rolled back from {self.active}: {reason}"),
        ]

    def _end_canary(self, next_active: str) -> list[Move]:
        """The canary descends from the active version and is compared with it: they go together."""
        if not self.canary or self.canary == next_active:
            return []
        return [(self.canary, PolicyState.ROLLED_BACK, f"{next_active} was made active meanwhile")]

    def apply(self, version: str, to: PolicyState, reason: str) -> None:
        if self.active == version and to is not PolicyState.ACTIVE:
            self.active = None
        if self.canary == version:
            self.canary = None
        if to is PolicyState.ACTIVE:
            self.active = version
            self.history.append(version)
        elif to is PolicyState.CANARY:
            self.canary = version
        self.states[version] = to
        self.reasons[version] = reason

    def good_predecessors(self) -> list[str]:
        """Versions that were active before and were retired in good standing, in the order they served."""
        return [
            version
            for version in self.history
            if version != self.active and self.states[version] is PolicyState.RETIRED
        ]

    def last_good(self) -> str:
        """The version to fall back to from the active one. Raises IllegalTransition: there is none."""
        predecessors = self.good_predecessors()
        if not predecessors:
            raise IllegalTransition(f"{self.active} has no retired predecessor to return to")
        return predecessors[-1]
