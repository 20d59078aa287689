"""Names that never repeat: random UUIDs, cheap enough for several a call."""

import os

_POOL_BYTES = 16 * 256
_VARIANT = {digit: "89ab"[int(digit, 16) % 4] for digit in "0123456789abcdef"}


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
    digits = _pool.take().hex()
    # RFC 9562, 5.4: version 4 in the 13th digit, variant 10 in the top bits of the 17th.
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:]}"
