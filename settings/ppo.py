"""`trainer.lora:` and `trainer.ppo:` what is trained of the policy, and how."""

from typing import Literal

from pydantic import Field

from settings.section import Section


class LoraSettings(Section):
    rank: int = Field(default=16, ge=1)
    """Rank of every adapter."""
    alpha: float = Field(default=32.0, gt=0)
    """The adapter's product is scaled by alpha / rank."""
    layers: float = Field(default=0.5, gt=0, le=1)
    """Share of the decoder layers, from the top, that carry adapters. The layers below are the same for policy and
    reference, so they are computed once a rollout and never differentiated."""


class PpoSettings(Section):
    estimator: Literal["gae", "rloo"] = "gae"
    """gae: the value head's advantages (PPO). rloo: a sample's return less the mean of the others of its prompt."""
    epochs: int = Field(default=1, ge=1)
    """Passes over a batch of rollouts. A second one doubles the cost of an update; on SmolLM2 it bought little."""
    minibatches: int = Field(default=4, ge=1)
    """Optimiser steps a pass."""
    token_budget: int = Field(default=1024, ge=1)
    """Tokens, padding included, of one forward pass: bounds memory. A longer prompt group is a pass of its own."""

    learning_rate: float = Field(default=5e-4, gt=0)
    """Adam, for the adapters; constant after the warm-up, as online learning has no end."""
    warmup_steps: int = Field(default=4, ge=0)
    """Optimiser steps over which the learning rate grows linearly to its value."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """The adapters' gradient is scaled down to this Euclidean norm."""

    value_learning_rate: float = Field(default=1e-3, gt=0)
    """Adam, for the value head."""
    value_epochs: int = Field(default=8, ge=1)
    """Passes of the value head over a batch (cheap: it reads the frozen trunk's states, computed already)."""
    value_hidden: int = Field(default=256, ge=1)
    """Width of the value head's hidden layer."""
    value_clip: float = Field(default=0.5, gt=0)
    """How far a value may move from its value at rollout before its loss goes flat; scores have deviation 1."""

    discount: float = Field(default=1.0, gt=0, le=1)
    """γ of the returns."""
    gae_lambda: float = Field(default=0.8, ge=0, le=1)
    """λ of generalised advantage estimation: a token hears of what the next 1 / (1 − λ) tokens earn, and of what comes
    later through the critic. Scores of prefixes spread the reward over the answer, so that it need not look far: the
    usual 0.95 learned two tastes later than this, and a third no sooner."""
    clip: float = Field(default=0.2, gt=0, lt=1)
    """ε: the probability ratio's gain ends at 1 ± ε."""
    dual_clip: float | None = Field(default=None, gt=1)
    """c: bounds the loss of a token with negative advantage at c times that advantage. None: unbounded."""

    kl_coefficient: float = Field(default=0.05, ge=0)
    """β at the start, and the least that it may be: reward per nat by which a token leaves the reference."""
    kl_target: float | None = Field(default=15.0, gt=0)
    """Nats a response that β is steered to. None: β stays. As far as the gate lets candidates go (it leads them back):
    a lower target would pull them to behind the active version, and they would lose to it."""
    max_kl_nats: float = Field(default=25.0, gt=0)
    """Mean KL of an iteration's rollouts at which training goes back to the active version and waits for feedback:
    beyond it the reward model is guessing."""
    kl_horizon: float = Field(default=32.0, gt=0)
    """Responses over which β changes by a fifth when it is far off target. Short, as an online batch is small."""
    missing_eos_penalty: float = Field(default=0.0, ge=0)
    """Taken from the score of a response cut at the token limit. 0 where a low limit cuts most of them."""

    entropy_coefficient: float = Field(default=0.0, ge=0)
    """Reward a nat of entropy at each token. 0: off; the KL to the reference keeps the policy about as broad."""
    demonstrations: int = Field(default=8, ge=0)
    """Users' own edits that an iteration learns from by imitation, drawn from all there are; 0: none."""
    demonstration_coefficient: float = Field(default=0.1, ge=0)
    """Weight of their mean negative log likelihood a token beside the policy loss, whose advantages have deviation 1.
    Small, as an edit also beats its original in the reward model; larger copies the few who write."""
    demonstration_tokens: int = Field(default=256, ge=1)
    """First tokens of an edit that are learned from."""

    favourites: int = Field(default=8, ge=0)
    """Served answers that users liked best, which an iteration imitates too: of those that score above the base's by a
    deviation, and above the iteration's rollouts by one of theirs; 0: none. What is liked and rare is learned by it."""
    favourite_coefficient: float = Field(default=0.1, ge=0)
    """Weight of their mean negative log likelihood a token. Larger copies them word by word: at five times this the
    policy ran to its KL target sooner and pleased no better."""

    importance_cap: float = Field(default=2.0, ge=1)
    """Largest weight π_proximal / π_behaviour of a token that an older policy drew."""
    max_staleness: int = Field(default=3, ge=0)
    """Rollouts drawn more than this many updates ago are dropped."""
