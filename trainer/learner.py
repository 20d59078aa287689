"""All that is trained, and how it is put on disk and taken back."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from torch import Tensor

from registry.arithmetic import computed_in
from settings.rules import Constitution
from settings.trainer import TrainerSettings
from trainer.backbone import Backbone
from trainer.ppo.update import Ppo
from trainer.reward.examples import Featuriser
from trainer.reward.features import AnswerPool, feature_dim
from trainer.reward.model import RewardModel
from trainer.rules import Rules
from trainer.statefile import load_state, save_state
from trainer.tokens import Sample
from trainer.value import ValueHead

_POLICY, _VALUE, _PPO, _REWARD = "policy", "value", "ppo", "reward"


@dataclass(slots=True)
class Learner:
    backbone: Backbone
    value: ValueHead
    ppo: Ppo
    pool: AnswerPool
    reward: RewardModel
    featuriser: Featuriser
    rules: Rules
    _untrained: dict[str, Any]
    """PPO's state before the first update."""

    @classmethod
    def create(
        cls, model_path: str | Path, settings: TrainerSettings, constitution: Constitution | None = None
    ) -> Self:
        """The base policy, and heads that know nothing yet."""
        backbone = Backbone(
            model_path,
            settings.lora,
            dtype=computed_in(settings.dtype),
            seed=settings.seed,
            token_budget=settings.ppo.token_budget,
        )
        value = ValueHead(backbone.hidden_size, settings.ppo.value_hidden, seed=settings.seed)
        ppo = Ppo(backbone, value, settings.ppo, seed=settings.seed)
        pool = AnswerPool.of(backbone)
        featuriser = Featuriser.over(backbone, pool, settings)
        reward = RewardModel(feature_dim(backbone.hidden_size), settings.reward, settings.seed)
        rules = Rules(constitution or Constitution(), backbone.tokenizer)
        return cls(backbone, value, ppo, pool, reward, featuriser, rules, copy.deepcopy(ppo.state_dict()))

    def save(self, directory: Path) -> None:
        self.backbone.save_adapter(directory / _POLICY)
        save_state(self.value.state_dict(), directory, _VALUE)
        save_state(self.ppo.state_dict(), directory, _PPO)
        save_state(self.reward.state_dict(), directory, _REWARD)

    def load(self, directory: Path) -> None:
        """Everything as it was at `save`, bit for bit."""
        self._load_policy(directory, load_state(directory, _PPO))
        self.reward.load_state_dict(load_state(directory, _REWARD))

    def go_back(self, directory: Path) -> float:
        """Policy, value, optimisers and KL coefficient as they were at `save`, for another attempt by the next stride.

        What was learned of rewards stays. Were the KL coefficient to stay, too, it would rise from attempt to attempt
        where that policy is at its target already, until all fell behind it.

        Returns the share of the learning rate that steps are taken with.
        """
        stride = self.ppo.next_stride()
        self._load_policy(directory, load_state(directory, _PPO) | {"stride": stride})
        return stride

    def continue_from(self, adapter: Path, version: str) -> None:
        """Take the adapter of another version. The optimisers' moments belong to the old one: they start afresh."""
        self.start_over(adapter)
        self.ppo.mark_published(version)

    def start_over(self, adapter: Path) -> None:
        """As `continue_from`, by a policy that nobody serves."""
        self.backbone.load_adapter(adapter)
        self.ppo.load_state_dict(copy.deepcopy(self._untrained))

    def reward_of(self, samples: Sequence[Sample]) -> Tensor:
        """What reward model and rules together say of each, [B]: the score that PPO learns from."""
        return self.rules.judge(samples).rewards + self.reward.reward(self.featuriser.features(samples))

    def _load_policy(self, directory: Path, ppo: dict[str, Any]) -> None:
        self.backbone.load_adapter(directory / _POLICY)
        self.value.load_state_dict(load_state(directory, _VALUE))
        self.ppo.load_state_dict(ppo)

    @property
    def finite(self) -> bool:
        return all(bool(parameter.isfinite().all()) for parameter in self.backbone.parameters())


def adapter_in(checkpoint: Path) -> Path:
    """The PEFT adapter of a directory that `Learner.save` filled."""
    return checkpoint / _POLICY
