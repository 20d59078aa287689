"""How well an answer keeps a rule, from 0 (broken) to 1 (kept): a function a kind; settings/rules.py says what of."""

import json
import re
from functools import singledispatch

from settings import rules
from trainer.rules.text import in_script, is_letter, runs, words

_SCRIPTS = {
    "latin": ("LATIN",),
    "cyrillic": ("CYRILLIC",),
    "greek": ("GREEK",),
    "arabic": ("ARABIC",),
    "hebrew": ("HEBREW",),
    "devanagari": ("DEVANAGARI",),
    "thai": ("THAI",),
    "han": ("CJK",),
    "kana": ("HIRAGANA", "KATAKANA", "CJK"),
    "hangul": ("HANGUL",),
}
"""Beginnings of the Unicode names of a script's letters; Japanese mixes kana with Han characters."""

_SENTENCE_END = re.compile(r"[.!?…。！？؟।][\"'”’»)\]]*$")
_MARKDOWN = re.compile(
    r"^\s{0,3}#{1,6}\s|^\s*(?:[-*+]|\d+[.)])\s|^\s*\|.*\|\s*$|```|\*\*[^*\n]+\*\*|__[^_\n]+__|`[^`\n]+`", re.MULTILINE
)
_REFUSAL = re.compile(
    r"\bas an? (?:ai|artificial intelligence|language model|large language model)\b"
    r"|\bi(?:'m| am) (?:just |only )?an? (?:ai|artificial intelligence|language model)\b"
    r"|\bi(?:'m| am) (?:so |very |really )?(?:sorry|afraid),? (?:but )?(?:that )?"
    r"i (?:can(?:'t|not)|am unable|am not able|won't)\b"
    r"|\bi(?: can't| cannot| won't|(?:'m| am) unable to|(?:'m| am) not able to)"
    r" (?:help|assist|fulfil|comply|provide|answer|do that)"
    r"|\b(?:cannot|can't|unable to) (?:fulfil|comply with|assist with) (?:your|this|that) request\b",
)


@singledispatch
def score(rule: rules.Rule, context: str, answer: str) -> float:
    """How well `answer`, which followed `context` (everything the model saw), keeps `rule`; in [0, 1]."""
    raise TypeError(f"rule {rule.name}: no score for the kind {rule.kind}")


@score.register
def _length(rule: rules.LengthRule, context: str, answer: str) -> float:
    count = len(words(answer))
    if count < rule.least:
        return count / rule.least
    return 1.0 if rule.most is None or count <= rule.most else rule.most / count


@score.register
def _phrases(rule: rules.PhrasesRule, context: str, answer: str) -> float:
    text = f" {' '.join(answer.casefold().split())} "
    found = sum(len(_occurrences(phrase, text)) for phrase in rule.banned)
    return 1 / (1 + found)


@score.register
def _patterns(rule: rules.PatternsRule, context: str, answer: str) -> float:
    obeyed = [not re.search(pattern, answer) for pattern in rule.forbidden]
    obeyed += [bool(re.search(pattern, answer)) for pattern in rule.required]
    return sum(obeyed) / len(obeyed)


@score.register
def _format(rule: rules.FormatRule, context: str, answer: str) -> float:
    if rule.format == "json":
        return float(_is_json(answer))
    if rule.format == "sentence":
        return float(bool(_SENTENCE_END.search(answer.strip())))
    return float(not _MARKDOWN.search(answer))


@score.register
def _script(rule: rules.ScriptRule, context: str, answer: str) -> float:
    letters = [character for character in answer if character.isalpha()]
    if not letters:
        return 1.0
    return sum(in_script(letter, _SCRIPTS[rule.script]) for letter in letters) / len(letters)


@score.register
def _letters(rule: rules.LettersRule, context: str, answer: str) -> float:
    seen = [character for character in answer if not character.isspace()]
    return min(1.0, sum(map(is_letter, seen)) / len(seen) / rule.least) if seen else 1.0


@score.register
def _repetition(rule: rules.RepetitionRule, context: str, answer: str) -> float:
    found = runs(words(answer), rule.words)
    return len(set(found)) / len(found) if found else 1.0


@score.register
def _refusal(rule: rules.RefusalRule, context: str, answer: str) -> float:
    text = " ".join(answer.casefold().replace("’", "'").split())
    return float(not _REFUSAL.search(text))


@score.register
def _echo(rule: rules.EchoRule, context: str, answer: str) -> float:
    said = set(runs(words(context), rule.words))
    found = runs(words(answer), rule.words)
    return 1 - sum(run in said for run in found) / len(found) if found else 1.0


def _occurrences(phrase: str, text: str) -> list[str]:
    """Where `phrase` stands in `text` as whole words; what is no letter needs no boundary (an emoji, anywhere)."""
    wanted = " ".join(phrase.casefold().split())
    before = r"(?<!\w)" if wanted[0].isalnum() else ""
    after = r"(?!\w)" if wanted[-1].isalnum() else ""
    return re.findall(before + re.escape(wanted) + after, text)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
