"""Simulated raters before a canary: what they say, when, and what is decided on it."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from feedback.ratings import Rating
from foldback.v1.feedback_pb2 import FEEDBACK_SOURCE_END_USER
from settings.canary import CanarySettings
from trainer.canary import PROMOTES, Case, Verdict, decide, found_worse

RIVAL, CANARY = "p000001-aaaaaaaa", "p000002-bbbbbbbb"
BEGAN = 1e6


@dataclass(frozen=True, slots=True)
class Traffic:
    """One kind of deployment."""

    per_minute: float
    """Ratings of all users together."""
    share: float
    """Of conversations that the canary answers; 1: it takes the whole replica."""
    history: int
    """Ratings of the rival from before."""
    raters: int = 60


def rating(sequence: int, rater: int, version: str, value: float, *, at: float = BEGAN, rival: str = "") -> Rating:
    return Rating(sequence, f"t/{rater}", FEEDBACK_SOURCE_END_USER, version, value, rival, at)


def stream(traffic: Traffic, canary_likes: float, rival_likes: float, seed: int) -> Iterator[Rating]:
    """Thumbs, without end. Raters differ: each likes all answers a little more or less."""
    chosen = random.Random(seed)
    lenience = [chosen.uniform(-0.15, 0.15) for _ in range(traffic.raters)]

    def thumb(sequence: int, version: str, at: float) -> Rating:
        rater = chosen.randrange(traffic.raters)
        likes = (canary_likes if version == CANARY else rival_likes) + lenience[rater]
        return rating(sequence, rater, version, float(chosen.random() < likes), at=at)

    for sequence in range(1, traffic.history + 1):
        yield thumb(sequence, RIVAL, BEGAN - 1)
    at, sequence = BEGAN, traffic.history
    while True:
        at += chosen.expovariate(traffic.per_minute / 60)
        sequence += 1
        yield thumb(sequence, CANARY if chosen.random() < traffic.share else RIVAL, at)


@dataclass(frozen=True, slots=True)
class Outcome:
    verdict: Verdict
    taken_down: bool
    """By the verdict, or in the watch after it."""

    @property
    def stays(self) -> bool:
        return self.verdict in PROMOTES and not self.taken_down


def trial(
    traffic: Traffic, settings: CanarySettings, *, canary_likes: float, rival_likes: float = 0.65, seed: int
) -> Outcome:
    """One trial, looked at after every rating, and the watch after it."""
    case, verdict = Case(CANARY, RIVAL, BEGAN, settings), Verdict.WAIT
    for said in stream(traffic, canary_likes, rival_likes, seed):
        waited_s = said.receive_time - BEGAN
        if verdict is Verdict.WAIT:
            if waited_s < settings.max_wait_s:  # else the time was up before this one
                case.add([said])
            verdict = decide(case.report(), settings, waited_s=waited_s, next_is_ready=False)
            if verdict not in PROMOTES | {Verdict.WAIT}:
                return Outcome(verdict, True)
        elif waited_s > settings.max_wait_s + settings.watch_s:
            return Outcome(verdict, False)
        elif said.version == CANARY:
            case.add([said])
            if found_worse(case.report(), settings):
                return Outcome(verdict, True)
    raise AssertionError("the stream has no end")
