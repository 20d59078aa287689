"""Ports for servers that start later than they are chosen."""

import random
import socket

SAFE = range(20_000, 32_768)
"""Below those that Linux (32768 and up), macOS and Windows (49152 and up) give to connections and to whoever asks for
any: one of these could be somebody else's by the time that its server starts."""

_TRIES = 100


class PortPicker:
    """Free ports, all different: each stays bound until the block ends."""

    def __enter__(self) -> "PortPicker":
        self._sockets: list[socket.socket] = []
        return self

    def __exit__(self, *_: object) -> None:
        for held in self._sockets:
            held.close()

    def pick(self, host: str = "127.0.0.1") -> int:
        """Raises OSError: no port of `host` can be had."""
        failure = OSError()
        for port in random.sample(SAFE, _TRIES):
            held = socket.socket()
            self._sockets.append(held)
            try:
                held.bind((host, port))
            except OSError as error:
                failure = error
            else:
                return port
        raise failure


def free_port() -> int:
    """One on loopback."""
    with PortPicker() as picker:
        return picker.pick()
