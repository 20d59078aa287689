"""Ends vLLM's processes when the server dies without stopping them (kill -9, out of memory).

vLLM's core does not notice that its parent is gone: it would keep its memory, or its GPU, for ever.
"""

import subprocess

SCRIPT = 'read _; kill -TERM "$@"; sleep 5; kill -KILL "$@"'
"""`read` returns when the pipe from the server closes, however that comes about."""


class Leash:
    def __init__(self, pids: list[int]) -> None:
        self._watch = subprocess.Popen(
            ["/bin/sh", "-c", SCRIPT, "leash", *map(str, pids)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def let_go(self) -> None:
        """The processes have ended: their ids may soon be another's."""
        self._watch.kill()
        self._watch.communicate()
