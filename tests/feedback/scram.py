"""The server's side of SCRAM (RFC 5802; SHA-256: RFC 7677), as Kafka brokers have it: for tests alone."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

ITERATIONS = 4096
"""Kafka's own least."""
HASHES = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}


class AuthenticationFailed(Exception):
    """Not the user, or not the password, or not this protocol."""


@dataclass(frozen=True, slots=True)
class Secret:
    """What a server keeps in a password's place (RFC 5802, section 3): enough to check a proof, not to make one."""

    salt: bytes
    stored_key: bytes
    server_key: bytes

    @classmethod
    def of(cls, password: str, hash_name: str, salt: bytes) -> "Secret":
        salted = hashlib.pbkdf2_hmac(hash_name, password.encode(), salt, ITERATIONS)
        client_key = hmac.digest(salted, b"Client Key", hash_name)
        return cls(salt, hashlib.new(hash_name, client_key).digest(), hmac.digest(salted, b"Server Key", hash_name))


class ScramServer:
    """One exchange: `first`, then `final`, with what the client sends; each returns the answer."""

    def __init__(self, mechanism: str, secrets_of: Mapping[str, Secret], nonce: str | None = None) -> None:
        """`nonce`: the server's part; made up unless given."""
        self._hash = HASHES[mechanism]
        self._secrets = secrets_of
        self._nonce = nonce or secrets.token_urlsafe(18)

    def first(self, message: bytes) -> bytes:
        """Raises AuthenticationFailed."""
        header, _, bare = message.decode().partition(",,")
        if header != "n":  # neither channel binding nor another identity to act for
            raise AuthenticationFailed(f"unexpected GS2 header {header!r}")
        said = _attributes(bare)
        name = said["n"].replace("=2C", ",").replace("=3D", "=")
        if name not in self._secrets:
            raise AuthenticationFailed("unknown user")
        self._secret = self._secrets[name]
        self._whole_nonce = said["r"] + self._nonce
        salt = base64.b64encode(self._secret.salt).decode()
        answer = f"r={self._whole_nonce},s={salt},i={ITERATIONS}"
        self._exchanged = f"{bare},{answer}"
        return answer.encode()

    def final(self, message: bytes) -> bytes:
        """Raises AuthenticationFailed."""
        without_proof, _, proof = message.decode().rpartition(",p=")
        said = _attributes(without_proof)
        if base64.b64decode(said["c"]) != b"n,," or said["r"] != self._whole_nonce:
            raise AuthenticationFailed("another exchange's message")
        signed = f"{self._exchanged},{without_proof}".encode()
        signature = hmac.digest(self._secret.stored_key, signed, self._hash)
        client_key = bytes(a ^ b for a, b in zip(base64.b64decode(proof), signature, strict=True))
        if not hmac.compare_digest(hashlib.new(self._hash, client_key).digest(), self._secret.stored_key):
            raise AuthenticationFailed("the proof does not hold")
        return b"v=" + base64.b64encode(hmac.digest(self._secret.server_key, signed, self._hash))


def _attributes(message: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in message.split(","))
