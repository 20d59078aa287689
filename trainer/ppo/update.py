"""One update of the policy and its critic from a batch of rollouts."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from settings.ppo import PpoSettings
from trainer.backbone import Backbone, FrozenPass
from trainer.ppo.batch import RolloutBatch
from trainer.ppo.figures import PpoFigures
from trainer.ppo.gae import gae
from trainer.ppo.imitation import add_gradient, dealt
from trainer.ppo.kl_controller import KlController
from trainer.ppo.kl_estimate import kl_estimate
from trainer.ppo.losses import entropy_loss, importance_weights, policy_loss, value_loss
from trainer.ppo.rewards import penalise_missing_eos, token_rewards
from trainer.ppo.rloo import rloo
from trainer.ppo.step_figures import StepFigures
from trainer.ppo.whitening import whiten
from trainer.tokens import IN_TRAINING, Rollout, Sample
from trainer.value import ValueHead

_ADAM_EPSILON = 1e-5
_SHORTEST_STRIDE = 1 / 8
"""Shorter ones hardly make a difference that a gate could see: after these, whole ones are tried again."""


class StaleRollouts(ValueError):
    """Every rollout is older than the staleness bound."""


class Ppo:
    """Improves the policy of `backbone`, with `value` as its critic.

    Which logprobs stand for what: the *behaviour* policy drew the tokens (the engine's logprobs), the *proximal*
    policy is this trainer's at the start of the update, the *reference* is the frozen trunk. A token drawn by the
    current policy needs no second opinion: its behaviour logprob is its proximal one. For others the proximal logprob
    is recomputed and the loss weighted by π_proximal / π_behaviour (decoupled PPO).
    """

    def __init__(self, backbone: Backbone, value: ValueHead, settings: PpoSettings, *, seed: int = 0) -> None:
        self._backbone = backbone
        self._value = value
        self._settings = settings
        self._adapters = backbone.parameters()
        self._policy_optimizer = torch.optim.Adam(self._adapters, lr=settings.learning_rate, eps=_ADAM_EPSILON)
        self._value_optimizer = torch.optim.Adam(value.parameters(), lr=settings.value_learning_rate, eps=_ADAM_EPSILON)
        least = settings.kl_coefficient
        self._kl = KlController(least, settings.kl_target, settings.kl_horizon, least)
        self._shuffle = torch.Generator().manual_seed(seed)
        self._steps = 0
        self._stride = 1.0
        """Share of the learning rate that steps are taken with."""
        self._updates = 0
        self._published: dict[str, int] = {}

    def mark_published(self, version: str) -> None:
        """The present policy is served as `version`: rollouts from it are current until the next update. Steps from
        here are whole ones."""
        self._published[version] = self._updates
        self.restore_stride()

    def restore_stride(self) -> None:
        """Whole steps again: from here, or for what is wanted now, none has failed yet."""
        self._stride = 1.0

    def next_stride(self) -> float:
        """What came of the last steps was no better: halve the next ones, until they start elsewhere (a backtracking
        line search, Armijo 1966, in which a version is a step). None was short enough: from whole ones again, by
        rewards and rollouts that are others by now. Returns the share of the learning rate."""
        self._stride = self._stride / 2 if self._stride > _SHORTEST_STRIDE else 1.0
        return self._stride

    def update(
        self,
        rollouts: Sequence[Rollout],
        frozen: Sequence[FrozenPass],
        scores: Sequence[float],
        potentials: Sequence[Tensor] = (),
        demonstrations: Sequence[Sample] = (),
        favourites: Sequence[Sample] = (),
    ) -> PpoFigures:
        """Train on `rollouts`, whose responses earned `scores`; `frozen` are their passes at their temperature.

        `potentials` say how much of its score a response had earned after each token, [T]; without, all comes last.
        `demonstrations`, prompts with what should have been said, and `favourites`, with what was said and liked, are
        imitated beside it.
        Versions never marked as published count as old, of unknown age: corrected for, not dropped. What is IN_TRAINING
        is by the present policy.

        Raises:
            StaleRollouts: all of them are too old.
            ValueError: there are none, or their temperatures differ.
        """
        kept = [index for index, rollout in enumerate(rollouts) if self._is_fresh(rollout)]
        if rollouts and not kept:
            raise StaleRollouts(
                f"all {len(rollouts)} rollouts are over max_staleness={self._settings.max_staleness} updates old; "
                "sample from a newer version, or raise trainer.ppo.max_staleness"
            )
        batch = RolloutBatch.of([rollouts[i] for i in kept], [frozen[i] for i in kept], current=self._current_versions)
        kept_scores = [scores[i] for i in kept]

        proximal_BT = self._proximal_logprobs(batch)
        weights_BT = importance_weights(proximal_BT, batch.behaviour_logprobs_BT, self._settings.importance_cap)
        kl = kl_estimate(proximal_BT, batch.behaviour_logprobs_BT, batch.reference_logprobs_BT, batch.mask_BT)
        rewards_BT = token_rewards(
            penalise_missing_eos(kept_scores, batch.rollouts, self._settings.missing_eos_penalty),
            proximal_BT,
            batch.reference_logprobs_BT,
            batch.mask_BT,
            self._kl.coefficient,
            pad_sequence([potentials[i] for i in kept], batch_first=True) if potentials else None,
        )
        with torch.no_grad():
            values_BT = self._value(batch.hidden_BTD) * batch.mask_BT
        advantages_BT, returns_BT = self._estimate(rewards_BT, values_BT, batch)

        steps = StepFigures()
        minibatches = list(self._minibatches(batch))
        hands = zip(dealt(demonstrations, len(minibatches)), dealt(favourites, len(minibatches)), strict=True)
        for minibatch, imitated in zip(minibatches, hands, strict=True):
            self._improve_policy(batch, minibatch, proximal_BT, advantages_BT, weights_BT, imitated, steps)
        final_value_loss = self._improve_value(batch, values_BT, returns_BT)

        coefficient = self._kl.coefficient
        self._kl.update(kl, len(kept))
        self._updates += 1
        mask_BT = batch.mask_BT
        return PpoFigures(
            kl=kl,
            kl_coefficient=coefficient,
            score=math.fsum(kept_scores) / len(kept),
            length=mask_BT.sum().item() / len(kept),
            stopped=sum(rollout.finish_reason == "stop" for rollout in batch.rollouts) / len(kept),
            value_loss=final_value_loss,
            explained_variance=_explained_variance(values_BT[mask_BT], returns_BT[mask_BT]),
            importance_mean=weights_BT[mask_BT].mean().item(),
            stale=1 - batch.current_BT[mask_BT].float().mean().item(),
            dropped=len(rollouts) - len(kept),
            **steps.summary(),
        )

    def state_dict(self) -> dict[str, Any]:
        """Optimisers, KL controller, shuffling and what was published; not the adapters and the value head."""
        return {
            "policy_optimizer": self._policy_optimizer.state_dict(),
            "value_optimizer": self._value_optimizer.state_dict(),
            "kl_coefficient": self._kl.coefficient,
            "shuffle": self._shuffle.get_state(),
            "steps": self._steps,
            "stride": self._stride,
            "updates": self._updates,
            "published": dict(self._published),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue, bit for bit, from where `state_dict` was taken."""
        self._policy_optimizer.load_state_dict(state["policy_optimizer"])
        self._value_optimizer.load_state_dict(state["value_optimizer"])
        self._kl.coefficient = state["kl_coefficient"]
        self._shuffle.set_state(state["shuffle"])
        self._steps = state["steps"]
        self._stride = state["stride"]
        self._updates = state["updates"]
        self._published = dict(state["published"])

    @property
    def _current_versions(self) -> set[str]:
        """Names of the policy as it stands."""
        return {IN_TRAINING} | {version for version, at in self._published.items() if at == self._updates}

    def _is_fresh(self, rollout: Rollout) -> bool:
        ages = (self._updates - self._published.get(version, self._updates) for version in rollout.policy_version)
        return max(ages) <= self._settings.max_staleness

    @torch.no_grad()
    def _proximal_logprobs(self, batch: RolloutBatch) -> Tensor:
        """[B, T]; the trunk is run only if some token is not current."""
        if bool(batch.current_BT[batch.mask_BT].all()):
            return batch.behaviour_logprobs_BT
        samples = [rollout.sample for rollout in batch.rollouts]
        recomputed_BT = torch.zeros_like(batch.behaviour_logprobs_BT)
        for part in self._backbone.micro_batches(samples):
            logprobs_bt, _, _ = self._policy_logprobs(batch, part)
            recomputed_BT[part, : logprobs_bt.shape[1]] = logprobs_bt
        return torch.where(batch.current_BT, batch.behaviour_logprobs_BT, recomputed_BT)

    def _policy_logprobs(self, batch: RolloutBatch, part: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        samples = [batch.rollouts[i].sample for i in part]
        return self._backbone.policy_logprobs(samples, batch.temperature, [batch.frozen[i] for i in part])

    def _estimate(self, rewards_BT: Tensor, values_BT: Tensor, batch: RolloutBatch) -> tuple[Tensor, Tensor]:
        """(whitened advantages_BT, returns_BT)."""
        settings = self._settings
        advantages_BT, returns_BT = gae(rewards_BT, values_BT, batch.mask_BT, settings.discount, settings.gae_lambda)
        if settings.estimator == "rloo":
            advantages_BT = rloo(rewards_BT, batch.mask_BT, batch.groups)
        return whiten(advantages_BT, batch.mask_BT), returns_BT

    def _minibatches(self, batch: RolloutBatch) -> Iterator[list[int]]:
        """Freshly shuffled every epoch. Responses to one prompt stay together, so that it is computed once."""
        groups: dict[int, list[int]] = {}
        for index, group in enumerate(batch.groups):
            groups.setdefault(group, []).append(index)
        members = list(groups.values())
        for _ in range(self._settings.epochs):
            order = torch.randperm(len(members), generator=self._shuffle)
            for chunk in order.chunk(self._settings.minibatches):
                yield [index for group in chunk.tolist() for index in members[group]]

    def _improve_policy(
        self,
        batch: RolloutBatch,
        minibatch: Sequence[int],
        proximal_BT: Tensor,
        advantages_BT: Tensor,
        weights_BT: Tensor,
        imitated: tuple[Sequence[Sample], Sequence[Sample]],
        steps: StepFigures,
    ) -> None:
        """One optimiser step on the mean loss over the minibatch's tokens, and those of `imitated`, which are
        demonstrations and favourites."""
        settings = self._settings
        tokens = int(batch.mask_BT[minibatch].sum())
        samples = [batch.rollouts[i].sample for i in minibatch]
        self._policy_optimizer.zero_grad(set_to_none=True)
        for part in self._backbone.micro_batches(samples):
            rows = [minibatch[i] for i in part]
            logprobs_bt, entropy_bt, mask_bt = self._policy_logprobs(batch, rows)
            width = mask_bt.shape[1]
            logprobs_N = logprobs_bt[mask_bt]
            proximal_N, behaviour_N, advantages_N, weights_N = (
                tensor_BT[rows, :width][mask_bt]
                for tensor_BT in (proximal_BT, batch.behaviour_logprobs_BT, advantages_BT, weights_BT)
            )
            losses_N, clipped_N = policy_loss(
                logprobs_N, proximal_N, advantages_N, weights_N, settings.clip, settings.dual_clip
            )
            if settings.entropy_coefficient:
                drawn_N = importance_weights(logprobs_N.detach(), behaviour_N, settings.importance_cap)
                bonus_N = entropy_loss(logprobs_N, entropy_bt[mask_bt], drawn_N)
                losses_N = losses_N + settings.entropy_coefficient * bonus_N
            (losses_N.sum() / tokens).backward()  # type: ignore[no-untyped-call]
            steps.observe(losses_N, logprobs_N, proximal_N, behaviour_N, entropy_bt[mask_bt], clipped_N)
        edits, liked = imitated
        for imitated_samples, coefficient, nll in (
            (edits, settings.demonstration_coefficient, steps.demonstrations),
            (liked, settings.favourite_coefficient, steps.favourites),
        ):
            if imitated_samples and coefficient:
                nll += add_gradient(self._backbone, imitated_samples, batch.temperature, coefficient)
        norm = torch.nn.utils.clip_grad_norm_(self._adapters, settings.max_grad_norm)
        self._steps += 1
        warm = min(1.0, self._steps / max(1, settings.warmup_steps))
        for group in self._policy_optimizer.param_groups:
            group["lr"] = settings.learning_rate * warm * self._stride
        self._policy_optimizer.step()
        steps.end_step(norm)

    def _improve_value(self, batch: RolloutBatch, values_BT: Tensor, returns_BT: Tensor) -> float:
        """Fit the value head; the mean loss of its last pass."""
        mask_BT = batch.mask_BT
        hidden_ND, old_N, returns_N = batch.hidden_BTD[mask_BT], values_BT[mask_BT], returns_BT[mask_BT]
        loss = torch.zeros(())
        for _ in range(self._settings.value_epochs):
            self._value_optimizer.zero_grad(set_to_none=True)
            loss = value_loss(self._value(hidden_ND), old_N, returns_N, self._settings.value_clip).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self._value.parameters(), self._settings.max_grad_norm)
            self._value_optimizer.step()
        return loss.item()


def _explained_variance(values_N: Tensor, returns_N: Tensor) -> float:
    spread = returns_N.var(correction=0)
    return (1 - (returns_N - values_N).var(correction=0) / spread.clamp(min=1e-8)).item()
