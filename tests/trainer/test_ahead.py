"""Rollouts that are drawn while the trainer is busy with others."""

import threading
from collections.abc import Sequence

import pytest

from feedback.judgement import Prompt
from trainer.ahead import Ahead
from trainer.rollouts import Stopped
from trainer.tokens import Rollout

PROMPTS = [Prompt("c", (("user", "tea?"),), (), 0.0)]


class Gated:
    """A source that keeps `slow` versions' rollouts until it is let, and stops at others."""

    beside_training = True

    def __init__(self, *slow: str) -> None:
        self.slow = slow
        self.asked: list[tuple[int, str]] = []
        self.begun, self.may_answer = threading.Event(), threading.Event()

    def sample(self, prompts: Sequence[Prompt], *, seed: int, version: str) -> list[Rollout]:
        self.asked.append((seed, version))
        self.begun.set()
        if version not in self.slow:
            raise Stopped
        assert self.may_answer.wait(30)
        return []


def test_the_source_works_before_anybody_waits() -> None:
    source = Gated("p1")
    ahead = Ahead(source)
    ahead.ask(PROMPTS, seed=3, version="p1")
    assert source.begun.wait(30)
    assert ahead.asked(seed=3, version="p1")
    assert not ahead.asked(seed=3, version="p2")
    assert not ahead.asked(seed=4, version="p1")
    source.may_answer.set()
    assert ahead.take() == []
    assert not ahead.asked(seed=3, version="p1"), "taken once"
    assert source.asked == [(3, "p1")]


def test_what_is_asked_for_last_is_what_is_taken() -> None:
    source = Gated("p1")
    ahead = Ahead(source)
    ahead.ask(PROMPTS, seed=3, version="p1")
    assert source.begun.wait(30)
    ahead.ask(PROMPTS, seed=3, version="p2")
    with pytest.raises(Stopped):
        ahead.take()
    source.may_answer.set()


def test_a_source_that_is_the_policy_itself_draws_when_it_is_taken() -> None:
    source = Gated("p1")
    source.beside_training = False
    source.may_answer.set()
    ahead = Ahead(source)
    ahead.ask(PROMPTS, seed=3, version="p1")
    assert ahead.asked(seed=3, version="p1")
    assert not source.begun.wait(0.1), "training still changes it"
    assert ahead.take() == []
    assert source.asked == [(3, "p1")]
