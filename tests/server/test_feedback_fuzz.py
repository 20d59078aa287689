"""Hostile SubmitFeedback calls: each a clean status, none in the log, no memory kept."""

import asyncio
import random
import tracemalloc
from pathlib import Path

import grpc
import pytest

from feedback.tokens import TokenSigner, load_or_create_keys
from feedback.topics import FEEDBACK
from foldback.v1 import events_pb2, feedback_pb2
from tests.server.conftest import connect, server_settings

CALLS = 1000
"""bench/fuzz.py makes ten thousand."""
CLEAN = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.FAILED_PRECONDITION,
}
SUBMIT = "/foldback.v1.FeedbackService/SubmitFeedback"


def claims(**changes: object) -> events_pb2.TokenClaims:
    fields = {"tenant": "default", "conversation_id": "c", "response_id": "r", "candidate_ids": ["a", "b"]}
    made = events_pb2.TokenClaims(**{**fields, **changes})  # type: ignore[arg-type]
    made.issue_time.GetCurrentTime()
    return made


def old_claims() -> events_pb2.TokenClaims:
    made = claims()
    made.issue_time.FromSeconds(1)
    return made


def hostile(dice: random.Random, genuine: TokenSigner) -> bytes:
    """A valid thumb with one thing wrong, or bytes that were never a message."""
    request = feedback_pb2.SubmitFeedbackRequest(request_id=f"{dice.random()}")
    feedback = request.feedback
    feedback.feedback_tokens.append(genuine.sign(claims()))
    feedback.rater_id, feedback.thumbs = "mallory", feedback_pb2.THUMBS_UP
    feedback.source = feedback_pb2.FEEDBACK_SOURCE_END_USER
    token = feedback.feedback_tokens[0]
    match dice.randrange(14):
        case 0:
            return dice.randbytes(dice.randrange(1, 200))
        case 1:
            value = bytearray(request.SerializeToString())
            return bytes(value[: dice.randrange(1, len(value))])
        case 2:
            feedback.feedback_tokens[0] = TokenSigner({"k": b"x" * 32}, "k", 3600.0).sign(claims())
        case 3:
            feedback.feedback_tokens[0] = genuine.sign(claims(tenant="other"))
        case 4:
            feedback.feedback_tokens[0] = genuine.sign(old_claims())
        case 5:
            place = dice.randrange(len(token) - 8)
            feedback.feedback_tokens[0] = f"{token[:place]}{dice.choice('.-_é')}{token[place + 2 :]}"
        case 6:
            feedback.candidate_id = "c-of-another"
        case 7:
            feedback.thumbs = dice.choice([0, 3, 77, -1])  # type: ignore[assignment]
        case 8:
            feedback.rating.value, feedback.rating.max = dice.choice([float("nan"), float("inf"), 7.0, -1e308]), 5.0
        case 9:
            feedback.ranking.tiers.add(candidate_ids=dice.choice([["a"], ["a", "a"], ["a", "z"], []]))
        case 10:
            feedback.comment.text = dice.choice(["", " \n", "x" * 40_000])
        case 11:
            feedback.rater_id = dice.choice(["", "r" * 300])
        case 12:
            feedback.source = dice.choice([0, 9, 2**31 - 1])  # type: ignore[assignment]
        case 13:
            feedback.feedback_tokens.extend([token] * dice.randrange(1, 50))
    return request.SerializeToString()


@pytest.mark.slow
@pytest.mark.timeout(100)
async def test_hostile_calls_are_refused_cleanly_and_leave_nothing(tmp_path: Path, tiny_model: Path) -> None:
    async with connect(server_settings(tmp_path, tiny_model, "127.0.0.1:1")) as client:
        keys = load_or_create_keys(tmp_path / "token_keys.json")
        genuine = TokenSigner(keys.keys, keys.current, 3600.0)
        dice = random.Random(4)
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = client.public.unary_unary(SUBMIT)

        async def code_of(body: bytes) -> grpc.StatusCode:
            try:
                await call(body)
            except grpc.aio.AioRpcError as error:
                return error.code()
            return grpc.StatusCode.OK

        async def batch(count: int) -> set[grpc.StatusCode]:
            codes: set[grpc.StatusCode] = set()
            for _ in range(count // 50):
                codes |= set(await asyncio.gather(*(code_of(hostile(dice, genuine)) for _ in range(50))))
            return codes

        codes = await batch(500)
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        codes |= await batch(CALLS)
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert codes <= CLEAN, codes
        assert {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED} <= codes
        assert grown < 2 * 2**20, f"{grown} bytes kept after {CALLS} calls"
        produced = client.server.event_log.state().produced
    assert not [topic for topic, _ in produced if topic == FEEDBACK]
    assert not list((tmp_path / "receipts").glob("*.log"))
