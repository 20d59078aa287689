"""Text as it streams, against the text as a whole."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from server.engines.detokenize import TextStream


def decode(token_ids: Sequence[int]) -> str:
    """Byte-level: a token is a byte, so that characters are split over tokens."""
    return bytes(token_ids).decode(errors="replace")


def stream(data: bytes, sizes: list[int], stop: Sequence[str]) -> tuple[list[str], bool]:
    """The pieces that come out when `data` goes in, and whether a stop string ended them."""
    text, pieces, rest = TextStream(decode, stop), [], list(data)
    for size in [*sizes, len(data)]:
        pieces.append(text.push(rest[:size]))
        rest = rest[size:]
        if text.stopped or not rest:
            break
    return [*pieces, text.finish()], text.stopped


texts = st.text(st.sampled_from("abc é漢🙂"), max_size=30)
sizes = st.lists(st.integers(1, 4), max_size=60)


@given(texts, sizes)
def test_the_pieces_are_the_text_and_never_half_a_character(text: str, sizes: list[int]) -> None:
    pieces, _ = stream(text.encode(), sizes, ())
    assert "".join(pieces) == text
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


@given(texts, sizes, st.lists(st.text(st.sampled_from("abcé"), min_size=1, max_size=4), max_size=3))
def test_nothing_of_a_stop_string_comes_out(text: str, sizes: list[int], stop: list[str]) -> None:
    pieces, stopped = stream(text.encode(), sizes, stop)
    out = "".join(pieces)
    assert stopped == any(s in text for s in stop)
    assert text.startswith(out)
    assert not any(s in out for s in stop)
    if not stopped:
        assert out == text


def test_a_character_that_never_completes_comes_out_at_the_end() -> None:
    pieces, _ = stream("aé".encode()[:-1], [1, 1], ())
    assert "".join(pieces) == "a\N{REPLACEMENT CHARACTER}"
