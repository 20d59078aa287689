"""The reward model: what raters prefer, learned from what they said so far, and how sure that is."""

import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from settings.reward import RewardSettings
from trainer.reward.change import changed_at
from trainer.reward.crossvalidation import TooFewConversations, cross_validate, tuned
from trainer.reward.examples import RewardExample
from trainer.reward.heads import Heads, fit
from trainer.reward.heldout import Report, examine, losses
from trainer.reward.reliability import reliability
from trainer.reward.replay import Replay

_FOLDS = 4
"""Of the cross-validation that decides on readiness while little is held out."""
_LEAST_EVIDENCE = 8
"""Judgements that tell answers apart: of fewer, all may be right by chance."""
_CHANGE_EVERY, _CHANGE_SHARE = 32, 1 / 16
"""New judgements, and as a share of those there are, after which a change of taste is looked for."""
_SAID_BEFORE = 0.1
"""What all that was said before a change counts together, of what was said since until it was noticed: it speaks where
nobody has spoken since, and does not decide: of answers more varied than those that please now, it says more than
they do."""


@dataclass(frozen=True, slots=True)
class RewardFigures:
    """What an update did. Held-out figures are of the heads in use after it, NaN while there is nothing to measure."""

    new_judgements: int
    judgements: int
    """Trained on, new and replayed."""
    replay_share: float
    """Of those, the share that is replayed."""
    heldout_judgements: int
    changed: int
    """Judgements since people came to like something else, if that was noticed in this update, else 0."""
    promoted: bool
    """Whether the new heads are in use; if not, the ones before were better on held-out judgements."""
    ready: bool
    heldout_loss: float
    """Nats a judgement."""
    accuracy: float
    """Pairwise, on held-out judgements."""
    longer_wins: float
    """What the longer-answer-wins rule gets on the same pairs."""
    calibration_error: float
    accuracy_by_source: dict[str, float]
    seconds: float


