"""Examples laid out as tensors, and the likelihood of their choices."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.reward.choices import OUTSIDE
from trainer.reward.examples import RewardExample


@dataclass(frozen=True, slots=True)
class Problem:
    """J judgements of R raters as C choices from at most K options, over N answers with F features."""

    features_NF: Tensor
    options_CK: Tensor
    """Answers 0 … N−1; N is the outside option, N+1 fills up."""
    target_CK: Tensor
    weight_C: Tensor
    judgement_C: Tensor
    rater_C: Tensor
    raters: tuple[str, ...]


def lay_out(examples: Sequence[RewardExample]) -> Problem:
    """The choices of all examples, side by side."""
    raters = tuple(sorted({example.rater for example in examples}))
    rater_index = {rater: index for index, rater in enumerate(raters)}
    choices = []
    first_row = 0
    for judgement, example in enumerate(examples):
        choices += [(choice, judgement, first_row, rater_index[example.rater]) for choice in example.choices()]
        first_row += len(example.lengths)
    width = max((len(choice.options) for choice, *_ in choices), default=1)
    options_CK = torch.full((len(choices), width), first_row + 1)
    target_CK = torch.zeros(len(choices), width)
    for row, (choice, _, first, _) in enumerate(choices):
        k = len(choice.options)
        options_CK[row, :k] = torch.tensor([first_row if o == OUTSIDE else first + o for o in choice.options])
        target_CK[row, :k] = torch.tensor(choice.target)
    return Problem(
        features_NF=torch.cat([example.features_AF for example in examples]),
        options_CK=options_CK,
        target_CK=target_CK,
        weight_C=torch.tensor([choice.weight for choice, *_ in choices]),
        judgement_C=torch.tensor([judgement for _, judgement, _, _ in choices]),
        rater_C=torch.tensor([rater for *_, rater in choices]),
        raters=raters,
    )


def choice_nll(scores_NM: Tensor, bias_RM: Tensor, problem: Problem) -> Tensor:
    """Cross-entropy of every choice under Luce's rule in nats, [C, M], unweighted; bias pleases a rater easily."""
    n, m = scores_NM.shape
    outside_C1M = -bias_RM[problem.rater_C].unsqueeze(1)
    options_CK1 = problem.options_CK.unsqueeze(2)
    padded_NM = torch.cat([scores_NM, scores_NM.new_zeros(2, m)])
    option_CKM = padded_NM[problem.options_CK]
    option_CKM = torch.where(options_CK1 == n, outside_C1M, option_CKM)
    chosen_CM = (problem.target_CK.unsqueeze(2) * option_CKM).sum(dim=1)
    reachable_CKM = option_CKM.masked_fill(options_CK1 > n, float("-inf"))
    return reachable_CKM.logsumexp(dim=1) - chosen_CM
