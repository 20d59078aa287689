"""Simulated users and the measurement, over a real connection."""

import asyncio
import string
import time
from collections import Counter

import grpc
import pytest

from console.client import Client
from console.measure import measure
from console.personas import PERSONAS, Persona
from console.personas.prompts import HELD_OUT, TRAINING
from console.simulate import Crowd, Pace, Tally, simulate
from foldback.v1 import feedback_pb2
from tests.console.fake_server import BASE, FakeFoldback

FAST = 1000.0


def lengths(version: str, question: str, index: int) -> str:
    """Candidate 0 is the briefest."""
    return "word " * (2 + 5 * index)


def sure(**options: float) -> Persona:
    """Likes brief answers, and is never wrong."""
    return Persona("sure", PERSONAS["brief"].taste, noise=0.001, random_rate=0, **{"abstain_rate": 0.0, **options})


async def crowd_of(fake: FakeFoldback, crowd: Crowd, conversations: int) -> Tally:
    tally = Tally()
    async with Client(fake.chat_address, fake.admin_address, attempts=1) as client:
        await simulate(client, crowd, tally, asyncio.Event(), conversations)
    return tally


async def test_rankings_name_the_candidates_by_taste_whatever_the_display_order() -> None:
    async with FakeFoldback(lambda v, q, i: " ".join(f"w{i}x{n}" for n in range(5 + 10 * i))) as fake:
        tally = await crowd_of(fake, Crowd(sure(), rate=FAST, thumbs_share=0, candidate_count=3), 30)
        orders = {tuple(served.display_order) for served in fake.served.values()}
    assert len(orders) > 1
    assert tally.rankings == len(fake.feedback) == 30
    for feedback in fake.feedback.values():
        (token,) = feedback.feedback_tokens
        best_to_worst = [tier.candidate_ids[0] for tier in feedback.ranking.tiers]
        assert best_to_worst == [candidate.candidate_id for candidate in fake.served[token].candidates]


async def test_users_ask_training_prompts_with_consent_and_take_the_servers_temperature() -> None:
    async with FakeFoldback() as fake:
        await crowd_of(fake, Crowd(sure(), users=3, rate=FAST, max_tokens=24), 40)
    assert {chat.messages[0].content for chat in fake.chats} <= set(TRAINING)
    assert {chat.rater_id for chat in fake.chats} == {"sure-0", "sure-1", "sure-2"}
    for chat in fake.chats:
        assert chat.training_consent
        assert chat.candidate_count == 4
        assert not chat.sampling.HasField("temperature")
        assert chat.sampling.max_tokens == 24


async def test_shares_of_thumbs_and_abstentions() -> None:
    async with FakeFoldback(lengths) as fake:
        crowd = Crowd(sure(abstain_rate=0.25), rate=FAST, thumbs_share=0.5)
        tally = await crowd_of(fake, crowd, 300)
    assert tally.served == 300
    assert tally.rated == len(fake.feedback) == 300 - tally.abstained
    assert tally.abstained == pytest.approx(75, abs=32)
    assert tally.thumbs == pytest.approx(112, abs=40)


async def test_answers_that_are_alike_get_a_thumb_not_an_order() -> None:
    async with FakeFoldback(lambda v, q, i: "the same") as fake:
        tally = await crowd_of(fake, Crowd(sure(), rate=FAST, thumbs_share=0), 10)
    assert tally.thumbs == 10
    assert tally.rankings == 0


@pytest.mark.slow
async def test_hostile_users_and_noise_say_the_opposite() -> None:
    words = [first + second for first in string.ascii_lowercase for second in string.ascii_lowercase]
    async with FakeFoldback(lambda v, q, i: " ".join(words[: 4 + 9 * i])) as fake:
        crowd = Crowd(sure(), users=4, rate=FAST, thumbs_share=0.5, candidate_count=3, label_noise=0.25, hostile=1)
        await crowd_of(fake, crowd, 400)
        contrary: dict[str, list[bool]] = {f"sure-{index}": [] for index in range(4)}
        for feedback in fake.feedback.values():
            (token,) = feedback.feedback_tokens
            best = fake.served[token].candidates[0].candidate_id
            if feedback.HasField("ranking"):
                liked = feedback.ranking.tiers[0].candidate_ids[0] == best
            else:
                liked = feedback.thumbs == feedback_pb2.THUMBS_UP  # fewer than thirty words, all of them
            contrary[feedback.rater_id].append(not liked)
    assert all(contrary["sure-0"])
    others = [each for rater, found in contrary.items() if rater != "sure-0" for each in found]
    assert sum(others) / len(others) == pytest.approx(0.25, abs=0.12)


