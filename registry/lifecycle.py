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
