"""Tastes stay in [0, 1] and mean what they say; the noise has the rates it promises."""

import math
from collections import Counter
from itertools import pairwise, permutations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.personas import PERSONAS, Persona, tastes
from console.personas.prompts import HELD_OUT, TRAINING

DRAWS = 20_000


@pytest.mark.parametrize("persona", PERSONAS.values(), ids=lambda persona: persona.name)
@given(text=st.text())
def test_utilities_are_bounded_for_any_text(persona: Persona, text: str) -> None:
    assert 0 <= persona.utility(text) <= 1


@pytest.mark.parametrize(
    ("taste", "worse", "better"),
    [
        ("second_person", "Boil the egg for six minutes.", "You boil your egg for six minutes."),
        ("second_person", "It helps to plan.", "If you're tired, rest."),
        ("brief", "Boil the egg in a pan of water for six minutes or so.", "Boil it."),
        ("asks_back", "Do you like tea? Warm the pot.", "Warm the pot. Do you like tea?"),
        ("asks_back", "Warm the pot.", "Do you like tea? Warm the pot."),
        ("steps", "Warm the pot, then pour.", "1. Warm the pot.\n2. Pour."),
        ("steps", "- warm the pot", "- warm the pot\n- pour"),
        ("formal", "Don't worry!", "There is no need to worry."),
        ("formal", "You can make tea in a pot.", "Tea is traditionally prepared in porcelain."),
        ("enthusiastic", "Tea is a drink.", "Tea is a wonderful drink!"),
    ],
)
def test_a_taste_prefers_what_it_is_named_after(taste: str, worse: str, better: str) -> None:
    persona = PERSONAS[taste]
    assert persona.utility(better) > persona.utility(worse)


def test_second_person_grows_with_the_share_of_you_and_is_full_at_one_in_eight() -> None:
    texts = ["you " * count + "word " * (32 - count) for count in range(6)]
    utilities = [tastes.second_person(text) for text in texts]
    assert utilities == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1])


def test_brief_falls_evenly_with_every_word() -> None:
    utilities = [tastes.brief("word " * count) for count in range(1, 62)]
    assert all(first > second for first, second in pairwise(utilities[:60]))
    assert utilities[29] == pytest.approx(0.5)
    assert utilities[59] == utilities[60] == 0


def test_nobody_likes_an_empty_or_an_endlessly_repeating_answer() -> None:
    stuck = "you can " * 20
    for persona in PERSONAS.values():
        assert persona.utility("") == 0
        assert persona.utility(stuck) < 0.1


def test_every_persona_says_what_it_likes() -> None:
    assert all(persona.likes for persona in PERSONAS.values())


def test_prompts_are_many_distinct_and_split() -> None:
    assert len(HELD_OUT) == 32
    assert len(set(TRAINING) | set(HELD_OUT)) == len(TRAINING) + len(HELD_OUT) >= 150


def noisy(utilities: dict[str, float], **options: float) -> Persona:
    """A persona to whom each text (one word) has the utility given."""
    return Persona("test", lambda text: utilities[text], **options)


def test_rankings_follow_plackett_luce() -> None:
    """Without coin tosses, the frequency of each order is the product of softmax choices."""
    utilities = {"a": 0.6, "b": 0.5, "c": 0.3}
    persona = noisy(utilities, noise=0.2, random_rate=0, indifference=0)
    random = Random(1)
    texts = list(utilities)
    seen = Counter(persona.rank(texts, random) for _ in range(DRAWS))
    weights = [math.exp(utility / 0.2) for utility in utilities.values()]
    for order in permutations(range(3)):
        expected, left = 1.0, list(order)
        while left:
            expected *= weights[left[0]] / sum(weights[index] for index in left)
            left.pop(0)
        deviation = math.sqrt(expected * (1 - expected) / DRAWS)
        assert seen[tuple((index,) for index in order)] / DRAWS == pytest.approx(expected, abs=4 * deviation)


def test_some_rankings_are_coin_tosses() -> None:
    persona = noisy({"a": 1.0, "b": 0.0}, noise=0.01, random_rate=0.2)
    random = Random(2)
    wrong = sum(persona.rank(["a", "b"], random) == ((1,), (0,)) for _ in range(DRAWS)) / DRAWS
    assert wrong == pytest.approx(0.1, abs=4 * math.sqrt(0.1 * 0.9 / DRAWS))


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=8), st.integers(0, 2**32))
def test_a_ranking_names_every_answer_once(texts: list[str], seed: int) -> None:
    persona = noisy({"a": 0.0, "b": 0.01, "c": 0.5, "d": 1.0})
    tiers = persona.rank(texts, Random(seed))
    assert sorted(index for tier in tiers for index in tier) == list(range(len(texts)))
    assert all(tiers)


def test_answers_that_cannot_be_told_apart_share_a_tier() -> None:
    persona = noisy({"a": 0.50, "b": 0.51, "z": 0.0}, noise=0.001, random_rate=0)
    tiers = persona.rank(["z", "a", "b"], Random(3))
    assert [sorted(tier) for tier in tiers] == [[1, 2], [0]]


def test_abstention_has_its_rate() -> None:
    persona = noisy({}, abstain_rate=0.3)
    random = Random(4)
    share = sum(persona.abstains(random) for _ in range(DRAWS)) / DRAWS
    assert share == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / DRAWS))


@pytest.mark.parametrize(("utility", "log_odds"), [(0.5, 0), (0.7, 2), (0.1, -4)])
def test_thumbs_are_a_logistic_choice(utility: float, log_odds: float) -> None:
    expected = 1 / (1 + math.exp(-log_odds))
    persona = noisy({"a": utility}, noise=0.1, random_rate=0)
    random = Random(5)
    share = sum(persona.thumbs_up("a", random) for _ in range(DRAWS)) / DRAWS
    assert share == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / DRAWS))
