"""All rules at once, over many answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from settings.rules import Constitution
from trainer.rules.scores import score
from trainer.tokens import Sample


class Decoder(Protocol):
    """The part of a tokenizer that the rules need."""

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str: ...


@dataclass(frozen=True, slots=True)
class RuleScores:
    """Of P answers under the Q rules of a constitution."""

    constitution: Constitution
    scores_PQ: Tensor
    """In [0, 1]: 1 where the answer keeps the rule."""

    @property
    def rewards(self) -> Tensor:
        """[P], Σ weight · (score − 1): what the rules add to the reward, 0 where all are kept.

        It is added to the calibrated reward (the reference's answers: 0 ± 1), outside the bound and the uncertainty
        penalty, so that a weight means the same however the reward model is refitted. Counted from the kept rule
        downwards: a constant would have no say in which answer is better, but the critic would have to learn it first,
        and until then it would favour short answers (λ < 1 discounts it).
        """
        weight_Q = torch.tensor([rule.weight for rule in self.constitution.rules])
        return (self.scores_PQ - 1) @ weight_Q

    @property
    def means(self) -> dict[str, float]:
        """Mean score by rule."""
        return dict(zip(self._names, self.scores_PQ.mean(0).tolist(), strict=True))

    @property
    def broken(self) -> dict[str, float]:
        """By rule with a veto: the share of answers that score below it."""
        vetoes = [(name, rule.veto) for name, rule in zip(self._names, self.constitution.rules, strict=True)]
        return {
            name: (scores_P < veto).float().mean().item()
            for (name, veto), scores_P in zip(vetoes, self.scores_PQ.T, strict=True)
            if veto is not None
        }

    @property
    def _names(self) -> list[str]:
        return [rule.name for rule in self.constitution.rules]


class Rules:
    """Holds answers against a constitution.

    Args:
        decoder: turns token ids into the text that users see.
    """

    def __init__(self, constitution: Constitution, decoder: Decoder) -> None:
        self._constitution = constitution
        self._decoder = decoder

    def judge(self, samples: Sequence[Sample]) -> RuleScores:
        rules = self._constitution.rules
        scores_PQ = torch.ones(len(samples), len(rules))
        if rules:
            for row, sample in enumerate(samples):
                context, answer = self._text(sample.prompt_ids), self._text(sample.response_ids)
                scores_PQ[row] = torch.tensor([score(rule, context, answer) for rule in rules])
        return RuleScores(self._constitution, scores_PQ)

    def _text(self, token_ids: Sequence[int]) -> str:
        return self._decoder.decode(token_ids, skip_special_tokens=True)
