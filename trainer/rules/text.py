"""What the rules see of a text."""

import re
import unicodedata
from collections.abc import Sequence

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def words(text: str) -> list[str]:
    """Runs of letters and digits, apostrophes inside them included, in one case."""
    return _WORD.findall(text.casefold())


def runs(of: Sequence[str], length: int) -> list[tuple[str, ...]]:
    """Every `length` neighbours, in order."""
    return [tuple(of[start : start + length]) for start in range(len(of) - length + 1)]


def is_letter(character: str) -> bool:
    """A letter, or a mark that belongs to one, as Thai and Devanagari write their vowels."""
    return unicodedata.category(character)[0] in "LM"


def in_script(letter: str, names: tuple[str, ...]) -> bool:
    """Whether the letter's Unicode name begins with one of `names`, such as CYRILLIC."""
    return unicodedata.name(letter, "").startswith(names)
