"""Which conversations only judge: one answer for rollouts, the reward model and the gate."""

import hashlib
from collections.abc import Sequence


def place(messages: Sequence[tuple[str, str]], conversation_id: str) -> float:
    """A point in [0, 1) fixed by a conversation's opening user message; by its id where it has none.

    Every turn of a conversation, and every conversation that opens with the same words, has the same place, today and
    after a restart. `messages`: (role, content).
    """
    opening = next((content for role, content in messages if role == "user"), conversation_id)
    digest = hashlib.sha256(opening.encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
