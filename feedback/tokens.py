"""Feedback tokens: an HMAC over what was served, so that any replica can check it without a look-up.

A token reads `<key id>.<claims>.<mac>`: claims are a serialised TokenClaims, the mac is HMAC-SHA256 (RFC 2104) over
everything before it; both in unpadded base64url. Old keys stay in the file until the last token they signed expires.
"""

import base64
import binascii
import hmac
import json
import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from google.protobuf.message import DecodeError

from foldback.v1 import events_pb2

MAX_TOKEN_CHARS = 4096
_PURPOSE = b"foldback.feedback.token:"
"""Precedes what is signed: no other use of the same key gives a token."""


class TokenError(ValueError):
    """A token that proves nothing; `reason` is a stable word for clients."""

    reason = "TOKEN_INVALID"


class Malformed(TokenError):
    reason = "TOKEN_MALFORMED"


class UnknownKey(TokenError):
    reason = "TOKEN_UNKNOWN_KEY"


class BadSignature(TokenError):
    reason = "TOKEN_BAD_SIGNATURE"


class Foreign(TokenError):
    """Genuine, but of another tenant."""

    reason = "TOKEN_FOREIGN"


class Expired(TokenError):
    reason = "TOKEN_EXPIRED"


class SigningKeys(NamedTuple):
    keys: dict[str, bytes]
    current: str


class TokenSigner:
    """Signs with the current key, verifies with any of `keys`."""

    def __init__(self, keys: Mapping[str, bytes], current: str, lifetime_s: float, tolerance_s: float = 60.0) -> None:
        if current not in keys:
            raise ValueError(f"current={current!r}: not among the keys {sorted(keys)}; add it or name another")
        self._keys = {name: hmac.new(key, _PURPOSE, "sha256") for name, key in keys.items()}
        self._current = current
        self._lifetime_s = lifetime_s + tolerance_s

    def sign(self, claims: events_pb2.TokenClaims) -> str:
        signed = f"{self._current}.{_encode(claims.SerializeToString(deterministic=True))}"
        return f"{signed}.{_mac(self._keys[self._current], signed)}"

    def verify(self, token: str, tenant: str, now: float | None = None) -> events_pb2.TokenClaims:
        """The claims of a token that this service signed for `tenant` and that has not expired.

        `now` is in Unix seconds. Raises Malformed, UnknownKey, BadSignature, Foreign, Expired.
        """
        parts = token.split(".", 3) if len(token) <= MAX_TOKEN_CHARS else []
        if len(parts) != 3 or not token.isascii():
            raise Malformed("the token is not one of ours: pass it back exactly as it was received")
        key_id, payload, mac = parts
        if key_id not in self._keys:
            raise UnknownKey("the token's key is unknown here: it was retired, or another service signed it")
        if not hmac.compare_digest(_mac(self._keys[key_id], f"{key_id}.{payload}"), mac):
            raise BadSignature("the token's signature does not hold: pass it back exactly as it was received")
        claims = _decode_claims(payload)
        if claims.tenant != tenant:
            raise Foreign("the token belongs to another tenant")
        issued = claims.issue_time
        age_s = (time.time() if now is None else now) - (issued.seconds + issued.nanos / 1e9)
        if age_s > self._lifetime_s:
            raise Expired(f"the token expired {age_s - self._lifetime_s:.0f} s ago")
        return claims


def load_or_create_keys(path: Path) -> SigningKeys:
    """The keys in `path`, made with mode 0600 at first use; replicas that start together agree on one.

    The file is JSON: `{"current": id, "keys": {id: base64}}`. Raises ValueError when it cannot be read as such.
    """
    if not path.exists():
        _create_keys(path)
    try:
        document = json.loads(path.read_text())
        keys = {name: base64.b64decode(key, validate=True) for name, key in document["keys"].items()}
        current = str(document["current"])
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{path}: not a token key file ({error}); restore it, or remove it to make new keys") from None
    if weak := [name for name, key in keys.items() if len(key) < 32 or "." in name]:
        raise ValueError(f"{path}: keys {weak} need at least 32 bytes and no dot in the id")
    return SigningKeys(keys, current)


def _create_keys(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    key_id = secrets.token_hex(4)
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump({"current": key_id, "keys": {key_id: key}}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)
    except FileExistsError:
        pass  # another replica was first: its keys hold
    finally:
        draft.unlink()


def _mac(key: hmac.HMAC, signed: str) -> str:
    """`key` has begun with _PURPOSE: its blocks are hashed once, not for each token."""
    mac = key.copy()
    mac.update(signed.encode())
    return _encode(mac.digest())


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode_claims(payload: str) -> events_pb2.TokenClaims:
    try:
        data = base64.b64decode(payload + "=" * (-len(payload) % 4), altchars=b"-_", validate=True)
        return events_pb2.TokenClaims.FromString(data)
    except (binascii.Error, DecodeError):
        raise Malformed("the token's claims cannot be read") from None
