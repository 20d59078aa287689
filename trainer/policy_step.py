"""Reward → policy: one iteration of PPO on answers of the serving fleet."""

import logging
from dataclasses import replace

from feedback.judgement import Judgement
from feedback.store import PreferenceStore
from registry import Registry
from settings.trainer import TrainerSettings
from trainer import imitation, metrics, prompts
from trainer.ahead import Ahead
from trainer.checkpoint import Progress
from trainer.improve import improve
from trainer.learner import Learner
from trainer.ppo.figures import PpoFigures
from trainer.rollouts import RolloutSource

log = logging.getLogger("trainer")

_FAVOURITES_AMONG = 512
"""Latest judgements that favourites are looked for in: their features are computed anew after a restart."""


class PolicyStep:
    """Samples, scores and updates; where the trainer stands is the loop's to say."""

    def __init__(
        self,
        settings: TrainerSettings,
        learner: Learner,
        store: PreferenceStore,
        registry: Registry,
        rollouts: RolloutSource,
    ) -> None:
        self._settings = settings
        self._learner = learner
        self._store = store
        self._registry = registry
        self._rollouts = Ahead(rollouts)

    def look_ahead(self, progress: Progress) -> None:
        """Have the fleet begin with the rollouts of iteration `progress.iteration + 1`, if it has not yet."""
        settings, seed, version = self._settings, self._seed(progress), progress.continues_from
        if not self._rollouts.asked(seed=seed, version=version):
            pool = prompts.recent(self._store, settings)
            chosen = prompts.for_rollouts(pool, settings.prompts_per_iteration, seed)
            self._rollouts.ask(chosen, seed=seed, version=version)

    def improve(self, progress: Progress, *, another: bool) -> PpoFigures:
        """Iteration `progress.iteration + 1`.

        Args:
            another: the next iteration will follow from the same version. Its rollouts are drawn meanwhile.

        Raises:
            StaleRollouts: the fleet still serves a version that is too old.
            Stopped: the trainer is stopping.
        """
        learner, settings = self._learner, self._settings
        iteration, seed = progress.iteration + 1, self._seed(progress)
        self.look_ahead(progress)
        with metrics.timed("rollouts"):
            rollouts = self._rollouts.take()
        if another:
            self.look_ahead(replace(progress, iteration=iteration))
        state = self._registry.state()
        metrics.show_staleness(rollouts, [*state.history, *([state.canary] if state.canary else [])])
        edits = imitation.demonstrations(
            self._store.judgements(kind="demonstration"), settings, learner.backbone.tokenizer, seed
        )
        figures = improve(
            learner, settings, rollouts, judgements=self._learned(progress), demonstrations=edits, seed=seed
        )
        log.info(
            "ppo %d: reward %.2f, KL %.1f nats, entropy %.2f nats, %d tokens an answer",
            iteration,
            figures.score,
            figures.kl,
            figures.entropy,
            round(figures.length),
        )
        return figures

    def _learned(self, progress: Progress) -> list[Judgement]:
        """The latest judgements that the reward model knows."""
        known = self._store.judgements(max(0, progress.judgement_position - _FAVOURITES_AMONG))
        return [judgement for judgement in known if judgement.sequence <= progress.judgement_position]

    def _seed(self, progress: Progress) -> int:
        return self._settings.seed * 1_000_003 + progress.iteration + 1
