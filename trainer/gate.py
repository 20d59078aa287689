"""The gate: what a policy has to show on held-out prompts before a user sees it.

The candidate and the active policy answer the same prompts from the same seed, by the trainer's own sampling, so that
serving is not touched. Each check has a figure, a bound and a verdict; all of them go into the version's manifest.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from statistics import NormalDist, fmean

import torch
from torch import Tensor

from settings.trainer import GateSettings
from trainer.backbone import Backbone
from trainer.reward.features import pool
from trainer.tokens import Sample

Score = Callable[[Tensor], Tensor]
"""features_BF -> conservative calibrated rewards_B."""


class Verdict(IntEnum):
    """Ordered from bad to good: the gate's verdict is the worst of its checks'."""

    FAILED = 0
    UNDECIDED = 1
    """Neither shown nor refuted at the confidence asked for."""
    PASSED = 2


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    figure: float
    low: float
    high: float
    verdict: Verdict

    @classmethod
    def within(cls, name: str, figure: float, *, low: float = -math.inf, high: float = math.inf) -> "Check":
        """Passes where low ≤ figure ≤ high; NaN fails."""
        return cls(name, figure, low, high, Verdict.PASSED if low <= figure <= high else Verdict.FAILED)

    def __str__(self) -> str:
        sign = {Verdict.PASSED: ("≥", "≤"), Verdict.UNDECIDED: ("~", "~"), Verdict.FAILED: ("<", ">")}[self.verdict]
        breaks_high = self.high < math.inf and (self.figure > self.high or self.low == -math.inf)
        bound, symbol = (self.high, sign[1]) if breaks_high else (self.low, sign[0])
        return f"{self.name.replace('_', ' ')} {self.figure:.2f} {symbol} {bound:g}"


@dataclass(frozen=True, slots=True)
class Report:
    checks: tuple[Check, ...]
    win_rate: float
    """Share of the prompts that the candidate answers better (ties half)."""
    reward: float
    """Mean conservative reward of the candidate, in deviations of the reference's samples."""
    active_reward: float

    @property
    def verdict(self) -> Verdict:
        return min(check.verdict for check in self.checks)

    @property
    def figures(self) -> dict[str, float]:
        """For the manifest: finite numbers only, as JSON has no others."""
        figures = {f"gate_{check.name}": check.figure for check in self.checks}
        figures |= {
            "gate_win_rate": self.win_rate,
            "gate_reward": self.reward,
            "gate_active_reward": self.active_reward,
        }
        return {name: figure for name, figure in figures.items() if math.isfinite(figure)}

    def __str__(self) -> str:
        """The checks that decide: all where all passed, else those with the worst verdict."""
        deciding = [str(check) for check in self.checks if check.verdict is self.verdict]
        return ", ".join([f"win rate {self.win_rate:.2f}", *deciding])


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How one policy answers the held-out prompts: all that does not change as the reward model learns."""

    samples: tuple[Sample, ...]
    features_PF: Tensor
    kl_nats: float
    """Mean over responses of Σ_t log π/π_ref: the Monte Carlo estimate of KL(π‖π_ref) a response."""
    entropy_nats: float
    """Mean over tokens."""

    @property
    def mean_length(self) -> float:
        return fmean(len(sample.response_ids) for sample in self.samples)

    @property
    def distinct_2(self) -> float:
        return fmean(distinct_bigrams(sample.response_ids) for sample in self.samples)


def evaluate(
    backbone: Backbone, prompts: Sequence[tuple[int, ...]], settings: GateSettings, *, temperature: float, seed: int
) -> Evaluation:
    """Let the backbone's present policy answer `prompts` (token ids), once each."""
    samples = backbone.generate(
        list(prompts), max_new_tokens=settings.max_new_tokens, temperature=temperature, seed=seed
    )
    frozen = backbone.frozen(samples, temperature=temperature, pool=pool)
    log_ratios, entropies = [], []
    with torch.no_grad():
        for batch in backbone.micro_batches(samples):
            passes = [frozen[index] for index in batch]
            logprobs_BT, entropy_BT, mask_BT = backbone.policy_logprobs(
                [samples[index] for index in batch], temperature, passes
            )
            for logprobs_T, mask_T, passed in zip(logprobs_BT, mask_BT, passes, strict=True):
                log_ratios.append((logprobs_T[mask_T] - passed.reference_logprobs_T).sum().item())
            entropies.append(entropy_BT[mask_BT])
    return Evaluation(
        tuple(samples),
        torch.stack([passed.features_F for passed in frozen if passed.features_F is not None]),
        fmean(log_ratios),
        torch.cat(entropies).mean().item(),
    )


def judge(
    candidate: Evaluation, active: Evaluation, score: Score, settings: GateSettings, *, weights_finite: bool
) -> Report:
    """Compare two evaluations of the same prompts, in the same order."""
    rewards_P, active_rewards_P = score(candidate.features_PF), score(active.features_PF)
    wins_P = (rewards_P > active_rewards_P).float() + 0.5 * (rewards_P == active_rewards_P).float()
    win_rate = wins_P.mean().item() if rewards_P.isfinite().all() else math.nan
    checks = (
        Check.within("finite", float(weights_finite and math.isfinite(candidate.kl_nats)), low=1.0),
        Check.within("kl_nats", candidate.kl_nats, high=settings.max_kl_nats),
        _shown_to_win(win_rate, len(wins_P), settings),
        Check.within(
            "length_ratio",
            candidate.mean_length / active.mean_length,
            low=settings.min_length_ratio,
            high=settings.max_length_ratio,
        ),
        Check.within("distinct_2", candidate.distinct_2, low=settings.min_distinct_2),
        Check.within("entropy_nats", candidate.entropy_nats, low=settings.min_entropy_nats),
    )
    return Report(checks, win_rate, rewards_P.mean().item(), active_rewards_P.mean().item())


def _shown_to_win(win_rate: float, count: int, settings: GateSettings) -> Check:
    """The lower confidence bound of the win rate against the least that is asked."""
    low, high = wilson_bounds(win_rate, count, settings.confidence)
    if low >= settings.min_win_rate:
        verdict = Verdict.PASSED
    elif high >= settings.min_win_rate:
        verdict = Verdict.UNDECIDED
    else:  # a rate that is not a number ends here
        verdict = Verdict.FAILED
    return Check("win_rate_bound", low, settings.min_win_rate, math.inf, verdict)


def wilson_bounds(rate: float, count: int, confidence: float) -> tuple[float, float]:
    """One-sided lower and upper bound, each at `confidence`, of a share seen as `rate` in `count` trials.

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    """
    z = NormalDist().inv_cdf(confidence)
    shrink = 1 + z * z / count
    centre = (rate + z * z / (2 * count)) / shrink
    reach = z / shrink * math.sqrt(rate * (1 - rate) / count + z * z / (4 * count * count))
    return centre - reach, centre + reach


def distinct_bigrams(tokens: Sequence[int]) -> float:
    """Distinct bigrams over bigrams, in (0, 1]; 1 where there are none (Li et al. 2016, distinct-2)."""
    bigrams = list(zip(tokens, tokens[1:], strict=False))
    return len(set(bigrams)) / len(bigrams) if bigrams else 1.0
