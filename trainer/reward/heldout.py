"""How good heads are on judgements they never saw."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product

import torch
from torch import Tensor

from foldback.v1 import feedback_pb2
from trainer.reward.examples import RewardExample
from trainer.reward.heads import Heads
from trainer.reward.problem import choice_nll, lay_out

_BINS = 10


@dataclass(frozen=True, slots=True)
class Report:
    """Measured on judgements that the scores were not learned from. NaN where there is nothing to measure."""

    judgements: int
    compared: int
    """Judgements that tell answers apart: rankings and edits."""
    pairs: int
    """Of a better and a worse answer, in those."""
    accuracy: float
    """Share of pairs, within a ranking or an edit, whose better answer scores higher; equal scores count half."""
    accuracy_error: float
    """Its standard error, each conversation taken as a whole (pairs of one are not independent)."""
    rated: int
    """Thumbs and ratings for, and as many against."""
    rated_accuracy: float
    """Share of pairs of an answer rated well and one rated badly, of any two conversations, whose better one scores
    higher (the AUC)."""
    rated_error: float
    """Its standard error, each conversation taken as a whole."""
    longer_wins: float
    """`accuracy` of the rule that the longer answer is better: a model below it has learned less than length."""
    calibration_error: float
    """Expected calibration error of the predicted P(better wins), ten bins."""
    by_source: dict[str, float]
    """Accuracy a source and kind; for thumbs and ratings `rated_accuracy`."""

    @property
    def evidence(self) -> tuple[float, float, int]:
        """(accuracy, its standard error, judgements) of comparisons or of ratings, whichever say more: many an
        application asks for thumbs alone."""
        if self.compared >= self.rated:
            return self.accuracy, self.accuracy_error, self.compared
        return self.rated_accuracy, self.rated_error, self.rated


def examine(examples: Sequence[RewardExample], scores: Sequence[Tensor]) -> Report:
    """Hold the members' scores [A, M] of each example's answers against what its rater said."""
    hits, longer, probability = [], [], []
    counted: list[tuple[str, float, int]] = []
    for example, score_AM in zip(examples, scores, strict=True):
        pairs = _pairs(example.tiers)
        if not pairs:
            continue
        better, worse = map(list, zip(*pairs, strict=True))
        margin_PM = score_AM[better] - score_AM[worse]
        length_A = torch.tensor(example.lengths, dtype=torch.float32)
        hits.append(_wins(margin_PM.mean(dim=1)))
        longer.append(_wins(length_A[better] - length_A[worse]))
        probability.append(margin_PM.sigmoid().mean(dim=1))
        counted.append((example.conversation, hits[-1].sum().item(), len(pairs)))
    rated, rated_accuracy, rated_error = _rated(examples, scores)
    return Report(
        judgements=len(examples),
        compared=len(hits),
        pairs=sum(map(len, hits)),
        accuracy=_mean(hits),
        accuracy_error=_ratio_error(counted),
        rated=rated,
        rated_accuracy=rated_accuracy,
        rated_error=rated_error,
        longer_wins=_mean(longer),
        calibration_error=_calibration_error(probability),
        by_source=_by_source(examples, [score_AM.mean(dim=1) for score_AM in scores]),
    )


def losses(heads: Heads, examples: Sequence[RewardExample]) -> Tensor:
    """Nats of each judgement under the members' mean score and bias, [J]."""
    problem = lay_out(examples)
    mean_N1 = heads.scores(problem.features_NF).mean(dim=1, keepdim=True)
    bias_R1 = (heads.intercept_M + heads.biases(problem.raters)).mean(dim=1, keepdim=True)
    nll_C = choice_nll(mean_N1, bias_R1, problem).squeeze(1)
    return torch.zeros(len(examples)).index_add(0, problem.judgement_C, problem.weight_C * nll_C)


