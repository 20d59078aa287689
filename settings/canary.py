"""`trainer.canary:` what users have to say of a version before it takes the active one's place."""

from typing import Literal

from pydantic import Field

from settings.section import Section


class CanarySettings(Section):
    enabled: bool = True
    """A version that passed the gate is on trial first. false: it becomes active at once, and nothing watches it."""
    margin: float = Field(default=0.1, gt=0, lt=1)
    """Ratings are counted from 0 to 1 (a thumb is one of the two). A mean this much below the active version's is
    worse; any mean that is not below it is as good."""
    false_promotion_rate: float = Field(default=0.05, gt=0, lt=1)
    """How often a version that is worse may be found as good, however often and for however long one looks."""
    false_rollback_rate: float = Field(default=0.05, gt=0, lt=1)
    """How often a version that is as good may be found worse, in the trial and the watch after it together."""
    rater_share: float = Field(default=0.3, gt=0, lt=0.5)
    """One rater's ratings of the canary make up at most this share of the evidence that decides, and so do theirs of
    the active version: nobody decides alone, and it takes at least 1 / rater_share raters to find anything."""
    undecided: Literal["promote", "roll_back"] = "promote"
    """What becomes of a canary that its ratings have not decided on after max_wait_s. promote: active, unless its mean
    is below the margin and the evidence leans that way; it stays watched, and need not wait that long once the next
    candidate is ready. roll_back: only evidence promotes, so that false_promotion_rate holds for every version; the
    next candidate waits."""
    min_ratings: int = Field(default=6, ge=1)
    """Ratings of the canary before the next candidate may hasten a trial, and (by at least 1 / rater_share raters)
    before a mean decides where evidence does not."""
    max_wait_s: float = Field(default=300.0, gt=0)
    """How long a canary may stay undecided."""
    watch_s: float = Field(default=3600.0, ge=0)
    """How long a promoted version's ratings are held against its parent's, by the same test: found worse, it is rolled
    back. 0: not at all."""
    control_ratings: int = Field(default=400, ge=1)
    """Latest ratings of the other version that are compared with."""
    poll_interval_s: float = Field(default=1.0, gt=0)
    """How often the ratings are looked at."""
