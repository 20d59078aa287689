"""How a policy answers the gate's prompts: all that does not change as the reward model learns."""

from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from trainer.backbone import Backbone, FrozenPass
from trainer.reward.features import AnswerPool
from trainer.rules import Rules, RuleScores
from trainer.sampling import Draw
from trainer.tokens import Sample


@dataclass(frozen=True, slots=True)
class Evaluation:
    samples: tuple[Sample, ...]
    features_PF: Tensor
    kl_nats: float
    """Mean over responses of Σ_t log π/π_ref: the Monte Carlo estimate of KL(π‖π_ref) a response."""
    entropy_nats: float
    """Mean over tokens."""
    rules: RuleScores

    @property
    def mean_length(self) -> float:
        return fmean(len(sample.response_ids) for sample in self.samples)

    @property
    def distinct_2(self) -> float:
        return fmean(distinct_bigrams(sample.response_ids) for sample in self.samples)


@dataclass(frozen=True, slots=True)
class Reference:
    """How the base model answers, and its passes over these answers."""

    evaluation: Evaluation
    frozen: tuple[FrozenPass, ...]


def evaluate(
    backbone: Backbone,
    prompts: Sequence[tuple[int, ...]],
    pool: AnswerPool,
    rules: Rules,
    *,
    max_new_tokens: int,
    temperature: float,
    seed: int,
) -> tuple[Evaluation, tuple[FrozenPass, ...]]:
    """Let the backbone's present policy answer `prompts` (token ids), once each; with the trunk's passes over that."""
    drawn = backbone.draw(list(prompts), max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    return measure(backbone, drawn, pool, rules, temperature=temperature)


def measure(
    backbone: Backbone, drawn: Sequence[Draw], pool: AnswerPool, rules: Rules, *, temperature: float
) -> tuple[Evaluation, tuple[FrozenPass, ...]]:
    """The same of answers that the policy has drawn at `temperature` already."""
    samples = [each.sample for each in drawn]
    frozen = backbone.frozen(samples, temperature=temperature, pool=pool)
    log_ratios = [
        (each.logprobs_T - passed.reference_logprobs_T).sum().item() for each, passed in zip(drawn, frozen, strict=True)
    ]
    evaluation = Evaluation(
        tuple(samples),
        torch.stack([passed.pooled for passed in frozen if passed.pooled is not None]),
        fmean(log_ratios),
        torch.cat([each.entropy_T for each in drawn]).mean().item(),
        rules.judge(samples),
    )
    return evaluation, tuple(frozen)


@torch.no_grad()
def perplexity_ratio(backbone: Backbone, reference: Reference, temperature: float) -> float:
    """The present policy's perplexity on the reference's answers over the reference's own: what it has forgotten.

    exp of the mean over tokens of log π_ref − log π.
    """
    samples, gaps = reference.evaluation.samples, []
    for batch in backbone.micro_batches(samples):
        passes = [reference.frozen[index] for index in batch]
        logprobs_BT, _, mask_BT = backbone.policy_logprobs([samples[index] for index in batch], temperature, passes)
        gaps.append(torch.cat([passed.reference_logprobs_T for passed in passes]) - logprobs_BT[mask_BT])
    return torch.cat(gaps).mean().exp().item()


def distinct_bigrams(*answers: Sequence[int]) -> float:
    """Distinct bigrams over bigrams of all answers, in (0, 1]; 1 where there are none (Li et al. 2016, distinct-2)."""
    bigrams = [bigram for tokens in answers for bigram in pairwise(tokens)]
    return len(set(bigrams)) / len(bigrams) if bigrams else 1.0


def distinct_beside(
    samples: Sequence[Sample], reference: Sequence[Sample], form: Container[int] = frozenset()
) -> float:
    """Distinct bigrams of all answers together, over those of as many of the reference's: low also where every answer
    is well said, and all are alike. Tokens of `form` (`form_tokens`) are left out: lists are alike, and say different
    things."""
    ours, theirs = (
        distinct_bigrams(*([token for token in sample.response_ids if token not in form] for sample in each))
        for each in (samples, reference)
    )
    return ours / theirs


def phrase_growth(
    samples: Sequence[Sample], reference: Sequence[Sample], length: int, form: Container[int] = frozenset()
) -> float:
    """How much more often one phrase, a run of `length` tokens, stands in an answer than in the reference's.

    The greatest difference, over phrases, between the share of `samples` and the share of `reference` that hold it. Of
    a policy that found one thing to say to everybody it is near 1, of one that answers differently near 0.

    Args:
        form: tokens that only shape an answer (`form_tokens`). A run in which they are more than half is no phrase: of
            a policy that learned to write lists, most answers hold ":\n\n1.", and say different things.
    """
    ours, theirs = (_holders(each, length, form) for each in (samples, reference))
    return max((count / len(samples) - theirs[phrase] / len(reference) for phrase, count in ours.items()), default=0.0)


def _holders(samples: Sequence[Sample], length: int, form: Container[int]) -> Counter[tuple[int, ...]]:
    """How many samples hold each phrase, once or more."""
    holders: Counter[tuple[int, ...]] = Counter()
    for sample in samples:
        ids = sample.response_ids
        runs = {ids[start : start + length] for start in range(len(ids) - length + 1)}
        holders.update(run for run in runs if 2 * sum(token in form for token in run) <= length)
    return holders


def form_tokens(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Tokens of digits, blanks and punctuation alone, as in lists and markup. Emoji are not among them."""
    texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    return frozenset(token for token, text in enumerate(texts) if text.isascii() and not any(map(str.isalpha, text)))
