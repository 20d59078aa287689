"""Figures of style against what a reader counts."""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from trainer.reward.style import SIZE, style, style_table

ANSWERS = (
    "Don't panic! Call the office, then wait.\nIt takes 3 days; 12 at most.",
    "Consequently, one would recommend a considerable investigation.",
    "naïve café – “déjà vu”… 日本 🍵?!",
)
ROWS_MORE = 5
"""A model may have more rows than words."""


class Reader:
    """A tokenizer and its table."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.table_VS = style_table(tokenizer, len(tokenizer) + ROWS_MORE)

    def ids(self, text: str) -> list[int]:
        found: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    def sums(self, text: str) -> Tensor:
        return self.table_VS[self.ids(text)].sum(dim=0)

    def style(self, text: str, times: int = 1) -> Tensor:
        return style(times * self.sums(text)[None], torch.tensor([[times * len(self.ids(text))]]))[0]


@pytest.fixture(scope="module")
def reader(real_model: Path) -> Reader:
    return Reader(AutoTokenizer.from_pretrained(real_model))


@pytest.mark.parametrize("text", ANSWERS[:2])
def test_sums_over_tokens_are_what_a_reader_counts(reader: Reader, text: str) -> None:
    letters, words, ends, other, breaks, digits, capitals, apostrophes = reader.sums(text).tolist()
    assert letters == len(re.findall(r"[a-z]", text, re.IGNORECASE))
    assert words == len(re.findall(r" [a-z]", text, re.IGNORECASE))
    assert ends == len(re.findall(r"[.!?]", text))
    assert other == len(re.findall(r"[,;']", text))
    assert breaks == text.count("\n")
    assert digits == len(re.findall(r"\d", text)), "its tokenizer takes digits one by one"
    assert capitals == len(re.findall(r"[A-Z]", text))
    assert apostrophes == text.count("'")


def test_what_marks_a_turn_has_no_style(reader: Reader) -> None:
    assert reader.table_VS.shape == (len(reader.tokenizer) + ROWS_MORE, SIZE - 2)
    assert not reader.table_VS[reader.tokenizer.all_special_ids].any()
    assert not reader.table_VS[len(reader.tokenizer) :].any()


@pytest.mark.parametrize("text", [*ANSWERS, "?", "Hm"])
def test_figures_are_finite_and_comparable(reader: Reader, text: str) -> None:
    once_F, twice_F = reader.style(text), reader.style(text, times=2)
    assert once_F.shape == (SIZE,)
    assert once_F.isfinite().all()
    torch.testing.assert_close(once_F[:-2], twice_F[:-2], msg="shares, whatever the length")


def test_long_words_and_long_sentences_show(reader: Reader) -> None:
    assert reader.style(" We go. You do.")[-2:].tolist() == [9 / 4, 2.0]
    long = reader.style(" Notwithstanding considerable precipitation, attendance was satisfactory.")
    assert long[-2:].tolist() == pytest.approx([65 / 6, 6.0])
