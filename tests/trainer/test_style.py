"""Figures of style against what a reader counts."""

import re
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from trainer.reward.style import SIZE, style, style_table

ANSWERS = (
    "Don't panic! Call the office, then wait.\nIt takes 3 days; 12 at most.",
    "Consequently, one would recommend a considerable investigation.",
    "naïve café – “déjà vu”… 日本 🍵?!",
)


@pytest.fixture(scope="module")
def tokenizer(real_model: Path) -> PreTrainedTokenizerBase:
    found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(real_model)
    return found


@pytest.mark.parametrize("text", ANSWERS[:2])
def test_sums_over_tokens_are_what_a_reader_counts(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    letters, words, ends, other, breaks, digits, capitals, apostrophes = (
        style_table(tokenizer, len(tokenizer))[ids].sum(dim=0).tolist()
    )
    assert letters == len(re.findall(r"[a-z]", text, re.IGNORECASE))
    assert words == len(re.findall(r" [a-z]", text, re.IGNORECASE))
    assert ends == len(re.findall(r"[.!?]", text))
    assert other == len(re.findall(r"[,;']", text))
    assert breaks == text.count("\n")
    assert digits == len(re.findall(r"\d", text)), "its tokenizer takes digits one by one"
    assert capitals == len(re.findall(r"[A-Z]", text))
    assert apostrophes == text.count("'")


def test_what_marks_a_turn_has_no_style(tokenizer: PreTrainedTokenizerBase) -> None:
    padded = len(tokenizer) + 5
    table_VS = style_table(tokenizer, padded)
    assert table_VS.shape == (padded, SIZE - 2), "of a model with more rows than words"
    assert not table_VS[tokenizer.all_special_ids].any()
    assert not table_VS[len(tokenizer) :].any()


@pytest.mark.parametrize("text", [*ANSWERS, "?", "Hm"])
def test_figures_are_finite_and_comparable(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    sums_1S = style_table(tokenizer, len(tokenizer))[ids].sum(dim=0, keepdim=True)
    once_F = style(sums_1S, torch.tensor([[len(ids)]]))[0]
    twice_F = style(2 * sums_1S, torch.tensor([[2 * len(ids)]]))[0]
    assert once_F.shape == (SIZE,)
    assert once_F.isfinite().all()
    torch.testing.assert_close(once_F[:-2], twice_F[:-2], msg="shares, whatever the length")


def test_long_words_and_long_sentences_show(tokenizer: PreTrainedTokenizerBase) -> None:
    def written(text: str) -> list[float]:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        sums_1S = style_table(tokenizer, len(tokenizer))[ids].sum(dim=0, keepdim=True)
        found: list[float] = style(sums_1S, torch.tensor([[len(ids)]]))[0, -2:].tolist()
        return found

    assert written(" We go. You do.") == [9 / 4, 2.0]
    long = written(" Notwithstanding considerable precipitation, attendance was satisfactory.")
    assert long == pytest.approx([65 / 6, 6.0])
