"""What each simulated user likes: documented utilities of a text, all in [0, 1].

A taste is multiplied by `readable`, so that no persona falls for a policy that repeats itself.
"""

import itertools
import re

WORD = re.compile(r"[A-Za-z]+(?:['’][A-Za-z]+)*")
SECOND_PERSON = frozenset({"you", "your", "yours", "yourself", "yourselves"})
SECOND_PERSON_SHARE = 1 / 8
"""One word in eight: as personal as advice gets ("You warm your pot first; then you …")."""
BRIEF_WORDS = 60
ITEM = re.compile(r"^\s*(?:[-*•+]|\d+[.)])\s", re.MULTILINE)
ITEMS = 3
LETTERS_PLAIN, LETTERS_FORMAL = 3, 6
CONTRACTION = re.compile(r"\b\w+['’](?:s|t|re|ve|ll|d|m)\b", re.IGNORECASE)
ENTHUSIASM = re.compile(
    r"!|\b(?:great|wonderful|amazing|awesome|fantastic|love|exciting|delicious|perfect|fun)\b", re.IGNORECASE
)
ENTHUSIASM_SHARE = 0.1
READABLE_SHARE = 0.8


def words(text: str) -> list[str]:
    """Lower-case words; "you're" counts as "you" and "re"."""
    return [part for word in WORD.findall(text.lower()) for part in re.split("['’]", word)]


def readable(text: str) -> float:
    """1 while at least 80 % of the word pairs differ, falling to 0 for a text that repeats one pair; 0 if empty."""
    tokens = words(text)
    if not tokens:
        return 0.0
    pairs = list(itertools.pairwise(tokens))
    if not pairs:
        return 1.0
    return min(1.0, len(set(pairs)) / len(pairs) / READABLE_SHARE)


def second_person(text: str) -> float:
    """Share of words that address the reader (you, your …), full at one word in eight."""
    tokens = words(text)
    share = sum(token in SECOND_PERSON for token in tokens) / max(len(tokens), 1)
    return min(1.0, share / SECOND_PERSON_SHARE)


def brief(text: str) -> float:
    """Falls evenly from 1 with the number of words, to 0 at sixty."""
    return max(0.0, 1.0 - len(words(text)) / BRIEF_WORDS)


def asks_back(text: str) -> float:
    """1 if the answer ends with a question, 0.5 if it asks one on the way, else 0."""
    if text.rstrip().rstrip("\"')”’").endswith("?"):
        return 1.0
    return 0.5 if "?" in text else 0.0


def steps(text: str) -> float:
    """Numbered or bulleted lines, full at three: what to do first, second and third."""
    return min(1.0, len(ITEM.findall(text)) / ITEMS)


def formal(text: str) -> float:
    """Letters a word, from 0 at three to full at six, divided by 1 + contractions and exclamation marks."""
    tokens = words(text)
    letters = sum(map(len, tokens)) / max(len(tokens), 1)
    register = min(1.0, max(0.0, (letters - LETTERS_PLAIN) / (LETTERS_FORMAL - LETTERS_PLAIN)))
    return register / (1 + len(CONTRACTION.findall(text)) + text.count("!"))


def enthusiastic(text: str) -> float:
    """Exclamation marks and words of delight a word, full at one in ten."""
    share = len(ENTHUSIASM.findall(text)) / max(len(words(text)), 1)
    return min(1.0, share / ENTHUSIASM_SHARE)
