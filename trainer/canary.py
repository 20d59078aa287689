"""The canary's case: what users said of a version and of its rival, and what that allows to decide."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from feedback.ratings import Rating
from foldback.v1.feedback_pb2 import FEEDBACK_SOURCE_ANNOTATOR, FEEDBACK_SOURCE_END_USER
from settings.canary import CanarySettings
from trainer.canary_evidence import Evidence

_PEOPLE = frozenset({FEEDBACK_SOURCE_END_USER, FEEDBACK_SOURCE_ANNOTATOR})
"""Whose ratings count. Models must not promote models, and implicit signals are too easily moved."""


_LEANS = 2.0
"""e-value that speaks against a version whose mean is below the margin, though it shows nothing."""


class Verdict(StrEnum):
    """Also the label of the decisions' counter."""

    WAIT = "wait"
    PROMOTED = "promoted"
    """Shown to be as good."""
    TRUSTED = "trusted"
    """Promoted without evidence; it stays watched."""
    ROLLED_BACK = "rolled_back"
    """Shown to be worse."""
    DISTRUSTED = "distrusted"
    """Rolled back without evidence."""


PROMOTES = frozenset({Verdict.PROMOTED, Verdict.TRUSTED})


@dataclass(slots=True)
class _Arm:
    """One version's ratings, summed up."""

    ratings: int = 0
    _by_rater: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Count and mean."""
    _sum_of_means: float = 0.0

    def add(self, rater: str, value: float) -> None:
        self.ratings += 1
        count, mean = self._by_rater.get(rater, (0, 0.0))
        step = (value - mean) / (count + 1)
        self._by_rater[rater] = count + 1, mean + step
        self._sum_of_means += step

    @property
    def raters(self) -> int:
        return len(self._by_rater)

    @property
    def mean(self) -> float:
        """Of the raters' means: each rater counts once. 0 without ratings."""
        return self._sum_of_means / max(1, self.raters)


@dataclass(frozen=True, slots=True)
class Report:
    """Where a case stands. Means are over raters, each counted once."""

    ratings: int
    raters: int
    mean: float
    control_ratings: int
    control_raters: int
    control_mean: float
    evidence_for: float
    """e-value against "worse by the margin"."""
    evidence_against: float
    """e-value against "as good"."""

    @property
    def difference(self) -> float:
        return self.mean - self.control_mean

    @property
    def figures(self) -> dict[str, float]:
        """For the transition's record."""
        return {
            "canary_ratings": float(self.ratings),
            "canary_raters": float(self.raters),
            "canary_mean": self.mean,
            "canary_control_ratings": float(self.control_ratings),
            "canary_control_raters": float(self.control_raters),
            "canary_control_mean": self.control_mean,
            "canary_evidence_for": self.evidence_for,
            "canary_evidence_against": self.evidence_against,
        }

    def __str__(self) -> str:
        if not self.ratings:
            return "no ratings"
        return (
            f"mean {self.mean:.2f} of {self.ratings} ratings by {self.raters}, before {self.control_mean:.2f} of "
            f"{self.control_ratings} by {self.control_raters}; evidence for {self.evidence_for:.1f}, against "
            f"{self.evidence_against:.1f}"
        )


class Case:
    """All that was said of `version` and of its `rival` since the trial began, and shortly before of the rival.

    Args:
        began: when `version` came on trial, Unix seconds.
        after: sequence of the last judgement that does not count.
    """

    def __init__(self, version: str, rival: str, began: float, settings: CanarySettings, after: int = 0) -> None:
        self.version, self.rival, self.began = version, rival, began
        self.position = after
        """Sequence of the last judgement that was looked at."""
        self._settings = settings
        margin, share = settings.margin, settings.rater_share
        self._for = Evidence(
            sign=1,
            shift=margin,
            expected=margin,
            threshold=1 / settings.false_promotion_rate,
            rater_share=share,
        )
        self._against = Evidence(
            sign=-1,
            shift=0.0,
            expected=margin,
            threshold=1 / settings.false_rollback_rate,
            rater_share=share,
        )
        self._canary, self._control = _Arm(), _Arm()

    def add(self, ratings: Iterable[Rating]) -> None:
        """Take in ratings of the two versions, in order of their sequence."""
        taken = [rating for rating in ratings if rating.source in _PEOPLE and rating.rival in ("", self.rival)]
        before = [rating for rating in taken if rating.version == self.rival and rating.receive_time < self.began]
        outdated = {id(rating) for rating in before[: -self._settings.control_ratings]}
        for rating in taken:
            self.position = max(self.position, rating.sequence)
            if rating.version == self.version and rating.rival:
                self._compare(rating)
            elif rating.version == self.version:
                self._canary.add(rating.rater, rating.value)
                for evidence in (self._for, self._against):
                    evidence.add_canary(rating.rater, rating.value)
            elif not rating.rival and id(rating) not in outdated:
                self._control.add(rating.rater, rating.value)
                for evidence in (self._for, self._against):
                    evidence.add_control(rating.rater, rating.value)

    def _compare(self, rating: Rating) -> None:
        """One rater has ranked answers of both."""
        self._canary.add(rating.rater, rating.value)
        self._control.add(rating.rater, 1 - rating.value)
        for evidence in (self._for, self._against):
            evidence.add_comparison(rating.rater, rating.value)

    def report(self) -> Report:
        return Report(
            ratings=self._canary.ratings,
            raters=self._canary.raters,
            mean=self._canary.mean,
            control_ratings=self._control.ratings,
            control_raters=self._control.raters,
            control_mean=self._control.mean,
            evidence_for=self._for.wealth,
            evidence_against=self._against.wealth,
        )


def found_worse(report: Report, settings: CanarySettings) -> bool:
    """Whether the ratings show the version to be worse than its rival; wrong at `false_rollback_rate` at most."""
    return report.evidence_against >= 1 / settings.false_rollback_rate


def decide(report: Report, settings: CanarySettings, *, waited_s: float, next_is_ready: bool) -> Verdict:
    """What becomes of a canary that has been on trial for `waited_s`.

    Args:
        next_is_ready: the candidate after it waits for the decision.
    """
    if found_worse(report, settings):
        return Verdict.ROLLED_BACK
    if report.evidence_for >= 1 / settings.false_promotion_rate:
        return Verdict.PROMOTED
    late = waited_s >= settings.max_wait_s
    if settings.undecided == "roll_back":
        return Verdict.DISTRUSTED if late else Verdict.WAIT
    rated = report.ratings >= settings.min_ratings
    heard = min(report.raters, report.control_raters) >= math.ceil(1 / settings.rater_share)
    if rated and heard and report.difference < -settings.margin and report.evidence_against > _LEANS:
        return Verdict.DISTRUSTED if late else Verdict.WAIT
    return Verdict.TRUSTED if late or (next_is_ready and rated) else Verdict.WAIT
