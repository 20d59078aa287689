"""The notation of `foldback rank`: `2>1=3` puts the second answer first and holds the other two equal."""

import re

Tiers = tuple[tuple[int, ...], ...]
NONE = "none"
NOTATION = re.compile("[0-9]+(?:[>=][0-9]+)*")


class RankingError(ValueError):
    """Not a ranking of the answers shown; the message says what is missing."""


def parse_ranking(text: str, count: int) -> Tiers | None:
    """Positions 1 to `count` in tiers, best first; None when the rater rejects all (`none`).

    Raises:
        RankingError: a position is unknown, named twice or left out, or the text is not in the notation.
    """
    compact = "".join(text.split()).lower()
    if compact == NONE:
        return None
    if not NOTATION.fullmatch(compact):
        raise RankingError(f"{text.strip()!r} is not an order; write {example(count)}, or {NONE}")
    tiers = tuple(tuple(int(position) for position in tier.split("=")) for tier in compact.split(">"))
    named = [position for tier in tiers for position in tier]
    expected = range(1, count + 1)
    problems = [f"there is no answer {position}" for position in sorted(set(named)) if position not in expected]
    problems += [f"{position} is named twice" for position in sorted(set(named)) if named.count(position) > 1]
    problems += [f"{position} is missing" for position in expected if position not in named]
    if problems:
        raise RankingError(f"{'; '.join(problems)}: name each of 1 to {count} once, like {example(count)}")
    return tiers


def format_ranking(tiers: Tiers) -> str:
    """The inverse of `parse_ranking`."""
    return ">".join("=".join(str(position) for position in tier) for tier in tiers)


def example(count: int) -> str:
    """An order of `count` answers, to show the notation."""
    return {1: "1", 2: "2>1"}.get(count, "2>1=3" + "".join(f">{n}" for n in range(4, count + 1)))