def _rated(examples: Sequence[RewardExample], scores: Sequence[Tensor]) -> tuple[int, float, float]:
    """`Report.rated`, its accuracy and the error of that: from each answer's placement among those of the other side
    (DeLong, DeLong and Clarke-Pearson, "Comparing the areas under two or more correlated ROC curves", 1988)."""
    sides: tuple[list[tuple[str, Tensor]], ...] = ([], [])
    for example, score_AM in zip(examples, scores, strict=True):
        if example.score is not None and example.score != 0.5:
            sides[example.score > 0.5].append((example.conversation, score_AM.mean()))
    if not all(sides):
        return 0, math.nan, math.nan
    wins_LD = _wins_across(*([score for _, score in side] for side in reversed(sides)))
    errors = [
        _ratio_error([(conversation, won, 1) for (conversation, _), won in zip(side, placement.tolist(), strict=True)])
        for side, placement in zip(sides, (wins_LD.mean(dim=0), wins_LD.mean(dim=1)), strict=True)
    ]
    return 2 * min(map(len, sides)), wins_LD.mean().item(), math.hypot(*errors)


def _pairs(tiers: tuple[tuple[int, ...], ...]) -> list[tuple[int, int]]:
    """(better, worse) rows."""
    return [pair for upper, lower in combinations(tiers, 2) for pair in product(upper, lower)]


def _wins(margin: Tensor) -> Tensor:
    return (margin > 0).float() + 0.5 * (margin == 0).float()


def _wins_across(liked: Sequence[Tensor], disliked: Sequence[Tensor]) -> Tensor:
    """[L, D] of every pair of a liked and a disliked answer's scores."""
    return _wins(torch.stack(list(liked))[:, None] - torch.stack(list(disliked)))


def _mean(values: Sequence[Tensor]) -> float:
    return torch.cat(list(values)).mean().item() if values else float("nan")


def _ratio_error(counted: Sequence[tuple[str, float, int]]) -> float:
    """Standard error of Σ hits / Σ pairs of (conversation, hits, pairs), each conversation taken as a whole (linearised
    ratio estimator)."""
    by_conversation: dict[str, tuple[float, int]] = {}
    for conversation, hits, pairs in counted:
        before = by_conversation.get(conversation, (0.0, 0))
        by_conversation[conversation] = before[0] + hits, before[1] + pairs
    clusters = len(by_conversation)
    if clusters < 2:
        return float("nan")
    hit_K, pair_K = torch.tensor(list(by_conversation.values()), dtype=torch.float64).T
    residual_K = hit_K - hit_K.sum() / pair_K.sum() * pair_K
    return float((residual_K.square().sum() * clusters / (clusters - 1)).sqrt() / pair_K.sum())


def _calibration_error(probabilities: Sequence[Tensor]) -> float:
    """Mean |confidence − accuracy| over bins of confidence in the predicted winner, weighted by pairs."""
    if not probabilities:
        return float("nan")
    better_P = torch.cat(list(probabilities))
    confidence_P, correct_P = torch.maximum(better_P, 1 - better_P), _wins(better_P - 0.5)
    bin_P = ((confidence_P - 0.5) * 2 * _BINS).long().clamp(max=_BINS - 1)
    gap_K = torch.zeros(_BINS).index_add(0, bin_P, confidence_P - correct_P)
    return float(gap_K.abs().sum() / len(better_P))


def _by_source(examples: Sequence[RewardExample], score_A: Sequence[Tensor]) -> dict[str, float]:
    wins: dict[str, list[Tensor]] = {}
    rated: dict[str, tuple[list[Tensor], list[Tensor]]] = {}
    for example, score in zip(examples, score_A, strict=True):
        source = feedback_pb2.FeedbackSource.DESCRIPTOR.values_by_number[example.source].name
        name = f"{source.removeprefix('FEEDBACK_SOURCE_').lower()}/{example.kind}"
        if example.score is None:
            wins.setdefault(name, []).extend(_wins(score[[b]] - score[[w]]) for b, w in _pairs(example.tiers))
        elif example.score != 0.5:
            rated.setdefault(name, ([], []))[example.score > 0.5].append(score.mean())
    figures = {name: _mean(values) for name, values in wins.items() if values}
    for name, (disliked, liked) in rated.items():
        if disliked and liked:
            figures[name] = _wins_across(liked, disliked).mean().item()
    return figures
