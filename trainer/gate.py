"""The gate: what a policy has to show on held-out prompts before a user sees it.

The candidate, the active policy and the base model answer the same prompts from the same seed, by the trainer's own
sampling, so that serving is not touched. A candidate that has drifted too far is led back first, as far as it must.
"""

import logging
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from settings.gate import GateSettings
from trainer.backbone import Backbone, FrozenPass
from trainer.drift import lead_back, of_answers
from trainer.evaluation import Evaluation, Reference, evaluate, form_tokens, perplexity_ratio
from trainer.gate_report import Report, Score, judge, pleases_more
from trainer.prompts import PromptPool, fingerprint, for_gate
from trainer.publish import policy_of
from trainer.reward.features import AnswerPool
from trainer.rules import Rules

log = logging.getLogger("trainer")


@dataclass(frozen=True, slots=True)
class _Seen:
    """What there is to see of a policy, whatever the reward model says."""

    evaluation: Evaluation
    perplexity: float
    """`perplexity_ratio` to the base model."""


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
        self._active: tuple[str, _Seen] | None = None
        self._candidate: tuple[int, _Seen] | None = None

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
        reference = self._reference
        if self._active is None or self._active[0] != active:
            with policy_of(self._backbone, active_adapter, self._scratch):
                untrained = self._backbone.holds(self._base_adapter)
                seen = _Seen(reference.evaluation, 1.0) if untrained else self._seen(reference)
                self._active = active, seen
        if not self.knows(candidate):
            self._candidate = candidate, self._led_back(candidate, reference)
        assert self._candidate
        (_, rival), (_, seen) = self._active, self._candidate
        beside = rival.evaluation, reference.evaluation
        report = judge(seen.evaluation, *beside, seen.perplexity, score, self._settings, form=self._form)
        return report, seen.evaluation

    @property
    def active_is_beyond(self) -> bool:
        """Whether the active version itself, as it answered the prompts that were asked last, has drifted further than
        a candidate may: it passed on others, and of many candidates those pass that are lucky with the prompts."""
        assert self._active
        assert self._reference
        _, seen = self._active
        far = of_answers(seen.evaluation, self._reference.evaluation, self._settings, self._form)
        return far > 1 or seen.perplexity > self._settings.max_base_perplexity

    def base_pleases_most(self, score: Score) -> bool:
        """Whether the base model's answers are shown to be better than the active version's, and than those of the
        candidate that was examined last: what both were trained for is no longer what people like."""
        assert self._active
        assert self._candidate
        assert self._reference
        base = self._reference.evaluation
        (_, active), (_, candidate) = self._active, self._candidate
        return all(pleases_more(base, each.evaluation, score, self._settings) for each in (active, candidate))

    def promoted(self, version: str) -> None:
        """The candidate that was last examined is the active version now: its answers need not be drawn again."""
        assert self._candidate
        self._active = version, self._candidate[1]

    def _seen(self, reference: Reference) -> _Seen:
        return _Seen(self._answers()[0], perplexity_ratio(self._backbone, reference, self._temperature))

    def _led_back(self, candidate: int, reference: Reference) -> _Seen:
        """The candidate once all bounds on its drift hold."""
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
        return _Seen(answers[0], forgotten() if of_that < 1 else perplexity)

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
