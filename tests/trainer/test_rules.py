"""Every kind of rule against answers whose score follows from its definition, and what is made of the scores."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from transformers import AutoTokenizer

from settings import rules
from trainer.rules import Rules
from trainer.rules.scores import score
from trainer.tokens import Sample

_RULE: TypeAdapter[rules.Rule] = TypeAdapter(rules.Rule)


def rule(kind: str, **fields: object) -> rules.Rule:
    return _RULE.validate_python({"name": "r", "kind": kind, **fields})


EVERY_KIND = (
    rule("length", least=2, most=5),
    rule("phrases", banned=["buy now", "!"]),
    rule("patterns", forbidden=[r"\d"], required=["^[A-Z]"]),
    *(rule("format", format=name) for name in ("json", "sentence", "plain")),
    *(rule("script", script=name) for name in ("latin", "kana")),
    rule("letters"),
    rule("repetition", words=2),
    rule("refusal"),
    rule("echo", words=3),
)


@given(
    rule=st.sampled_from(EVERY_KIND),
    context=st.text(max_size=80),
    answer=st.one_of(
        st.text(max_size=80), st.sampled_from(["buy now", "buy now buy now 12", "{}", "## a", "I'm sorry"])
    ),
)
def test_scores_lie_between_0_and_1_for_any_text(rule: rules.Rule, context: str, answer: str) -> None:
    assert 0 <= score(rule, context, answer) <= 1


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("", 0.0),
        ("one", 0.5),
        ("one two", 1.0),
        ("a b c d e", 1.0),
        ("a b c d e f g h i j", 0.5),
        ("it's one-two", 1.0),
    ],
)
def test_length(answer: str, expected: float) -> None:
    assert score(rule("length", least=2, most=5), "", answer) == expected


def test_length_without_a_limit() -> None:
    assert score(rule("length", least=1), "", "word " * 500) == 1.0


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("A fair price.", 1.0),
        ("Buy  NOW, please.", 1 / 2),
        ("buy\nnow and buy now", 1 / 3),
        ("rebuy now", 1.0),
        ("buy nowhere", 1.0),
        ("Great 👍", 1 / 2),
        ("a👍b👍 buy now", 1 / 4),
    ],
)
def test_banned_phrases(answer: str, expected: float) -> None:
    assert score(rule("phrases", banned=["Buy now", "👍"]), "", answer) == expected


@pytest.mark.parametrize(("answer", "expected"), [("Hello", 1.0), ("hello", 0.5), ("Hello 7", 0.5), ("hello 7", 0.0)])
def test_patterns(answer: str, expected: float) -> None:
    assert score(rule("patterns", forbidden=[r"\d"], required=["^[A-Z]"]), "", answer) == expected


@pytest.mark.parametrize(
    ("name", "kept", "broken"),
    [
        ("json", ['{"a": 1}', "[]", ' "text" \n'], ["", "{a: 1}", 'Here: {"a": 1}', "```json\n{}\n```"]),
        (
            "sentence",
            ["Done.", "Is it?", "He said “no.”", "Wait…", "(Yes.)", "はい。"],
            ["", "Done", "a, b,", "Done. And"],
        ),
        (
            "plain",
            ["Two plus two.", "5 - 3 is 2", "a * b * c", "snake_case_name", "In 1984. Then"],
            ["# Title", "- one\n- two", "text\n1. one", "a **bold** word", "```\ncode\n```", "| a | b |", "use `x`"],
        ),
    ],
)
def test_formats(name: str, kept: list[str], broken: list[str]) -> None:
    asked = rule("format", format=name)
    assert [text for text in kept if score(asked, "", text) != 1.0] == []
    assert [text for text in broken if score(asked, "", text) != 0.0] == []


@pytest.mark.parametrize(
    ("script", "answer", "expected"),
    [
        ("latin", "Grüße, señor 42!", 1.0),
        ("latin", "да no", 0.5),
        ("latin", "12 + 30", 1.0),
        ("cyrillic", "Привет", 1.0),
        ("greek", "γειά", 1.0),
        ("arabic", "مرحبا", 1.0),
        ("hebrew", "שלום", 1.0),
        ("han", "你好", 1.0),
        ("kana", "日本の", 1.0),
        ("hangul", "안녕", 1.0),
        ("thai", "สวสด", 1.0),
        ("devanagari", "नमस", 1.0),
        ("han", "hello", 0.0),
    ],
)
def test_script_share(script: str, answer: str, expected: float) -> None:
    assert score(rule("script", script=script), "", answer) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("", 1.0),
        ("To boil an egg:\n1. Boil water.\n2. Wait.", 1.0),
        ("1. 1. 1. 2. 3. 4. 5.", 0.0),
        ("- - -", 0.0),
        ("a1b2c3", 1.0),
        ("a 1 2 3", 1 / 2),
        ("สวัสดี", 1.0),
        ("नमस्ते", 1.0),
    ],
)
def test_letters(answer: str, expected: float) -> None:
    assert score(rule("letters", least=0.5), "", answer) == expected


@pytest.mark.parametrize(
    ("answer", "expected"), [("", 1.0), ("one", 1.0), ("a b c", 1.0), ("a b A B a", 2 / 4), ("no no no no", 1 / 3)]
)
def test_repetition(answer: str, expected: float) -> None:
    assert score(rule("repetition", words=2), "", answer) == pytest.approx(expected)


@pytest.mark.parametrize(
    "answer",
    [
        "As an AI language model, I do not have opinions.",
        "I'm sorry, but I can't help with that.",
        "I’m sorry, I cannot do this.",
        "I cannot assist with that.",
        "I'm just an AI, so I have no taste.",
        "Sadly I am unable to\nfulfil this.",
    ],
)
def test_refusals_are_known(answer: str) -> None:
    assert score(rule("refusal"), "", answer) == 0.0


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry to hear that; try a warm bath.",
        "You can't help it: cats sleep all day.",
        "AI language models predict the next word.",
        "I can help with that.",
    ],
)
def test_answers_that_only_sound_like_refusals_are_not(answer: str) -> None:
    assert score(rule("refusal"), "", answer) == 1.0


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("Why is the sky blue", 0.0), ("Light is scattered.", 1.0), ("Blue", 1.0), ("the sky blue light", 1 / 2)],
)
def test_echo(answer: str, expected: float) -> None:
    assert score(rule("echo", words=3), "user: Why is the SKY blue?", answer) == pytest.approx(expected)


def constitution(*given: dict[str, object]) -> rules.Constitution:
    return rules.Constitution.model_validate({"rules": given})


def test_rewards_and_vetoes_of_real_tokens(tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    asked = constitution(
        {"name": "short", "kind": "length", "most": 2, "weight": 2.0, "veto": 0.6},
        {"name": "no_digits", "kind": "patterns", "forbidden": [r"\d"], "weight": 0.5},
    )
    answers = ["yes", "yes no yes no", "yes 1", "a b c"]
    samples = [
        Sample(tuple(tokenizer("why")["input_ids"]), (*tokenizer(answer)["input_ids"], tokenizer.eos_token_id))
        for answer in answers
    ]
    found = Rules(asked, tokenizer).judge(samples)
    assert found.scores_PQ.flatten().tolist() == pytest.approx([1, 1, 0.5, 1, 1, 0, 2 / 3, 1])
    assert found.rewards.tolist() == pytest.approx([0, -1, -0.5, -2 / 3])
    assert found.broken == {"short": 0.25}, "a rule without veto breaks nothing"
    assert found.means == pytest.approx({"short": (1 + 0.5 + 1 + 2 / 3) / 4, "no_digits": 0.75})


def test_without_rules_there_is_nothing_to_add(tiny_model: Path) -> None:
    found = Rules(rules.Constitution(), AutoTokenizer.from_pretrained(tiny_model)).judge([Sample((1,), (2,))] * 3)
    assert found.rewards.tolist() == [0, 0, 0]
    assert (found.broken, found.means) == ({}, {})


def test_json_is_what_the_json_module_reads() -> None:
    asked = rule("format", format="json")
    for value in ({"a": [1, None]}, "text", 3.5):
        assert score(asked, "", json.dumps(value)) == 1.0
