"""Rollouts of the next iteration, drawn while the trainer learns from the last: fleet and trainer are both at work."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial

from feedback.judgement import Prompt
from trainer.rollouts import RolloutSource
from trainer.tokens import Rollout


class Ahead:
    """One request at a time, on a thread of its own where the source allows it, or else when it is taken. One that
    nobody takes is forgotten when another is made."""

    def __init__(self, source: RolloutSource) -> None:
        self._source = source
        self._asked: tuple[int, str] | None = None
        self._drawn: Callable[[], list[Rollout]]

    def asked(self, *, seed: int, version: str) -> bool:
        """Whether just these are being drawn, or wait to be taken."""
        return self._asked == (seed, version)

    def ask(self, prompts: Sequence[Prompt], *, seed: int, version: str) -> None:
        """See RolloutSource.sample. Returns at once."""
        draw = partial(self._source.sample, prompts, seed=seed, version=version)
        self._asked, self._drawn = (seed, version), draw
        if self._source.beside_training:
            future: Future[list[Rollout]] = Future()
            self._drawn = future.result
            threading.Thread(target=_fulfil, args=(future, draw), name="rollouts", daemon=True).start()

    def take(self) -> list[Rollout]:
        """Wait for what was asked for last. Raises what the source raises."""
        self._asked = None
        return self._drawn()


def _fulfil(future: Future[list[Rollout]], draw: Callable[[], list[Rollout]]) -> None:
    try:
        future.set_result(draw())
    except Exception as error:
        future.set_exception(error)
