"""Feedback → reward model: one update on what people said since the last."""

import logging
from dataclasses import replace
from pathlib import Path

from feedback.store import PreferenceStore
from settings.trainer import TrainerSettings
from trainer import metrics, prompts, publish
from trainer.checkpoint import Progress
from trainer.learner import Learner

log = logging.getLogger("trainer")


class RewardStep:
    """Brings the reward model up to date with the preference store.

    Args:
        base_adapter: the adapter of the policy before any learning, which the reward is scaled by.
        scratch: for the policy that steps aside meanwhile.
    """

    def __init__(
        self, settings: TrainerSettings, learner: Learner, store: PreferenceStore, base_adapter: Path, scratch: Path
    ) -> None:
        self._settings = settings
        self._learner = learner
        self._store = store
        self._base_adapter = base_adapter
        self._scratch = scratch

    def learn(self, progress: Progress) -> Progress:
        """Learn from the judgements after `progress.judgement_position`; the progress that this makes."""
        withdrawn = self._forget_withdrawn(progress)
        judgements = self._store.judgements(progress.judgement_position)
        figures = self._learner.reward.update(self._learner.featuriser.examples(judgements))
        calibrated_on = self._calibrate(progress.calibrated_on)
        metrics.show_reward_model(figures)
        log.info(
            "reward model: %d new judgements, %d in all, held-out accuracy %.2f (longer wins %.2f) on %d: %s",
            len(judgements),
            figures.judgements,
            figures.accuracy,
            figures.longer_wins,
            figures.heldout_judgements,
            "ready" if figures.ready else "not ready to steer yet",
        )
        if figures.changed:
            self._learner.ppo.restore_stride()  # those that did no good were taken for another taste
            log.info(
                "reward model: people have come to like something else: the last %d judgements decide", figures.changed
            )
        return replace(
            progress,
            judgement_position=max((j.sequence for j in judgements), default=progress.judgement_position),
            withdrawn=withdrawn,
            calibrated_on=calibrated_on,
            budget=progress.budget + len(judgements) * self._settings.iterations_per_judgement,
        )

    def calibrate_ahead(self, progress: Progress) -> Progress | None:
        """Scale the reward while feedback is awaited, once and for all, so that the first update need not.

        Returns None where that is done, or people have asked too little yet for a scale that will last.
        """
        enough = self._settings.calibration_samples // 2 + 1  # which cannot double within the samples: see `_calibrate`
        if progress.calibrated_on >= enough:
            return None
        pool = prompts.recent(self._store, self._settings)
        return replace(progress, calibrated_on=self._scale_by(pool)) if len(pool.training) >= enough else None

    def _forget_withdrawn(self, progress: Progress) -> int:
        """Take what raters withdrew out of what is replayed. Returns how much was withdrawn so far."""
        funnel = self._store.funnel()
        withdrawn = funnel["retracted"] + funnel["erased"]
        if withdrawn != progress.withdrawn:
            self._learner.reward.retain({judgement.feedback_id for judgement in self._store.judgements()})
        return withdrawn

    def _calibrate(self, known: int) -> int:
        """Scale the reward by samples of the reference: when the first prompts are there, and as they double.

        Args:
            known: the number of users' prompts the present scale rests on; -1 before there is any.

        Returns that number from now on.
        """
        pool = prompts.recent(self._store, self._settings)
        if known >= 0 and min(len(pool.training), self._settings.calibration_samples) < max(1, 2 * known):
            return known
        return self._scale_by(pool)

    def _scale_by(self, pool: prompts.PromptPool) -> int:
        """Samples of the reference, to the pool's prompts and to probes where those are too few, score 0 ± 1.

        Returns how many prompts were users'.
        """
        settings, learner = self._settings, self._learner
        chosen = prompts.with_probes(pool.training, settings.calibration_samples, learner.backbone.tokenizer)
        with publish.policy_of(learner.backbone, self._base_adapter, self._scratch):
            samples = learner.backbone.generate(
                chosen,
                max_new_tokens=settings.max_new_tokens,
                temperature=settings.temperature,
                seed=settings.seed,
            )
        learner.reward.calibrate(learner.featuriser.features(samples))
        return min(len(pool.training), settings.calibration_samples)
