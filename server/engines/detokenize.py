"""Turns tokens into text as they come: whole characters only, and nothing that may still become a stop string."""

from collections.abc import Callable, Sequence

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class TextStream:
    """The text of one candidate.

    `decode` maps token ids to text without special tokens. A window of the last few tokens is decoded at a time, so
    the cost does not grow with the length; its first part stays in the window because what a token looks like can
    depend on the token before it (SentencePiece's leading space).
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str]) -> None:
        self._decode = decode
        self._stop = stop
        self._window: list[int] = []
        self._known = 0
        self._held = ""
        self.stopped = False
        """A stop string was found; the text ends before it."""

    def push(self, token_ids: Sequence[int]) -> str:
        """The text that became certain with these tokens."""
        self._window.extend(token_ids)
        known = self._decode(self._window[: self._known])
        text = self._decode(self._window)
        if len(text) <= len(known) or text.endswith(REPLACEMENT):
            return ""
        del self._window[: self._known]
        self._known = len(self._window)
        return self._release(text[len(known) :])

    def finish(self) -> str:
        """What is left when no more tokens come: a broken character or half a stop string included."""
        if self.stopped:
            return ""
        known = self._decode(self._window[: self._known])
        rest = self._release(self._decode(self._window)[len(known) :])
        self._window, self._known = [], 0
        held, self._held = self._held, ""
        return rest if self.stopped else rest + held

    def _release(self, text: str) -> str:
        pending = self._held + text
        found = [at for at in (pending.find(stop) for stop in self._stop) if at >= 0]
        if found:
            self.stopped, self._held = True, ""
            return pending[: min(found)]
        keep = max((_overlap(pending, stop) for stop in self._stop), default=0)
        certain = len(pending) - keep
        self._held = pending[certain:]
        return pending[:certain]


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` begin `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