class RewardModel:
    """One scalar a (prompt, response), from features [B, F] of the frozen trunk.

    Learns incrementally: every update fits on the new judgements and on what is replayed, starting from the heads in
    use, and its heads come into use only when they are not worse on the held-out conversations.
    """

    def __init__(self, feature_dim: int, settings: RewardSettings, seed: int) -> None:
        self._feature_dim = feature_dim
        self._settings = settings
        self._tuned = settings.model_copy(update={"taste_scales": settings.taste_scales[:1]})
        self._tuned_on = 0
        self._since = 0
        """Sequence of the first judgement that speaks for what people like now."""
        self._share_before = 1.0
        """What one from before that counts."""
        self._new = 0
        """Judgements since a change of taste was looked for."""
        self._seed = seed
        self._updates = 0
        self._train = Replay(settings.replay_capacity)
        self._heldout = Replay(settings.heldout_capacity)
        self._heads: Heads | None = None
        self._reference_BF = torch.empty(0, feature_dim)
        self._gain = 1.0
        self._doubt = 1.0
        """Mean deviation over the members of a sample of the reference, but at least 1."""
        self._centre_M = torch.zeros(settings.members)
        self._ready = False

    @property
    def ready(self) -> bool:
        """Learned from enough judgements, and better than chance on held-out comparisons, or on held-out thumbs where
        those are more: by a standard error to become ready, at all to stay so."""
        return self._ready

    @property
    def since(self) -> int:
        """Sequence of the first judgement that speaks for what people like now; 0 while that has not changed."""
        return self._since

    def update(self, examples: Sequence[RewardExample]) -> RewardFigures:
        """Learn from judgements not seen before.

        Raises:
            ValueError: features that are not finite or not of this model's dimension.
        """
        started = time.monotonic()
        for example in examples:
            self._check(example.features_AF)
        rng = random.Random(f"{self._seed}/{self._updates}")
        new = self._train.add([example for example in examples if not example.held_out], rng)
        self._heldout.add([example for example in examples if example.held_out], rng)
        self._updates += 1
        self._new += new
        changed = self._notice_change()
        promoted = bool(len(self._train)) and self._promote(self._fit())
        figures = self._figures(new=new, changed=changed, promoted=promoted, seconds=time.monotonic() - started)
        self._ready = figures.ready
        return figures

    def retain(self, feedback_ids: set[str]) -> int:
        """Forget judgements that no longer count (retracted, erased); the next update learns without them."""
        return self._train.retain(feedback_ids) + self._heldout.retain(feedback_ids)

    def calibrate(self, features_BF: Tensor) -> None:
        """Make these samples of the reference policy score 0 ± 1, now and after every later update."""
        self._check(features_BF)
        self._reference_BF = features_BF.clone()
        self._refit_gain()

    def score(self, features_BF: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation over the members, each [B]; 0 and 1 mean what they mean for the reference."""
        self._check(features_BF)
        if self._heads is None:
            return torch.zeros(len(features_BF)), torch.ones(len(features_BF))
        scores_BM = self._gain * (self._heads.scores(features_BF) - self._centre_M)
        std_B, mean_B = torch.std_mean(scores_BM, dim=1)
        return mean_B, std_B

    def reward(self, features_BF: Tensor) -> Tensor:
        """Conservative reward, [B]: the mean, saturating at the bound, less λ times the standard deviation.

        Along what people like the mean grows without end, and so would an optimiser's zeal. Once it saturates, going
        further only adds uncertainty, and the best reward lies where the members still agree. Where they disagree about
        the reference's own answers by more than it varies (little is known yet, or people care for something rare),
        disagreement counts in units of that: taken in full it would be all that an optimiser sees.
        """
        mean_B, std_B = self.score(features_BF)
        bound = self._settings.bound
        return bound * (mean_B / bound).tanh() - self._settings.uncertainty_penalty * std_B / self._doubt

    def state_dict(self) -> dict[str, Any]:
        """Tensors and JSON values: everything that later updates and scores depend on."""
        return {
            "updates": self._updates,
            "taste_scales": self._tuned.taste_scales,
            "tuned_on": self._tuned_on,
            "since": self._since,
            "share_before": self._share_before,
            "new": self._new,
            "train": [example.state_dict() for example in self._train.examples],
            "heldout": [example.state_dict() for example in self._heldout.examples],
            "heads": self._heads.state_dict() if self._heads else None,
            "reference_BF": self._reference_BF,
            "gain": self._gain,
            "doubt": self._doubt,
            "centre_M": self._centre_M,
            "ready": self._ready,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._check(state["reference_BF"])
        self._updates = state["updates"]
        self._tuned = self._settings.model_copy(update={"taste_scales": tuple(map(tuple, state["taste_scales"]))})
        self._tuned_on = state["tuned_on"]
        self._since, self._share_before, self._new = state["since"], state["share_before"], state["new"]
        self._train.load([RewardExample(**example) for example in state["train"]])
        self._heldout.load([RewardExample(**example) for example in state["heldout"]])
        self._heads = Heads.from_state_dict(state["heads"]) if state["heads"] else None
        self._reference_BF = state["reference_BF"]
        self._gain, self._doubt, self._centre_M = state["gain"], state["doubt"], state["centre_M"]
        self._ready = state["ready"]

    def _notice_change(self) -> int:
        """`RewardFigures.changed`. What was said before is not measured by any more, and counts little."""
        current = self._current(self._train)
        if self._new < max(_CHANGE_EVERY, _CHANGE_SHARE * len(current)):
            return 0
        self._new = 0
        start = changed_at(current, self._tuned, seed=self._seed)
        if start is None:
            return 0
        self._since, self._tuned_on = current[start].sequence, 0
        since = len(current) - start
        self._share_before = min(1.0, _SAID_BEFORE * since / (len(self._train) - since))
        self._heldout.load(self._current(self._heldout))
        return since

    def _current(self, replay: Replay) -> list[RewardExample]:
        return [example for example in replay.examples if example.sequence >= self._since]

    def _fit(self) -> Heads:
        examples, current = self._train.examples, self._current(self._train)
        if len(current) >= max(2 * self._tuned_on, self._settings.tuning_judgements):
            self._tuned = tuned(current, self._settings, seed=self._seed)
            self._tuned_on = len(current)
        believed = reliability(current, self._tuned, seed=self._seed)
        shares = [1.0 if example.sequence >= self._since else self._share_before for example in examples]
        return fit(examples, self._tuned, seed=self._seed, start=self._heads, reliability=believed, shares=shares)

    def _promote(self, candidate: Heads) -> bool:
        heldout = self._heldout.examples
        if self._heads is not None and self._heldout_decides:
            worse_J = losses(candidate, heldout) - losses(self._heads, heldout)
            error = worse_J.std().item() / len(worse_J) ** 0.5 if len(worse_J) > 1 else 0.0
            if worse_J.mean().item() > self._settings.promotion_slack * error:
                return False
        self._heads = candidate
        self._refit_gain()
        return True

    def _refit_gain(self) -> None:
        if self._heads is None or len(self._reference_BF) < 2:
            return
        # Each member is centred by itself: where zero lies is not what they should disagree about.
        scores_BM = self._heads.scores(self._reference_BF)
        self._centre_M = scores_BM.mean(dim=0)
        self._gain = 1.0 / max(scores_BM.mean(dim=1).std(correction=0).item(), 1e-6)
        self._doubt = max(1.0, self.score(self._reference_BF)[1].mean().item())

    def _check(self, features_BF: Tensor) -> None:
        if features_BF.ndim != 2 or features_BF.shape[1] != self._feature_dim:
            raise ValueError(f"features of shape {tuple(features_BF.shape)}; this model takes [B, {self._feature_dim}]")
        if not features_BF.isfinite().all():
            raise ValueError("features that are not finite; check the trunk's dtype and its inputs")

    def _figures(self, *, new: int, changed: int, promoted: bool, seconds: float) -> RewardFigures:
        judgements, heldout = len(self._train), self._heldout.examples if self._heads else []
        scores = [self._heads.scores(example.features_AF) for example in heldout] if self._heads else []
        report = examine(heldout, scores)
        return RewardFigures(
            new_judgements=new,
            judgements=judgements,
            replay_share=1 - new / judgements if judgements else 0.0,
            heldout_judgements=len(self._heldout),
            changed=changed,
            promoted=promoted,
            ready=self._is_ready(report),
            heldout_loss=losses(self._heads, heldout).mean().item() if self._heads and heldout else math.nan,
            accuracy=report.accuracy,
            longer_wins=report.longer_wins,
            calibration_error=report.calibration_error,
            accuracy_by_source=report.by_source,
            seconds=seconds,
        )

    @property
    def _heldout_decides(self) -> bool:
        return len(self._heldout) >= self._settings.heldout_least

    def _is_ready(self, heldout: Report) -> bool:
        if len(self._train) < self._settings.ready_judgements or self._heads is None:
            return False
        report = heldout
        if heldout.evidence[2] < self._settings.heldout_least:
            everything = [*self._current(self._train), *self._heldout.examples]
            try:
                report = cross_validate(everything, self._tuned, folds=_FOLDS, seed=self._seed)
            except TooFewConversations:
                return False
        accuracy, error, judgements = report.evidence
        return judgements >= _LEAST_EVIDENCE and accuracy - (0.0 if self._ready else error) > 0.5