async def test_every_failed_call_is_counted_and_the_users_go_on() -> None:
    async with FakeFoldback() as fake:
        fake.failures.extend([(grpc.StatusCode.UNAVAILABLE, 0.01), (grpc.StatusCode.INTERNAL, None)])
        tally = await crowd_of(fake, Crowd(sure(), rate=FAST), 20)
    assert tally.failed == {"UNAVAILABLE": 1, "INTERNAL": 1}
    assert tally.served >= 18


async def test_versions_are_noted_in_order_and_no_stream_breaks_over_swaps() -> None:
    async with FakeFoldback(versions_after=10) as fake:
        tally = await crowd_of(fake, Crowd(sure(), rate=FAST), 40)
    assert tally.versions[:3] == [BASE, "p000001-fake0000", "p000002-fake0000"]
    assert tally.failures == 0


async def test_the_pace_is_kept_whoever_asks() -> None:
    pace = Pace(rate=50)
    began = time.monotonic()
    await asyncio.gather(*(pace.turn() for _ in range(26)))
    assert 0.5 <= time.monotonic() - began < 1.5


async def test_a_wave_starts_together() -> None:
    pace, starts = Pace(rate=20, wave=4), []
    began = time.monotonic()

    async def user() -> None:
        await pace.turn()
        starts.append(time.monotonic() - began)

    await asyncio.gather(*(user() for _ in range(8)))
    first, second = starts[:4], starts[4:]
    assert max(first) < 0.1
    assert min(second) >= 0.2
    assert max(second) - min(second) < 0.1


async def test_stop_ends_the_users() -> None:
    tally, stop = Tally(), asyncio.Event()
    async with FakeFoldback() as fake, Client(fake.chat_address, fake.admin_address) as client:
        running = asyncio.create_task(simulate(client, Crowd(sure(), rate=50), tally, stop))
        await asyncio.sleep(0.3)
        stop.set()
        await asyncio.wait_for(running, 5)
    assert 5 <= tally.served <= 20


class Slow(Client):
    """Hears of what was accepted long after it was."""

    accepted: asyncio.Event

    async def submit_feedback(self, request: feedback_pb2.SubmitFeedbackRequest) -> feedback_pb2.SubmitFeedbackResponse:
        response = await super().submit_feedback(request)
        self.accepted.set()
        await asyncio.sleep(0.3)
        return response


async def test_a_vote_on_its_way_when_the_users_are_stopped_is_counted() -> None:
    tally, stop = Tally(), asyncio.Event()
    async with FakeFoldback() as fake, Slow(fake.chat_address, fake.admin_address, attempts=1) as client:
        client.accepted = asyncio.Event()
        running = asyncio.create_task(simulate(client, Crowd(sure(), users=3, rate=FAST), tally, stop))
        await client.accepted.wait()
        stop.set()
        await running
    assert tally.rated == len(fake.feedback) > 0


async def test_measuring_uses_held_out_prompts_without_consent() -> None:
    async with FakeFoldback(lengths) as fake, Client(fake.chat_address, fake.admin_address) as client:
        failed: Counter[str] = Counter()
        measured = await measure(client, PERSONAS["brief"], failed, samples=2, max_tokens=40)
    assert sorted(chat.messages[0].content for chat in fake.chats) == sorted(HELD_OUT)
    assert not any(chat.training_consent for chat in fake.chats)
    assert not fake.feedback
    expected = [PERSONAS["brief"].utility(lengths("", "", index)) for index in (0, 1)] * len(HELD_OUT)
    assert sorted(measured.utilities) == sorted(expected)
    assert measured.mean == pytest.approx(sum(expected) / len(expected))
    assert measured.versions == {BASE: 64}
    assert not failed


async def test_a_measurement_counts_its_failures() -> None:
    async with FakeFoldback() as fake, Client(fake.chat_address, fake.admin_address, attempts=1) as client:
        fake.failures.extend([(grpc.StatusCode.INTERNAL, None)] * 2)
        failed: Counter[str] = Counter()
        measured = await measure(client, PERSONAS["brief"], failed, samples=1, max_tokens=40)
    assert failed == {"INTERNAL": 2}
    assert len(measured.utilities) == len(HELD_OUT) - 2
