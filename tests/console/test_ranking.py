"""The notation of `foldback rank`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.ranking import RankingError, Tiers, example, format_ranking, parse_ranking


@st.composite
def rankings(draw: st.DrawFn) -> Tiers:
    """Any order of 1 to 8 answers with any ties."""
    order = draw(st.permutations(range(1, draw(st.integers(1, 8)) + 1)))
    tiers = [[order[0]]]
    for position in order[1:]:
        if draw(st.booleans()):
            tiers[-1].append(position)
        else:
            tiers.append([position])
    return tuple(tuple(tier) for tier in tiers)


@given(rankings(), st.data())
def test_what_is_written_is_read_back_whatever_the_spaces(tiers: Tiers, data: st.DataObject) -> None:
    text = "".join(data.draw(st.sampled_from(["", " "])) + sign for sign in format_ranking(tiers))
    assert parse_ranking(text, sum(map(len, tiers))) == tiers


@given(st.text(), st.integers(2, 8))
def test_any_text_is_a_whole_order_or_refused(text: str, count: int) -> None:
    whole_or_refused(text, count)


@given(st.text(alphabet="123456789>= ", max_size=12), st.integers(2, 5))
def test_nearly_orders_are_whole_or_refused(text: str, count: int) -> None:
    whole_or_refused(text, count)


def whole_or_refused(text: str, count: int) -> None:
    try:
        tiers = parse_ranking(text, count)
    except RankingError:
        return
    if tiers is not None:
        assert sorted(position for tier in tiers for position in tier) == list(range(1, count + 1))


def test_none_rejects_all() -> None:
    assert parse_ranking(" None\n", 3) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2>1", "3 is missing"),
        ("1>2>2>3", "2 is named twice"),
        ("1>2>3>4", "there is no answer 4"),
        ("1>>2", "not an order"),
        ("", "not an order"),
        ("best first", "not an order"),
    ],
)
def test_a_refusal_says_what_is_wrong_and_shows_the_notation(text: str, message: str) -> None:
    with pytest.raises(RankingError, match=message) as refusal:
        parse_ranking(text, 3)
    assert "2>1=3" in str(refusal.value)


@pytest.mark.parametrize("count", range(1, 9))
def test_the_example_is_itself_an_order(count: int) -> None:
    assert parse_ranking(example(count), count) is not None
