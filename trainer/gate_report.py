"""Whether a candidate may be served: its checks against the active version and the base model.

Each check has a figure, a bound and a verdict; all of them go into the version's manifest.
"""

import math
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from enum import IntEnum

from torch import Tensor

from settings.gate import GateSettings
from trainer.evaluation import Evaluation, distinct_beside, phrase_growth
from trainer.wilson import wilson_bounds

Score = Callable[[Evaluation], Tensor]
"""Conservative calibrated rewards [P] of its answers, without what the rules add."""

_WIN_RATE = "win_rate_bound"


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
    def only_pleases_less(self) -> bool:
        """Whether nothing else speaks against the candidate than that it was not shown to win."""
        return all(check.verdict is Verdict.PASSED or check.name == _WIN_RATE for check in self.checks)

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


def judge(
    candidate: Evaluation,
    active: Evaluation,
    reference: Evaluation,
    base_perplexity: float,
    score: Score,
    settings: GateSettings,
    *,
    form: Container[int] = frozenset(),
) -> Report:
    """Compare evaluations of the same prompts, in the same order.

    Args:
        base_perplexity: `perplexity_ratio` of the candidate.
        form: tokens that make no phrase (`form_tokens`).
    """
    rewards_P, active_rewards_P = _rewards(candidate, score), _rewards(active, score)
    win_rate = _win_rate(rewards_P, active_rewards_P)
    checks = (
        Check.within("finite", float(math.isfinite(candidate.kl_nats)), low=1.0),
        Check.within("kl_nats", candidate.kl_nats, high=settings.max_kl_nats),
        _shown_to_win(win_rate, len(rewards_P), settings),
        Check.within(
            "length_ratio",
            candidate.mean_length / active.mean_length,
            low=settings.min_length_ratio,
            high=settings.max_length_ratio,
        ),
        Check.within("distinct_2", candidate.distinct_2, low=settings.min_distinct_2),
        Check.within("entropy_nats", candidate.entropy_nats, low=settings.min_entropy_nats),
        *_beside_the_reference(candidate, reference, settings, form),
        Check.within("base_perplexity", base_perplexity, high=settings.max_base_perplexity),
        *_rules_kept(candidate, active, reference, settings),
    )
    return Report(checks, win_rate, rewards_P.mean().item(), active_rewards_P.mean().item())


def pleases_more(one: Evaluation, other: Evaluation, score: Score, settings: GateSettings) -> bool:
    """Whether `one` is shown to answer the same prompts better."""
    rewards_P, others_P = _rewards(one, score), _rewards(other, score)
    win_rate = _win_rate(rewards_P, others_P)
    return _shown_to_win(win_rate, len(rewards_P), settings).verdict is Verdict.PASSED


def _rewards(evaluation: Evaluation, score: Score) -> Tensor:
    return score(evaluation) + evaluation.rules.rewards


def _win_rate(rewards_P: Tensor, others_P: Tensor) -> float:
    """Ties count half; not a number where a reward is none."""
    wins_P = (rewards_P > others_P).float() + 0.5 * (rewards_P == others_P).float()
    return wins_P.mean().item() if rewards_P.isfinite().all() else math.nan


def _beside_the_reference(
    candidate: Evaluation, reference: Evaluation, settings: GateSettings, form: Container[int]
) -> Iterator[Check]:
    """What no number of small steps may add up to: bounds against the active version alone would move along with it."""
    yield Check.within(
        "reference_length_ratio",
        candidate.mean_length / reference.mean_length,
        low=settings.min_reference_length_ratio,
        high=settings.max_reference_length_ratio,
    )
    yield Check.within(
        "reference_distinct_2",
        distinct_beside(candidate.samples, reference.samples, form),
        low=settings.min_reference_distinct_2,
    )
    growth = phrase_growth(candidate.samples, reference.samples, settings.phrase_tokens, form)
    yield Check.within("phrase_growth", growth, high=settings.max_phrase_growth)


def _rules_kept(
    candidate: Evaluation, active: Evaluation, reference: Evaluation, settings: GateSettings
) -> Iterator[Check]:
    """The share of answers that break a rule, by rule with a veto."""
    for name, share in candidate.rules.broken.items():
        bound = min(active.rules.broken[name], reference.rules.broken[name]) + settings.max_rule_growth
        shown, _ = wilson_bounds(share, len(candidate.samples), settings.confidence)
        verdict = Verdict.FAILED if shown > bound else Verdict.PASSED
        yield Check(f"rule_{name}", share, -math.inf, bound, verdict)


def _shown_to_win(win_rate: float, count: int, settings: GateSettings) -> Check:
    """The lower confidence bound of the win rate against the least that is asked."""
    low, high = wilson_bounds(win_rate, count, settings.confidence)
    if low >= settings.min_win_rate:
        verdict = Verdict.PASSED
    elif high >= settings.min_win_rate:
        verdict = Verdict.UNDECIDED
    else:  # a rate that is not a number ends here
        verdict = Verdict.FAILED
    return Check(_WIN_RATE, low, settings.min_win_rate, math.inf, verdict)
