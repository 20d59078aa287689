"""SASL as Kafka speaks it (KIP-43, KIP-152), before a broker that does not: who may pass the proxy."""

import secrets
import struct
from collections.abc import Callable, Mapping

from kafka.errors import SaslAuthenticationFailedError, UnsupportedSaslMechanismError
from kafka.protocol.metadata import ApiVersionsRequest
from kafka.protocol.sasl import (
    SaslAuthenticateRequest,
    SaslAuthenticateResponse,
    SaslHandshakeRequest,
    SaslHandshakeResponse,
)

from tests.feedback.proxied_broker import Side
from tests.feedback.scram import HASHES, AuthenticationFailed, ScramServer, Secret

Step = Callable[[bytes], bytes]


class SaslGate:
    """Admits who knows a password. One mechanism, as a listener is mostly set up."""

    def __init__(self, mechanism: str, passwords: Mapping[str, str]) -> None:
        self.mechanism = mechanism
        self.passwords = dict(passwords)
        self.refused = 0
        """Connections that were turned away."""

    async def __call__(self, client: Side, broker: Side) -> bool:
        """Versions, the mechanism, its exchange; all else ends the connection."""
        steps: list[Step] = []
        while True:
            frame = await _read_frame(client)
            key, version, correlation = struct.unpack_from(">hhi", frame)
            if key == ApiVersionsRequest.API_KEY:
                _write_frame(broker, frame)
                _write_frame(client, await _read_frame(broker))
            elif key == SaslHandshakeRequest.API_KEY and not steps:
                wanted = SaslHandshakeRequest[version].decode(frame, header=True).mechanism
                code = 0 if wanted == self.mechanism else UnsupportedSaslMechanismError.errno
                offer = SaslHandshakeResponse[version](error_code=code, mechanisms=[self.mechanism])
                _answer(client, offer, correlation)
                steps = self._steps()
                if code:
                    return await self._turn_away(client)
            elif key == SaslAuthenticateRequest.API_KEY and steps:
                said = SaslAuthenticateRequest[version].decode(frame, header=True).auth_bytes
                answer = self._authenticate(steps.pop(0), said)
                _answer(client, SaslAuthenticateResponse[version](**answer), correlation)
                if answer["error_code"]:
                    return await self._turn_away(client)
                if not steps:
                    return True
            else:
                return False
            await client.writer.drain()

    async def _turn_away(self, client: Side) -> bool:
        """Kafka keeps the connection a while after the answer (connection.failed.authentication.delay.ms), as a client
        may not read what comes together with the end."""
        self.refused += 1
        await client.reader.read()
        return False

    def _steps(self) -> list[Step]:
        if self.mechanism == "PLAIN":
            return [self._plain]
        kept = {
            name: Secret.of(password, HASHES[self.mechanism], secrets.token_bytes(16))
            for name, password in self.passwords.items()
        }
        server = ScramServer(self.mechanism, kept)
        return [server.first, server.final]

    def _plain(self, message: bytes) -> bytes:
        """RFC 4616."""
        identity, name, password = message.decode().split("\0")
        if identity not in ("", name) or self.passwords.get(name) != password:
            raise AuthenticationFailed("no such user and password")
        return b""

    def _authenticate(self, step: Step, said: bytes) -> dict[str, object]:
        """In Kafka's words: which of name and password was wrong, they do not tell."""
        try:
            return {"error_code": 0, "error_message": None, "auth_bytes": step(said)}
        except AuthenticationFailed:
            why = "Authentication failed during authentication due to invalid credentials with SASL mechanism "
            code = SaslAuthenticationFailedError.errno
            return {"error_code": code, "error_message": why + self.mechanism, "auth_bytes": b""}


async def _read_frame(side: Side) -> bytes:
    (size,) = struct.unpack(">i", await side.reader.readexactly(4))
    return await side.reader.readexactly(size)


def _write_frame(side: Side, frame: bytes) -> None:
    side.writer.write(struct.pack(">i", len(frame)) + frame)


def _answer(client: Side, response: SaslHandshakeResponse | SaslAuthenticateResponse, correlation: int) -> None:
    response.with_header(correlation_id=correlation)
    client.writer.write(response.encode(framed=True, header=True))
