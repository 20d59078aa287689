"""Rollouts of the next iteration, drawn while the trainer learns from the last: fleet and trainer are both at work."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future

from feedback.judgement import Prompt
from trainer.rollouts import RolloutSource
from trainer.tokens import Rollout


class Ahead:
    """One request at a time, on a thread of its own. One that nobody takes is forgotten when another is made."""

    def __init__(self, source: RolloutSource) -> None:
        self._source = source
        self._asked: tuple[int, str] | None = None
        self._drawn: Future[list[Rollout]] = Future()

    def asked(self, *, seed: int, version: str) -> bool:
        """Whether just these are being drawn, or wait to be taken."""
        return self._asked == (seed, version)

    def ask(self, prompts: Sequence[Prompt], *, seed: int, version: str) -> None:
        """See RolloutSource.sample. Returns at once."""
        self._asked, self._drawn = (seed, version), Future()
        work = threading.Thread(
            target=self._draw, args=(self._drawn, prompts, seed, version), name="rollouts", daemon=True
        )
        work.start()

    def take(self) -> list[Rollout]:
        """Wait for what was asked for last. Raises what the source raised."""
        self._asked = None
        return self._drawn.result()

    def _draw(self, drawn: Future[list[Rollout]], prompts: Sequence[Prompt], seed: int, version: str) -> None:
        try:
            drawn.set_result(self._source.sample(prompts, seed=seed, version=version))
        except Exception as error:
            drawn.set_exception(error)
