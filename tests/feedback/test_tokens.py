"""Nobody rates what they were not served: every way to a token that proves nothing, each with its own reason."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.tokens import (
    BadSignature,
    Expired,
    Foreign,
    Malformed,
    TokenError,
    TokenSigner,
    UnknownKey,
    load_or_create_keys,
)
from tests.feedback.events import claims_of, make_response

KEYS = {"k1": b"1" * 32, "k2": b"2" * 32}
CLAIMS = claims_of(make_response("r1", serve_time=1000.0))
SIGNER = TokenSigner(KEYS, "k2", lifetime_s=100, tolerance_s=60)
TOKEN = SIGNER.sign(CLAIMS)


def test_round_trip_until_lifetime_and_tolerance_are_over() -> None:
    assert SIGNER.verify(TOKEN, "acme", now=1000.0) == CLAIMS
    assert SIGNER.verify(TOKEN, "acme", now=1159.9) == CLAIMS
    with pytest.raises(Expired):
        SIGNER.verify(TOKEN, "acme", now=1160.1)


def test_a_clock_that_is_behind_the_signers_accepts() -> None:
    assert SIGNER.verify(TOKEN, "acme", now=0.0) == CLAIMS


def test_foreign() -> None:
    with pytest.raises(Foreign):
        SIGNER.verify(TOKEN, "other", now=1000.0)


def test_rotation_keeps_old_tokens_until_their_key_goes() -> None:
    old = TokenSigner(KEYS, "k1", lifetime_s=100).sign(CLAIMS)
    assert SIGNER.verify(old, "acme", now=1000.0) == CLAIMS
    with pytest.raises(UnknownKey):
        TokenSigner({"k2": KEYS["k2"]}, "k2", lifetime_s=100).verify(old, "acme", now=1000.0)


def test_claims_of_another_token_do_not_fit_its_signature() -> None:
    other = SIGNER.sign(claims_of(make_response("r2", serve_time=1000.0)))
    key_id, payload, _ = TOKEN.split(".")
    with pytest.raises(BadSignature):
        SIGNER.verify(f"{key_id}.{payload}.{other.split('.')[2]}", "acme", now=1000.0)


@pytest.mark.parametrize("token", ["", "k2", "a.b", "a.b.c.d", "k2.\u00e9.x", "x" * 5000, TOKEN + "." + TOKEN])
def test_malformed(token: str) -> None:
    with pytest.raises(Malformed):
        SIGNER.verify(token, "acme", now=1000.0)


@given(st.integers(0, len(TOKEN) - 1), st.characters(codec="ascii"))
def test_no_changed_character_goes_unnoticed(place: int, character: str) -> None:
    changed = TOKEN[:place] + character + TOKEN[place + 1 :]
    if changed != TOKEN:
        with pytest.raises(TokenError):
            SIGNER.verify(changed, "acme", now=1000.0)


@given(st.text())
def test_any_text_is_refused_cleanly(token: str) -> None:
    with pytest.raises(TokenError):
        SIGNER.verify(token, "acme", now=1000.0)


def test_key_file_is_private_and_shared_between_replicas(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "tokens.json"
    first = load_or_create_keys(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_or_create_keys(path) == first
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("text", ["", "[]", '{"current": "a", "keys": {"a": "!"}}', '{"keys": {}}'])
def test_a_spoilt_key_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tokens.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"tokens\.json"):
        load_or_create_keys(path)
