"""Text to token ids, where most of a prompt has been seen before: the system's message, a conversation's earlier turns.

A tokenizer first cuts its text at special tokens, and then makes tokens of each piece by itself. Chat templates put
special tokens around every message, so what was made of a piece can be remembered.
"""

import json
import re
from functools import lru_cache
from typing import Any

MAX_PIECES, MAX_CHARS = 1024, 2000
"""How many pieces are remembered, and how long they may be: some 20 MB at worst."""
ALIKE_ANYWHERE = frozenset({"ByteLevel", "Digits", "Split", "Sequence"})
"""Pre-tokenizers to which it is all one where in the text a piece stands."""


class Encoder:
    """Gives the ids that the Rust tokenizer gives for the whole text, no special tokens added."""

    def __init__(self, rust: Any) -> None:
        """`rust`: a `tokenizers.Tokenizer`."""
        self._rust = rust
        cuts = _cuts(rust)
        self._ids_of_cut = {text: (rust.token_to_id(text),) for text in cuts}
        # The longest first: where one begins like another, the tokenizer takes the longer.
        alternatives = "|".join(map(re.escape, sorted(cuts, key=len, reverse=True)))
        self._cut = re.compile(f"({alternatives})") if cuts else None
        self._remembered = lru_cache(MAX_PIECES)(self._ids)

    def __call__(self, text: str) -> tuple[int, ...]:
        if self._cut is None:
            return self._ids(text)
        ids: tuple[int, ...] = ()
        for piece in self._cut.split(text):
            if piece:
                ids += self._ids_of_cut.get(piece) or self._ids_of_piece(piece)
        return ids

    def _ids_of_piece(self, piece: str) -> tuple[int, ...]:
        return self._remembered(piece) if len(piece) <= MAX_CHARS else self._ids(piece)

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self._rust.encode_batch_fast([text], add_special_tokens=False)[0].ids)


def _cuts(rust: Any) -> list[str]:
    """Special tokens at which the tokenizer cuts whatever stands around them; none where it minds that."""
    added = [token for token in rust.get_added_tokens_decoder().values() if not token.normalized]
    minds_neighbours = any(token.lstrip or token.rstrip or token.single_word for token in added)
    if (
        minds_neighbours
        or rust.encode_special_tokens
        or not _kinds(json.loads(rust.to_str())["pre_tokenizer"]) <= ALIKE_ANYWHERE
    ):
        return []
    return [token.content for token in added]


def _kinds(pre_tokenizer: Any) -> set[str]:
    """Of itself and all its parts."""
    if pre_tokenizer is None:
        return set()
    return {pre_tokenizer["type"]}.union(*map(_kinds, pre_tokenizer.get("pretokenizers", [])))
