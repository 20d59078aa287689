"""Which version answers which conversation."""

import hashlib
from typing import Literal

from server.engines.base import Engine
from server.status import precondition

Slot = Literal["active", "canary"]


class Traffic:
    """What can be served here now. Only the swap controller changes it."""

    def __init__(self, engine: Engine, canary_share: float) -> None:
        self._engine = engine
        self._share = canary_share
        self.canary = ""
        """The version that fills the canary slot; beside the current one in swap mode adapter, else maybe itself."""

    def choose(self, conversation_id: str, asked: str = "") -> tuple[str, Slot]:
        """The version for a request of this conversation, and the slot that it fills.

        Args:
            asked: the version that the request names, if it names one.

        Raises:
            Refused: FAILED_PRECONDITION, it is not served here.
        """
        version = self.named(asked) if asked else self._drawn(conversation_id)
        return version, "canary" if version == self.canary else "active"

    def named(self, version: str) -> str:
        """`version` if it is served here; without a name, the current one. Raises Refused (FAILED_PRECONDITION)."""
        current = self._engine.version
        served = [current, self.canary] if self._beside and self.canary else [current]
        if version and version not in served:
            raise precondition(
                f"policy_version={version!r}: this server serves {' and '.join(served)};"
                " leave it empty for the active version",
                "POLICY_NOT_SERVED",
                serving_version=current,
            )
        return version or current

    @property
    def _beside(self) -> bool:
        return self._engine.swap_mode == "adapter"

    def _drawn(self, conversation_id: str) -> str:
        """A conversation stays with one version; another canary is tried on other conversations."""
        if not (self._beside and self.canary):
            return self._engine.version
        digest = hashlib.sha256(f"{self.canary}/{conversation_id}".encode()).digest()
        return self.canary if int.from_bytes(digest[:8]) < self._share * 2**64 else self._engine.version
