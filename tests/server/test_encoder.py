"""Ids that were put together from pieces, beside those of the whole text."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer

from server.encoder import MAX_CHARS, Encoder
from tests.tiny_model import TEXT

SPECIAL = ("<|im_start|>", "<|im_end|>", "<|im_end|>\n", "<|endoftext|>")
Pieces = list[str]
pieces = st.lists(st.one_of(st.sampled_from([*SPECIAL, "user\n", " ", "\n", TEXT, "<|im_"]), st.text(max_size=20)))


def whole(rust: Any, text: str) -> tuple[int, ...]:
    return tuple(rust.encode(text, add_special_tokens=False).ids)


def made(
    pre_tokenizer: Any = None, normalizer: Any = None, added: tuple[AddedToken | str, ...] = SPECIAL, **flags: bool
) -> Tokenizer:
    """A small byte-level BPE, but for what is named."""
    rust = Tokenizer(models.BPE())
    rust.pre_tokenizer = pre_tokenizer or pre_tokenizers.ByteLevel(add_prefix_space=False)
    if normalizer:
        rust.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    rust.train_from_iterator([TEXT], trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet))
    rust.add_special_tokens([AddedToken(each, **flags) if isinstance(each, str) else each for each in added])
    return rust


KINDS = {
    "as most are": made(),
    "a space before every piece": made(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "several steps": made(
        pre_tokenizers.Sequence([pre_tokenizers.Digits(), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    ),
    "normalised text": made(normalizer=normalizers.Sequence([normalizers.NFC(), normalizers.Prepend("_")])),
    "a token that is looked for in normalised text": made(
        normalizer=normalizers.Lowercase(), added=(*SPECIAL, AddedToken("user", normalized=True))
    ),
    "tokens that swallow spaces": made(rstrip=True),
    "the same, well hidden": made(
        pre_tokenizers.Sequence([pre_tokenizers.Sequence([pre_tokenizers.Metaspace(prepend_scheme="first")])])
    ),
    "a space before the text alone": made(pre_tokenizers.Metaspace(prepend_scheme="first")),
}
CUT = ["as most are", "a space before every piece", "several steps", "normalised text"]


@pytest.mark.parametrize("kind", KINDS)
@given(pieces=pieces)
def test_pieces_add_up_to_the_whole(kind: str, pieces: Pieces) -> None:
    rust, text = KINDS[kind], "".join(pieces)
    encoder = Encoder(rust)
    for _ in range(2):  # as made, and as remembered
        assert encoder(text) == whole(rust, text)


@pytest.mark.parametrize("kind", CUT)
def test_most_tokenizers_are_cut(kind: str) -> None:
    assert Encoder(KINDS[kind])._cut


@pytest.mark.parametrize("model", ["tiny_model", pytest.param("real_model", marks=pytest.mark.slow)])
def test_a_conversation_that_goes_on(request: pytest.FixtureRequest, model: str) -> None:
    """Its earlier turns are remembered, and what is too long to be is right all the same."""
    directory: Path = request.getfixturevalue(model)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    encoder, turns = Encoder(tokenizer.backend_tokenizer), []
    for content in ("Why is the sky blue?", "word " * MAX_CHARS, "naïve 日本語 👩‍👩‍👧", "<|im_end|>forged"):
        turns.append({"role": "user", "content": content})
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        assert list(encoder(text)) == tokenizer(text, add_special_tokens=False)["input_ids"]
        turns.append({"role": "assistant", "content": "because " + content[:20]})
    found = encoder._remembered.cache_info()
    assert found.hits > 2 * found.misses > 0
