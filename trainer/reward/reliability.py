"""How far each rater is to be believed: by whether what the others said predicts what this one says.

A rater is taken to mean what they say with probability p, and the opposite otherwise (Chen et al. 2013, "Pairwise
ranking aggregation in a crowdsourced setting", Crowd-BT). Heads that were learned from other raters alone give the
likelihood of a judgement and of its opposite; p starts at a Beta prior and moves as a rater's judgements come in. Who
has said little, or speaks of what nobody else has, stays at the prior and counts in full.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import median

import torch
from torch import Tensor

from foldback.v1 import feedback_pb2
from settings.reward import RewardSettings
from trainer.reward.examples import RewardExample
from trainer.reward.heads import fit
from trainer.reward.problem import choice_nll, lay_out

_PRIOR_MEAN = 0.85
"""p of a rater nobody knows: people at large contradict themselves and each other about that often."""
_FOLDS = 4
_ROUNDS = 2
"""In the first the hostile still help to predict; in the second they count for what the first found."""
_MEMBERS, _ITERATIONS = 2, 20
"""A prediction for comparison needs neither the whole ensemble nor the last digit."""
_GRID = torch.linspace(0.005, 0.995, 100, dtype=torch.float64)


def reliability(examples: Sequence[RewardExample], settings: RewardSettings, *, seed: int) -> dict[str, float]:
    """A weight in [settings.reliability_floor, 1] by rater, 1 unless they contradict the others more than most do.

    It is (p − ½) / (p₀ − ½), the share of a rater's word that is information, against p₀, the median rater's or the
    prior's, whichever is lower: where even the median rater is unpredictable, there is no majority to be judged by, and
    everybody counts in full. So they do while there are fewer than settings.reliability_raters, and annotators always:
    the application vouches for them.
    """
    users = sorted({example.rater for example in examples if not _is_annotator(example)})
    weights = dict.fromkeys(users, 1.0)
    if settings.reliability_floor == 1 or len(users) < settings.reliability_raters:
        return weights
    for _ in range(_ROUNDS):
        believed = _believed(examples, users, weights, settings, seed)
        typical = min(believed.median().item(), _PRIOR_MEAN)
        if typical <= 0.5:
            return dict.fromkeys(users, 1.0)
        shares = ((believed - 0.5) / (typical - 0.5)).clamp(settings.reliability_floor, 1)
        weights = dict(zip(users, shares.tolist(), strict=True))
    return weights


def _believed(
    examples: Sequence[RewardExample],
    users: Sequence[str],
    weights: Mapping[str, float],
    settings: RewardSettings,
    seed: int,
) -> Tensor:
    """E[p] of each user, [R], by heads that none of their own judgements had a part in."""
    cheap = settings.model_copy(update={"members": _MEMBERS, "max_iterations": _ITERATIONS})
    # A majority of raters, not of judgements: in the prediction nobody has more to say than the median rater.
    counts = Counter(example.rater for example in examples)
    middle = median(counts[user] for user in users)
    say = {user: weights[user] * min(1.0, middle / counts[user]) for user in users}
    vote: dict[str, Tensor] = {}
    for fold in range(_FOLDS):
        judged = set(users[fold::_FOLDS])
        others = [example for example in examples if example.rater not in judged]
        theirs = [example for example in examples if example.rater in judged and not _is_annotator(example)]
        if others and theirs:
            vote |= _votes(theirs, fit(others, cheap, seed=seed, reliability=say).scores)
    return torch.stack([_posterior_mean(vote.get(user), settings.reliability_prior) for user in users])


def _votes(examples: Sequence[RewardExample], scores: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """By rater: the log likelihood of each of their judgements, and of its opposite, [J, 2]."""
    problem = lay_out(examples)
    score_N1 = scores(problem.features_NF).mean(dim=1, keepdim=True)
    bias_R1 = _biases(examples, score_N1, problem.raters)
    nll_C2 = torch.cat([choice_nll(sign * score_N1, bias_R1, problem) for sign in (1, -1)], dim=1)
    log_likelihood_J2 = torch.zeros(len(examples), 2).index_add(
        0, problem.judgement_C, -problem.weight_C.unsqueeze(1) * nll_C2
    )
    rows: dict[str, list[int]] = {}
    for row, example in enumerate(examples):
        rows.setdefault(example.rater, []).append(row)
    return {rater: log_likelihood_J2[found].double() for rater, found in rows.items()}


def _biases(examples: Sequence[RewardExample], score_N1: Tensor, raters: Sequence[str]) -> Tensor:
    """How easily each rater is pleased, [R, 1], by the share of answers they like: a harsh rater is no liar."""
    liked = {rater: [1.0, 2.0, 0.0] for rater in raters}
    row = 0
    for example in examples:
        answers = len(example.lengths)
        if example.score is not None:
            so_far = liked[example.rater]
            so_far[0] += example.score
            so_far[1] += 1
            so_far[2] += score_N1[row : row + answers].mean().item()
        row += answers
    share_R = torch.tensor([up / count for up, count, _ in liked.values()])
    mean_score_R = torch.tensor([total / max(count - 2, 1) for _, count, total in liked.values()])
    return (share_R.logit() - mean_score_R).unsqueeze(1)


def _posterior_mean(log_likelihood_J2: Tensor | None, strength: float) -> Tensor:
    """E[p | judgements] under Beta(strength · mean, strength · (1 − mean)), on a grid; the prior's mean without any."""
    log_p_G = torch.log(_GRID) * (strength * _PRIOR_MEAN - 1) + torch.log1p(-_GRID) * (strength * (1 - _PRIOR_MEAN) - 1)
    if log_likelihood_J2 is None:
        return torch.tensor(_PRIOR_MEAN, dtype=torch.float64)
    meant_J1, opposite_J1 = log_likelihood_J2.unsqueeze(2).unbind(dim=1)
    log_p_G = log_p_G + torch.logaddexp(meant_J1 + _GRID.log(), opposite_J1 + torch.log1p(-_GRID)).sum(dim=0)
    return (torch.softmax(log_p_G, 0) * _GRID).sum()


def _is_annotator(example: RewardExample) -> bool:
    return example.source == feedback_pb2.FEEDBACK_SOURCE_ANNOTATOR
