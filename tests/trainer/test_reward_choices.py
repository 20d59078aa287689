"""The likelihoods against independent float64 references and closed forms."""

import math
from collections.abc import Sequence
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.reward_tastes import FEATURES, example
from trainer.reward.choices import absolute, ranking
from trainer.reward.problem import Problem, choice_nll, lay_out

Scores = list[float]
scores_of = st.lists(st.floats(-5, 5), min_size=2, max_size=5)


def nll(problem: Problem, scores: Sequence[float], bias: float = 0.0) -> float:
    """Of all choices together, in float64."""
    scores_N1 = torch.tensor(scores, dtype=torch.float64).unsqueeze(1)
    bias_R1 = torch.full((len(problem.raters), 1), bias, dtype=torch.float64)
    return (problem.weight_C.double() @ choice_nll(scores_N1, bias_R1, problem)).item()


def ranked(tiers: tuple[tuple[int, ...], ...], *, rejected_all: bool = False) -> Problem:
    answers = sum(len(tier) for tier in tiers)
    return lay_out([example(torch.zeros(answers, FEATURES), name="r", tiers=tiers, rejected_all=rejected_all)])


def rated(score: float, answers: int = 1) -> Problem:
    return lay_out([example(torch.zeros(answers, FEATURES), name="t", kind="thumbs", score=score)])


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def plackett_luce(scores: Sequence[float], order: Sequence[int]) -> float:
    """P(order), best first, straight from the definition."""
    probability = 1.0
    for place in range(len(order)):
        rest = order[place:]
        probability *= math.exp(scores[rest[0]]) / sum(math.exp(scores[i]) for i in rest)
    return probability


@settings(deadline=None, max_examples=30)
@given(scores_of)
def test_strict_ranking_is_plackett_luce(scores: Scores) -> None:
    for order in permutations(range(len(scores))):
        expected = -math.log(plackett_luce(scores, order))
        assert nll(ranked(tuple((i,) for i in order)), scores) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@settings(deadline=None, max_examples=30)
@given(scores_of)
def test_probabilities_of_all_orders_sum_to_one(scores: Scores) -> None:
    orders = permutations(range(len(scores)))
    total = sum(math.exp(-nll(ranked(tuple((i,) for i in order)), scores)) for order in orders)
    assert total == pytest.approx(1.0, rel=1e-9)


@settings(deadline=None, max_examples=30)
@given(st.floats(-20, 20), st.floats(-20, 20))
def test_two_answers_are_bradley_terry(better: float, worse: float) -> None:
    expected = math.log1p(math.exp(-(better - worse)))
    assert nll(ranked(((0,), (1,))), [better, worse]) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@settings(deadline=None, max_examples=30)
@given(st.floats(-20, 20), st.floats(-20, 20))
def test_a_tie_of_two_is_half_a_win_each_way(a: float, b: float) -> None:
    half_each = 0.5 * nll(ranked(((0,), (1,))), [a, b]) + 0.5 * nll(ranked(((1,), (0,))), [a, b])
    assert nll(ranked(((0, 1),)), [a, b]) == pytest.approx(half_each, rel=1e-9, abs=1e-12)


def test_tied_answers_each_beat_the_worse_tier() -> None:
    scores = [1.0, -0.5, 0.25]
    expected = -math.log(sigmoid(scores[0] - scores[2])) - math.log(sigmoid(scores[1] - scores[2]))
    expected += 0.5 * (-math.log(sigmoid(1.5)) - math.log(sigmoid(-1.5)))
    assert nll(ranked(((0, 1), (2,))), scores) == pytest.approx(expected)


def test_ties_pull_scores_together_and_nothing_else() -> None:
    equal, apart = [0.3, 0.3, 0.3], [0.3, 0.9, -0.3]
    problem = ranked(((0, 1, 2),))
    assert nll(problem, equal) < nll(problem, apart)
    assert nll(problem, equal) == pytest.approx(nll(problem, [s + 7 for s in equal]))


@settings(deadline=None, max_examples=30)
@given(st.floats(-20, 20), st.floats(-5, 5), st.floats(0, 1))
def test_thumbs_and_ratings_are_logistic(score: float, bias: float, rating: float) -> None:
    up, down = (math.log1p(math.exp(-sign * (score + bias))) for sign in (1, -1))
    expected = rating * up + (1 - rating) * down
    assert nll(rated(rating), [score], bias) == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_a_thumb_on_a_whole_response_counts_once() -> None:
    assert nll(rated(1.0, answers=4), [0.7] * 4) == pytest.approx(nll(rated(1.0), [0.7]))


def test_rejected_all_prefers_the_outside_option_to_each() -> None:
    scores, bias = [0.4, -0.2], 0.3
    none = 1 / (1 + sum(math.exp(score + bias) for score in scores))
    expected = -math.log(none) + nll(ranked(((0,), (1,))), scores)
    assert nll(ranked(((0,), (1,)), rejected_all=True), scores, bias) == pytest.approx(expected)


def test_rejecting_the_only_answer_is_a_thumb_down() -> None:
    assert nll(ranked(((0,),), rejected_all=True), [1.2]) == pytest.approx(nll(rated(0.0), [1.2]))


def test_a_ranking_of_one_says_nothing() -> None:
    assert ranking(((0,),)) == []


@pytest.mark.parametrize("tiers", [((0,), (1, 2), (3,)), ((0, 1, 2),), ((2,), (1,), (0,))])
def test_every_choice_has_a_distribution_over_its_options(tiers: tuple[tuple[int, ...], ...]) -> None:
    for choice in [*ranking(tiers, rejected_all=True), *absolute(3, 0.25)]:
        assert len(choice.options) == len(choice.target)
        assert sum(choice.target) == pytest.approx(1.0)


def test_gradients() -> None:
    x_AF = torch.zeros(3, FEATURES)
    problem = lay_out(
        [
            example(x_AF, name="a", rater="p", tiers=((2,), (0, 1))),
            example(x_AF, name="b", rater="q", tiers=((0,), (1,), (2,)), rejected_all=True),
            example(x_AF[:2], name="c", rater="p", kind="rating", score=0.75),
        ]
    )
    generator = torch.Generator().manual_seed(0)
    scores_NM = torch.randn(8, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    bias_RM = torch.randn(2, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s, b: choice_nll(s, b, problem), (scores_NM, bias_RM))
