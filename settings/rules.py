"""`rules.yaml`, the constitution: named rules that every answer is held against.

A rule gives an answer a score from 0 (broken) to 1 (kept). In PPO it adds weight · (score − 1) to the reward; at the
gate an answer that scores below the rule's `veto` breaks it. `trainer/rules/` computes the scores.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, StringConstraints, ValidationError, field_validator, model_validator

from settings.load import Settings, SettingsError, settings_file
from settings.section import Section

MOST_RULES = 32
"""A rule's name is a metric's label, so there are not too many."""

Script = Literal["latin", "cyrillic", "greek", "arabic", "hebrew", "devanagari", "thai", "han", "kana", "hangul"]


class _Rule(Section):
    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
    """Lower-case letters, digits and underscores; stands in metrics, manifests and logs."""
    weight: float = Field(default=0.5, ge=0, le=10)
    """Reward of keeping the rule over breaking it, in standard deviations of the reference policy's rewards."""
    veto: float | None = Field(default=None, gt=0, le=1)
    """An answer that scores less than this breaks the rule, and the gate refuses a version whose answers break it more
    often than the active version's by more than trainer.gate.max_rule_growth. None: the gate does not ask."""


class LengthRule(_Rule):
    """1 between `least` and `most` words; outside, in proportion: n / least below, most / n above."""

    kind: Literal["length"]
    least: int = Field(default=0, ge=0)
    """Words."""
    most: int | None = Field(default=None, ge=1)
    """Words. None: no limit."""

    @model_validator(mode="after")
    def _is_an_interval(self) -> Self:
        if self.most is not None and self.most < self.least:
            raise ValueError(f"most={self.most} is under least={self.least}; swap them")
        return self


class PhrasesRule(_Rule):
    """1 / (1 + n) with n the times that a banned phrase occurs: as whole words, whatever their case and spacing."""

    kind: Literal["phrases"]
    banned: list[str] = Field(min_length=1)
    """Words or phrases."""

    @field_validator("banned")
    @classmethod
    def _have_words(cls, banned: list[str]) -> list[str]:
        for phrase in banned:
            if not phrase.strip():
                raise ValueError(f"{phrase!r} has no words; write the phrase, or take it out")
        return banned


class PatternsRule(_Rule):
    """The share of its regular expressions (Python's `re`) that are obeyed, each searched for in the whole answer."""

    kind: Literal["patterns"]
    forbidden: list[str] = Field(default_factory=list)
    """Must not be found."""
    required: list[str] = Field(default_factory=list)
    """Must be found."""

    @field_validator("forbidden", "required")
    @classmethod
    def _compile(cls, patterns: list[str]) -> list[str]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}; escape or mend it") from None
        return patterns

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if not self.forbidden and not self.required:
            raise ValueError("neither forbidden nor required patterns; give one at least")
        return self


class FormatRule(_Rule):
    """1 where the answer has the format, else 0."""

    kind: Literal["format"]
    format: Literal["json", "sentence", "plain"]
    """json: parses as one JSON value, nothing around it. sentence: ends with . ! ? … or with a quotation or bracket
    closed after one (an answer cut at the token limit does not). plain: no Markdown: headings, lists, tables, emphasis,
    code."""


class ScriptRule(_Rule):
    """The share of the answer's letters that are of the script; 1 without letters."""

    kind: Literal["script"]
    script: Script
    """Of the answer's language. It does not tell languages of one script apart."""


class LettersRule(_Rule):
    """The share of the answer's characters, spaces apart, that are letters, over `least`; 1 from there on."""

    kind: Literal["letters"]
    least: float = Field(default=0.5, gt=0, le=1)
    """Prose has nine tenths or more, code about half, counting without end ("1. 2. 3. …") none."""


class RepetitionRule(_Rule):
    """Distinct runs of `words` words over all such runs; 1 where the answer is shorter than one."""

    kind: Literal["repetition"]
    words: int = Field(default=3, ge=1, le=8)
    """Length of the runs."""


class RefusalRule(_Rule):
    """0 where the answer has refusal boilerplate ("as an AI language model", "I'm sorry, but I can't"), else 1."""

    kind: Literal["refusal"]


class EchoRule(_Rule):
    """1 less the share of the answer's runs of `words` words that stand in what it was asked, or was said before."""

    kind: Literal["echo"]
    words: int = Field(default=5, ge=2, le=12)
    """Length of the runs: long enough that taking up the question's words is no echo."""


Rule = Annotated[
    LengthRule
    | PhrasesRule
    | PatternsRule
    | FormatRule
    | ScriptRule
    | LettersRule
    | RepetitionRule
    | RefusalRule
    | EchoRule,
    Field(discriminator="kind"),
]


class Constitution(Section):
    """What `rules.yaml` holds."""

    rules: list[Rule] = Field(default_factory=list, max_length=MOST_RULES)
    """In the order in which they are shown."""

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Self:
        names = [rule.name for rule in self.rules]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two rules named {', '.join(twice)}; rename one")
        return self


def rules_file(settings: Settings) -> Path:
    """`trainer.rules_file`, found beside foldback.yaml unless it is absolute."""
    return settings_file().parent / settings.trainer.rules_file


def load_rules(settings: Settings) -> Constitution:
    """The rules in force: none where the file of the default name is absent.

    Raises:
        SettingsError: a file that the settings name is absent, or its content is refused; says which rule and field.
    """
    path = rules_file(settings)
    if not path.is_file():
        if "rules_file" in settings.trainer.model_fields_set:
            raise SettingsError(f"trainer.rules_file={settings.trainer.rules_file}: no file {path}; write it")
        return Constitution()
    return read_rules(path)


def read_rules(path: Path) -> Constitution:
    """Raises SettingsError, as `load_rules` does."""
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: no YAML: {error}") from None
    try:
        return Constitution.model_validate({} if content is None else content)
    except ValidationError as error:
        raise SettingsError(_explain(error, content, path)) from None


def _explain(error: ValidationError, content: Any, path: Path) -> str:
    lines = [f"rules refused (from {path}):"]
    for problem in error.errors():
        where = _where(problem["loc"], content)
        if problem["type"] == "extra_forbidden":
            lines.append(f"  {where}: no such field; remove it or check its spelling")
        elif problem["type"] in ("missing", "union_tag_not_found"):
            lines.append(f"  {where}: {problem['msg']}")
        else:
            lines.append(f"  {where}={problem['input']!r}: {problem['msg']}")
    return "\n".join(lines)


def _where(location: tuple[int | str, ...], content: Any) -> str:
    """`rule 2 (no_echo), words` of `("rules", 1, "echo", "words")`, whose third part is the union's tag."""
    if len(location) < 2 or location[0] != "rules":
        return ".".join(map(str, location)) or "the file"
    index = int(location[1])
    rule = content["rules"][index]
    name = rule.get("name") if isinstance(rule, dict) else None
    field = ".".join(map(str, location[3:]))
    return f"rule {index + 1} ({name or 'unnamed'})" + (f", {field}" if field else "")
