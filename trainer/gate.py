"""The gate: what a policy has to show on held-out prompts before a user sees it.

The candidate, the active policy and the base model answer the same prompts from the same seed, by the trainer's own
sampling, so that serving is not touched. A candidate that has drifted too far is led back first, as far as it must.
Each check has a figure, a bound and a verdict; all of them go into the version's manifest.
"""

import logging
import math
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from pathlib import Path

from torch import Tensor

from settings.gate import GateSettings
from trainer.backbone import Backbone, FrozenPass
from trainer.drift import lead_back, of_answers
from trainer.evaluation import (
    Evaluation,
    Reference,
    distinct_beside,
    evaluate,
    form_tokens,
    perplexity_ratio,
    phrase_growth,
)
from trainer.prompts import PromptPool, fingerprint, for_gate
from trainer.publish import policy_of
from trainer.reward.features import AnswerPool
from trainer.rules import Rules
from trainer.wilson import wilson_bounds

log = logging.getLogger("trainer")

Score = Callable[[Evaluation], Tensor]
"""Conservative calibrated rewards [P] of its answers, without what the rules add."""


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
    """Examines one candidate after the other. The answers of the active version and of the base model are remembered,
    so that as a rule only the candidate's have to be drawn.

    Args:
        base_adapter: of the policy before any learning, which is the reference.
        scratch: for the policy that steps aside meanwhile.
    """

    def __init__(
        self,
        backbone: Backbone,
        answer_pool: AnswerPool,
        rules: Rules,
        settings: GateSettings,
        base_adapter: Path,
        scratch: Path,
        *,
        temperature: float,
        seed: int,
    ) -> None:
        self._backbone = backbone
        self._answer_pool = answer_pool
        self._rules = rules
        self._settings = settings
        self._base_adapter = base_adapter
        self._scratch = scratch
        self._temperature = temperature
        self._seed = seed
        self._form = form_tokens(backbone.tokenizer)
        self.last = 0
        """The candidate that was examined last."""
        self.gates = 0
        """Candidates examined."""
        self.asked: tuple[str, ...] = ()
        """Fingerprints of the prompts that they answered."""
        self._prompts: list[tuple[int, ...]] = []
        self._reference: Reference | None = None
        self._active: tuple[str, Evaluation] | None = None
        self._candidate: tuple[int, Evaluation, float] | None = None

    def remember(self, *, last: int, gates: int, asked: tuple[str, ...]) -> None:
        """Go on as before a restart. The backbone's policy may be another than the last candidate examined here."""
        self.last, self.gates, self.asked = last, gates, asked
        self._candidate = None

    def knows(self, candidate: int) -> bool:
        """Whether `candidate` is the last that was examined, and its answers are at hand."""
        return self._candidate is not None and self._candidate[0] == candidate

    def examine(
        self, pool: PromptPool, score: Score, *, candidate: int, active: str, active_adapter: Path
    ) -> tuple[Report, Evaluation]:
        """Judge the backbone's present policy against version `active`, both on held-out prompts of `pool`.

        Where it has drifted from the base past `max_base_perplexity`, `max_kl_nats` or `min_reference_distinct_2` it is
        led back, and is another from then on.

        Args:
            candidate: its PPO iteration, which tells it from those examined before; of one that it `knows`, no answers
                are drawn.
        """
        self._choose_prompts(pool, again=candidate == self.last)
        self.last = candidate
        if self._reference is None:
            with policy_of(self._backbone, self._base_adapter, self._scratch):
                self._reference = Reference(*self._answers())
        if self._active is None or self._active[0] != active:
            with policy_of(self._backbone, active_adapter, self._scratch):
                untrained = self._backbone.holds(self._base_adapter)
                self._active = active, self._reference.evaluation if untrained else self._answers()[0]
        if not self.knows(candidate):
            self._candidate = candidate, *self._led_back(candidate, self._reference)
        assert self._candidate
        _, evaluation, forgotten = self._candidate
        beside = self._active[1], self._reference.evaluation
        report = judge(evaluation, *beside, forgotten, score, self._settings, form=self._form)
        return report, evaluation

    def promoted(self, version: str, evaluation: Evaluation) -> None:
        """The candidate that was last examined is the active version now: its answers need not be drawn again."""
        self._active = version, evaluation

    def _led_back(self, candidate: int, reference: Reference) -> tuple[Evaluation, float]:
        """The candidate's answers and its perplexity ratio, once all bounds on its drift hold."""
        backbone, settings = self._backbone, self._settings
        forgotten = partial(perplexity_ratio, backbone, reference, self._temperature)
        perplexity, kept = lead_back(backbone, forgotten, math.log, most=math.log(settings.max_base_perplexity))
        answers, of_that = lead_back(
            backbone,
            self._answers,
            lambda seen: of_answers(seen[0], reference.evaluation, settings, self._form),
            most=1.0,
        )
        if kept * of_that < 1:
            log.info("gate: ppo %d had drifted too far: led back to %.2f of its way", candidate, kept * of_that)
        return answers[0], forgotten() if of_that < 1 else perplexity

    def _choose_prompts(self, pool: PromptPool, *, again: bool) -> None:
        """The same as last time, until they are due to change or a user has withdrawn one."""
        keep = self.asked if again or self.gates % self._settings.fresh_prompts_every else ()
        chosen = for_gate(pool, self._settings.prompts, self._backbone.tokenizer, keep=keep)
        self.gates += not again
        self.asked = tuple(map(fingerprint, chosen))
        if chosen != self._prompts:
            self._prompts, self._reference, self._active, self._candidate = chosen, None, None, None

    def _answers(self) -> tuple[Evaluation, tuple[FrozenPass, ...]]:
        return evaluate(
            self._backbone,
            self._prompts,
            self._answer_pool,
            self._rules,
            max_new_tokens=self._settings.max_new_tokens,
            temperature=self._temperature,
            seed=self._seed,
        )


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
    rewards_P, active_rewards_P = (score(each) + each.rules.rewards for each in (candidate, active))
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
        *_beside_the_reference(candidate, reference, settings, form),
        Check.within("base_perplexity", base_perplexity, high=settings.max_base_perplexity),
        *_rules_kept(candidate, active, reference, settings),
    )
    return Report(checks, win_rate, rewards_P.mean().item(), active_rewards_P.mean().item())


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
    return Check("win_rate_bound", low, settings.min_win_rate, math.inf, verdict)
