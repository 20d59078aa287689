"""Simulated users: they ask, read, and rate by a persona's taste, all through the public API."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import grpc

from console import votes
from console.client import Client
from console.personas import Persona
from console.personas.persona import Tiers
from console.personas.prompts import TRAINING
from foldback.v1 import chat_pb2
from foldback.v1.feedback_pb2 import SubmitFeedbackRequest

SMOOTHING = 0.05
"""Weight of the newest answer in the running mean of utility."""


@dataclass(frozen=True, slots=True)
class Crowd:
    """Who simulates what."""

    persona: Persona
    users: int = 4
    """Concurrent users; each waits for its answer before it rates and asks again."""
    rate: float = 1.0
    """Conversations started per second, all users together."""
    candidate_count: int = 4
    max_tokens: int = 40
    thumbs_share: float = 0.25
    """Share of ratings that are a thumb on the answer shown first, the others being rankings."""
    seed: int = 0
    together: bool = False
    """All users ask at the same moment: their answers are decoded in one batch, which costs little more than one."""
    prompts: Sequence[str] = TRAINING
    label_noise: float = 0.0
    """Share of judgements that say the opposite of what was meant."""
    hostile: int = 0
    """So many of the users always say the opposite."""

    def contrariness(self, index: int) -> float:
        """How often the user of this index says the opposite of what they like."""
        return 1.0 if index < self.hostile else self.label_noise


@dataclass(slots=True)
class Tally:
    """What the crowd has met so far."""

    served: int = 0
    """Conversations answered."""
    rankings: int = 0
    thumbs: int = 0
    abstained: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    """Failed calls by status code: every one, none is retried."""
    versions: list[str] = field(default_factory=list)
    """Policy versions that answered, in order of appearance."""
    mean_utility: float | None = None
    """Running mean over the candidates' utilities."""
    started: float = field(default_factory=time.monotonic)

    @property
    def rated(self) -> int:
        return self.rankings + self.thumbs

    @property
    def failures(self) -> int:
        return self.failed.total()

    def saw(self, version: str, utilities: Sequence[float]) -> None:
        self.served += 1
        if version not in self.versions:
            self.versions.append(version)
        for utility in utilities:
            mean = utility if self.mean_utility is None else self.mean_utility
            self.mean_utility = mean + SMOOTHING * (utility - mean)


@dataclass(frozen=True, slots=True)
class Answers:
    """One response as a user reads it: candidates in the order shown."""

    token: str
    version: str
    candidate_ids: list[str]
    texts: list[str]


class Pace:
    """Lets `rate` starts a second through, `wave` at a time, whoever asks."""

    def __init__(self, rate: float, wave: int = 1) -> None:
        self._interval_s = wave / rate
        self._wave = self._left = wave
        self._next = time.monotonic()

    async def turn(self) -> None:
        if self._left == 0:
            self._next = max(self._next + self._interval_s, time.monotonic())
            self._left = self._wave
        self._left -= 1
        await asyncio.sleep(self._next - time.monotonic())


async def simulate(
    client: Client, crowd: Crowd, tally: Tally, stop: asyncio.Event, conversations: int | None = None
) -> None:
    """Run the crowd until `stop` is set, or until it has started `conversations`; fills `tally` as it goes."""
    pace, left = Pace(crowd.rate, crowd.users if crowd.together else 1), Budget(conversations)
    async with asyncio.TaskGroup() as group:
        users = [
            group.create_task(_user(group, client, crowd, tally, index, pace, left)) for index in range(crowd.users)
        ]
        group.create_task(_cancel_when(stop, users))
        await asyncio.wait(users)
        stop.set()


class Budget:
    """How many conversations may still start; None is no end."""

    def __init__(self, total: int | None) -> None:
        self._left = total

    def take(self) -> bool:
        if self._left is None:
            return True
        self._left -= 1
        return self._left >= 0


async def _cancel_when(stop: asyncio.Event, users: list[asyncio.Task[None]]) -> None:
    await stop.wait()
    for user in users:
        user.cancel()


async def _user(
    group: asyncio.TaskGroup, client: Client, crowd: Crowd, tally: Tally, index: int, pace: Pace, left: Budget
) -> None:
    rater_id, contrariness = f"{crowd.persona.name}-{index}", crowd.contrariness(index)
    random = Random(f"{crowd.seed}/{rater_id}")
    while left.take():
        await pace.turn()
        try:
            answers = await ask(client, crowd, random.choice(crowd.prompts), rater_id)
            tally.saw(answers.version, [crowd.persona.utility(text) for text in answers.texts])
        except grpc.aio.AioRpcError as error:
            tally.failed[error.code().name] += 1
            continue
        feedback = judge(crowd, answers, rater_id, random, contrariness)
        if feedback is None:
            tally.abstained += 1
        else:
            # Of the group: a user who is stopped leaves no vote on its way that the tally would never hear of.
            await asyncio.shield(group.create_task(_vote(client, feedback, tally)))


async def _vote(client: Client, feedback: SubmitFeedbackRequest, tally: Tally) -> None:
    try:
        await client.submit_feedback(feedback)
    except grpc.aio.AioRpcError as error:
        tally.failed[error.code().name] += 1
        return
    if feedback.feedback.HasField("ranking"):
        tally.rankings += 1
    else:
        tally.thumbs += 1


async def ask(client: Client, crowd: Crowd, question: str, rater_id: str) -> Answers:
    """Stream one chat as an application does, and put the candidates in display order."""
    request = chat_pb2.CreateChatRequest(
        messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, content=question)],
        sampling=chat_pb2.Sampling(max_tokens=crowd.max_tokens),
        candidate_count=crowd.candidate_count,
        rater_id=rater_id,
        labels={"persona": crowd.persona.name},
        training_consent=True,
    )
    started = chat_pb2.ChatStarted()
    texts = [""] * crowd.candidate_count
    async for event in client.stream_chat(request):
        if event.HasField("started"):
            started = event.started
        elif event.HasField("delta"):
            texts[event.delta.candidate_index] += event.delta.text
    order = started.display_order
    return Answers(
        started.feedback_token,
        started.policy_version,
        [started.candidate_ids[index] for index in order],
        [texts[index] for index in order],
    )


def judge(
    crowd: Crowd, answers: Answers, rater_id: str, random: Random, contrariness: float = 0.0
) -> SubmitFeedbackRequest | None:
    """What this user sends about the answers: a ranking, a thumb, or nothing; now and then its opposite."""
    persona = crowd.persona
    if persona.abstains(random):
        return None
    opposite = random.random() < contrariness
    tiers: Tiers = ()
    if len(answers.texts) > 1 and random.random() >= crowd.thumbs_share:
        tiers = persona.rank(answers.texts, random)
    if len(tiers) > 1:
        named = [[answers.candidate_ids[index] for index in tier] for tier in tiers[:: -1 if opposite else 1]]
        return votes.ranking([answers.token], rater_id, named)
    # Answers that a user cannot tell apart are not worth an order; the first one shown gets a thumb.
    up = persona.thumbs_up(answers.texts[0], random)
    return votes.thumbs(answers.token, rater_id, up is not opposite, answers.candidate_ids[0])
