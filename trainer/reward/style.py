"""How an answer is written, whatever it says: figures that readability formulas and stylometry rest on.

People's judgements follow style (Li et al. 2024, "Does style matter?", LMArena's style control), and some hundred of
them are too few to find it in thousands of features of single words.
"""

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

SIZE = 10
_LETTERS, _WORDS, _SENTENCES = range(3)
_ENDS = frozenset(".!?")


def style_table(tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> Tensor:
    """What every token adds to an answer's style, [V, SIZE - 2]; special tokens nothing.

    Letters; words, which begin after a blank; ends of sentences; other punctuation; line breaks; and whether it has a
    digit, a capital, an apostrophe.
    """
    special = set(tokenizer.all_special_ids)
    written = [token for token in range(min(len(tokenizer), vocabulary)) if token not in special]
    table_VS = torch.zeros(vocabulary, SIZE - 2)
    texts = tokenizer.batch_decode([[token] for token in written])
    table_VS[written] = torch.tensor([_style(text) for text in texts], dtype=table_VS.dtype)
    return table_VS


def _style(text: str) -> list[float]:
    letters = sum(map(str.isalpha, text))
    return [
        letters,
        bool(letters) and text[0].isspace(),
        sum(character in _ENDS for character in text),
        sum(not (c.isalnum() or c.isspace() or c in _ENDS) for c in text),
        text.count("\n"),
        any(map(str.isdigit, text)),
        any(map(str.isupper, text)),
        any(apostrophe in text for apostrophe in "'’"),
    ]


def style(sums_BS: Tensor, length_B1: Tensor) -> Tensor:
    """[B, SIZE], from the sums of `style_table`'s rows over answers: each of them a token, letters a word, and words
    a sentence (the two figures of Coleman and Liau 1975)."""
    words_B1 = sums_BS[:, _WORDS : _WORDS + 1].clamp(min=1)  # the first word follows no blank
    letters_B1 = sums_BS[:, _LETTERS : _LETTERS + 1]
    sentences_B1 = sums_BS[:, _SENTENCES : _SENTENCES + 1].clamp(min=1)
    return torch.cat([sums_BS / length_B1, letters_B1 / words_B1, words_B1 / sentences_B1], dim=1)
