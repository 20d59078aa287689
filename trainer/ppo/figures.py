"""What an operator watches of an update."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PpoFigures:
    """Means are over response tokens, or responses where it says so. Watch KL, length and entropy, not the score."""

    kl: float
    """Nats a response to the reference, of the policy before the update; rollouts that an older policy drew are
    weighted by how likely they are today."""
    kl_coefficient: float
    """β that the update used."""
    score: float
    """Mean over responses, before the KL penalty."""
    length: float
    """Response tokens, mean over responses."""
    stopped: float
    """Share of responses that ended by themselves."""
    entropy: float
    """Nats a token, over all steps."""
    policy_loss: float
    clip_fraction: float
    """Share of tokens whose gradient the clip took away, over all steps."""
    ratio_mean: float
    """π / π_proximal over all steps: about 1."""
    ratio_max: float
    approximate_kl: float
    """Nats a token between the proximal policy and that of each step (k3 estimate)."""
    grad_norm: float
    """Of the adapters, before clipping, mean over steps."""
    demonstration_nll: float | None
    """Nats a token of the demonstrations, mean over steps. None without any."""
    favourite_nll: float | None
    """The same of the favourites."""
    value_loss: float
    """Mean over the last pass of the value head."""
    explained_variance: float
    """1 − Var(return − value) / Var(return) before the update: 1 is a perfect critic, 0 a constant one."""
    sampler_gap: float
    """Mean |log π_trainer − log π_engine| a token at the first step: rounding only, where nothing is stale."""
    importance_mean: float
    """Mean weight of decoupled PPO: 1 where every rollout is current."""
    stale: float
    """Share of tokens that an older version drew."""
    dropped: int
    """Rollouts older than the staleness bound, left out."""
