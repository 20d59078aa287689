"""The gate: what a policy has to show on held-out prompts before a user sees it.

The candidate and the active policy answer the same prompts from the same seed, by the trainer's own sampling, so that
serving is not touched. Each check has a figure, a bound and a verdict; all of them go into the version's manifest.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from statistics import NormalDist

from torch import Tensor

from settings.trainer import GateSettings
from trainer.backbone import Backbone
from trainer.evaluation import Evaluation, evaluate
from trainer.publish import policy_of

Prompts = Sequence[tuple[int, ...]]
"""Token ids."""
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


class Gate:
    """Examines one candidate after the other against the active version, whose answers it remembers."""

    def __init__(
        self, backbone: Backbone, settings: GateSettings, scratch: Path, *, temperature: float, seed: int
    ) -> None:
        self._backbone = backbone
        self._settings = settings
        self._scratch = scratch
        self._temperature = temperature
        self._seed = seed
        self._active: tuple[str, Prompts, Evaluation] | None = None

    def examine(
        self, prompts: Prompts, score: Score, *, active: str, active_adapter: Path
    ) -> tuple[Report, Evaluation]:
        """Judge the backbone's present policy against version `active`, both on `prompts`."""
        if self._active is None or self._active[:2] != (active, prompts):
            with policy_of(self._backbone, active_adapter, self._scratch):
                self._active = (active, prompts, self._evaluate(prompts))
        candidate = self._evaluate(prompts)
        return judge(candidate, self._active[2], score, self._settings), candidate

    def promoted(self, version: str, prompts: Prompts, evaluation: Evaluation) -> None:
        """The candidate that was last examined is the active version now: its answers need not be drawn again."""
        self._active = (version, prompts, evaluation)

    def _evaluate(self, prompts: Prompts) -> Evaluation:
        return evaluate(
            self._backbone,
            prompts,
            max_new_tokens=self._settings.max_new_tokens,
            temperature=self._temperature,
            seed=self._seed,
        )


def judge(candidate: Evaluation, active: Evaluation, score: Score, settings: GateSettings) -> Report:
    """Compare two evaluations of the same prompts, in the same order."""
    rewards_P, active_rewards_P = score(candidate.features_PF), score(active.features_PF)
    wins_P = (rewards_P > active_rewards_P).float() + 0.5 * (rewards_P == active_rewards_P).float()
    win_rate = wins_P.mean().item() if rewards_P.isfinite().all() else math.nan
    checks = (
        Check.within("finite", float(math.isfinite(candidate.kl_nats)), low=1.0),
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
