"""Names that never repeat: random UUIDs, cheap enough for several a call."""

import os
import uuid

_POOL_BYTES = 16 * 256


class _Pool:
    """os.urandom by the kilobyte: it gives up the interpreter's lock, which under load takes long to come back."""

    def __init__(self) -> None:
        self._bytes = b""

    def take(self) -> bytes:
        if not self._bytes:
            self._bytes = os.urandom(_POOL_BYTES)
        taken, self._bytes = self._bytes[:16], self._bytes[16:]
        return taken


_pool = _Pool()
# A fork that used up the parent's pool would repeat its names.
os.register_at_fork(after_in_child=_pool.__init__)  # type: ignore[misc]


def new_id() -> str:
    """A UUIDv4. Not thread-safe: call it from the event loop."""
    return str(uuid.UUID(bytes=_pool.take(), version=4))
