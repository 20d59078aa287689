"""What the gate found of a version and why it was refused, in words: for the page and for the command alike."""

import re
from collections.abc import Mapping

from console.names import short_version

FIGURES = {
    "gate_win_rate": ("win rate", "{:.0%}"),
    "gate_reward": ("reward", "{:+.2f} σ"),
    "gate_kl_nats": ("from the reference", "{:.1f} nats"),
    "gate_active_reward": ("reward of the one before", "{:+.2f} σ"),
    "gate_length_ratio": ("length", "× {:.2f}"),
    "gate_distinct_2": ("distinct pairs of words", "{:.0%}"),
    "gate_entropy_nats": ("entropy", "{:.2f} nats"),
    "gate_win_rate_bound": ("win rate, lower bound", "{:.0%}"),
    "gate_reference_length_ratio": ("length beside the reference's", "× {:.2f}"),
    "gate_reference_distinct_2": ("distinct pairs of all answers, beside the reference's", "× {:.2f}"),
    "gate_phrase_growth": ("answers sharing a phrase, more than the reference's", "{:.0%}"),
    "gate_base_perplexity": ("perplexity on the base model's answers, over its own", "× {:.2f}"),
}
"""Figures that have a name for people, the most telling first."""

CHECK = re.compile(
    r"^(?P<name>[a-z][a-z0-9 ]*?) (?P<figure>-?[\d.]+|nan|-?inf) (?P<sign>[<>~≥≤]) (?P<bound>-?[\d.e+-]+)$"
)
"""How the gate writes one of its checks into a version's reason."""
WIN_RATE = re.compile(r"^win rate (?:[\d.]+|nan)$")
"""Stands before the checks; it is a figure, and its bound is the check."""
VERSION = re.compile(r"\bp\d{6}-[0-9a-f]{8}\b")


def reasons(text: str) -> list[str]:
    """A version's reason as sentences; what is no check of the gate stays as it is, with short names of versions."""
    parts = [part.strip() for part in text.split(", ")]
    if not any(CHECK.match(part) for part in parts):
        return [VERSION.sub(lambda name: short_version(name[0]), text)] if text else []
    return [_sentence(part) for part in parts if not WIN_RATE.match(part)]


def _sentence(part: str) -> str:
    check = CHECK.match(part)
    if not check:
        return part
    name, sign = check["name"], check["sign"]
    if name == "finite":
        return "its weights or figures are not finite numbers"
    rule = name.removeprefix("rule ")
    other = (f"answers that break the rule {rule}", "{:.0%}") if rule != name else (name, "{:g}")
    title, form = FIGURES.get(f"gate_{name.replace(' ', '_')}", other)
    found, limit = form.format(float(check["figure"])), form.format(float(check["bound"]))
    if sign == "~":
        return f"{title} {found}, at least {limit} is asked: too few answers to show more"
    if sign == "<":
        return f"{title} {found}, at least {limit} is asked"
    if sign == ">":
        return f"{title} {found}, at most {limit} is allowed"
    return f"{title} {found}, within {limit}"


def told(figures: Mapping[str, float], most: int = len(FIGURES)) -> list[str]:
    """The figures that have a name, as "name value"."""
    named = [f"{FIGURES[name][0]} {FIGURES[name][1].format(figures[name])}" for name in FIGURES if name in figures]
    return named[:most]
