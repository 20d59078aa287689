"""One improvement of the policy: score rollouts, say which tokens earned the score, update."""

from collections.abc import Sequence

import torch

from feedback.judgement import Judgement
from settings.trainer import TrainerSettings
from trainer import imitation, metrics
from trainer.credit import of_prefixes, potentials
from trainer.learner import Learner
from trainer.ppo.figures import PpoFigures
from trainer.tokens import Rollout, Sample


def improve(
    learner: Learner,
    settings: TrainerSettings,
    rollouts: Sequence[Rollout],
    *,
    judgements: Sequence[Judgement],
    demonstrations: Sequence[Sample] = (),
    seed: int,
) -> PpoFigures:
    """The next policy; its figures are shown on the metrics port.

    Args:
        judgements: where favourites are looked for. Only those that the reward model has learned from: of others it
            would say anything.
        demonstrations: imitated beside the rollouts.

    Raises:
        StaleRollouts: all of them are too old.
    """
    with metrics.timed("reference"):
        samples = [rollout.sample for rollout in rollouts]
        frozen, prefix_rewards = of_prefixes(
            learner.backbone, samples, learner.pool, learner.reward.reward, temperature=settings.temperature
        )
        kept = learner.rules.judge(samples)
        scores = kept.rewards + torch.stack([reward_T[-1] for reward_T in prefix_rewards])
    liked = imitation.favourites(judgements, settings, learner.reward_of, seed, bar=imitation.bar(scores))
    with metrics.timed("ppo"):
        figures = learner.ppo.update(
            rollouts, frozen, scores.tolist(), potentials(prefix_rewards), demonstrations, liked
        )
    metrics.show_ppo(figures)
    metrics.show_rules(kept.means)
    return figures
