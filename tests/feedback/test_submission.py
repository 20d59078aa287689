"""What a client may say about what it was served; each breach names its field."""

import math
import tracemalloc
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.event import Durability
from feedback.submission import (
    IdConflict,
    InvalidFeedback,
    RecentSubmissions,
    feedback_id,
    record_feedback,
    record_retraction,
)
from feedback.tokens import TokenError, TokenSigner
from foldback.v1 import feedback_pb2
from tests.feedback.events import TENANT, claims_of, make_response, ranking

SIGNER = TokenSigner({"k": b"k" * 32}, "k", lifetime_s=1e6)
NOW = 100.0
RESPONSE = make_response("r1")
TOKEN = SIGNER.sign(claims_of(RESPONSE))
REGENERATED = SIGNER.sign(claims_of(make_response("r2", candidates=1)))


def request(request_id: str = "q1", **content: Any) -> feedback_pb2.SubmitFeedbackRequest:
    fields: dict[str, Any] = {
        "feedback_tokens": [TOKEN],
        "rater_id": "rater",
        "source": feedback_pb2.FEEDBACK_SOURCE_END_USER,
    } | content
    return feedback_pb2.SubmitFeedbackRequest(request_id=request_id, feedback=feedback_pb2.Feedback(**fields))


def submit(item: feedback_pb2.SubmitFeedbackRequest):  # type: ignore[no-untyped-def]
    return record_feedback(item, TENANT, SIGNER, max_text_chars=100, now=NOW)


UP: dict[str, Any] = {"thumbs": feedback_pb2.THUMBS_UP}


@pytest.mark.parametrize(
    "content",
    [
        UP,
        UP | {"candidate_id": "r1-1"},
        {"rating": feedback_pb2.Rating(value=3, min=1, max=5)},
        {"ranking": ranking(["r1-0"], ["r1-1"])},
        {"ranking": ranking(["r1-0", "r1-1"])},
        {"ranking": ranking(rejected_all=True)},
        {"ranking": ranking(["r2-0"], ["r1-0", "r1-1"]), "feedback_tokens": [TOKEN, REGENERATED]},
        {"demonstration": feedback_pb2.Demonstration(candidate_id="r1-0", text="better")},
        {"comment": feedback_pb2.Comment(text="why")},
    ],
)
def test_accepted(content: dict[str, Any]) -> None:
    record = submit(request(**content))
    assert not record.feedback.feedback_tokens
    assert record.claims[0] == claims_of(RESPONSE)
    assert uuid.UUID(record.feedback_id).version == 5


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ({}, "feedback.kind"),
        ({"thumbs": 7}, "feedback.thumbs"),
        (UP | {"source": 0}, "feedback.source"),
        (UP | {"source": 99}, "feedback.source"),
        (UP | {"rater_id": ""}, "feedback.rater_id"),
        (UP | {"rater_id": "x" * 300}, "feedback.rater_id"),
        (UP | {"reason_codes": ["x"] * 17}, "feedback.reason_codes"),
        (UP | {"feedback_tokens": []}, "feedback.feedback_tokens"),
        (UP | {"feedback_tokens": [TOKEN] * 3}, "feedback.feedback_tokens"),
        (UP | {"feedback_tokens": [TOKEN, REGENERATED]}, "feedback.feedback_tokens"),
        ({"ranking": ranking(["r1-0"], ["r1-1"]), "feedback_tokens": [TOKEN, TOKEN]}, "feedback.feedback_tokens"),
        (UP | {"candidate_id": "r2-0"}, "feedback.candidate_id"),
        ({"rating": feedback_pb2.Rating(value=6, min=1, max=5)}, "feedback.rating.value"),
        ({"rating": feedback_pb2.Rating(value=1, min=1, max=1)}, "feedback.rating.max"),
        ({"rating": feedback_pb2.Rating(value=math.nan, min=0, max=1)}, "feedback.rating"),
        ({"ranking": ranking(["r1-0"])}, "feedback.ranking.tiers"),
        ({"ranking": ranking(["r1-0"], ["r1-0"])}, "feedback.ranking.tiers"),
        ({"ranking": ranking(["r1-0"], ["r9"])}, "feedback.ranking.tiers"),
        ({"ranking": ranking(["r1-0"], [], ["r1-1"])}, "feedback.ranking.tiers"),
        ({"demonstration": feedback_pb2.Demonstration(text="whose?")}, "feedback.demonstration.candidate_id"),
        ({"comment": feedback_pb2.Comment(text=" ")}, "feedback.comment.text"),
        ({"comment": feedback_pb2.Comment(text="x" * 101)}, "feedback.comment.text"),
    ],
)
def test_refused_with_the_field(content: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidFeedback) as refusal:
        submit(request(**content))
    assert field in [name for name, _ in refusal.value.violations]


MANY = 200_000


@pytest.mark.parametrize(
    "content",
    [
        {"ranking": feedback_pb2.Ranking(tiers=[feedback_pb2.Tier()] * MANY)},
        {"ranking": ranking(["x"] * MANY)},
        {"ranking": ranking(["x" * MANY])},
        {"candidate_id": "x" * MANY, **UP},
        {"reason_codes": ["x"] * MANY, **UP},
        {"feedback_tokens": [""] * MANY, **UP},
        {"feedback_tokens": ["." * MANY], **UP},
        {"rater_id": "x" * MANY, **UP},
    ],
    ids=["tiers", "candidates", "candidate", "target", "codes", "tokens", "dots", "rater"],
)
def test_what_is_too_much_is_refused_by_its_size_and_in_few_words(content: dict[str, Any]) -> None:
    """Everybody else waits while one is checked: four million empty tiers took four seconds to read."""
    item = request(**content)
    tracemalloc.start()
    with pytest.raises((InvalidFeedback, TokenError)) as refusal:
        submit(item)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(str(refusal.value)) < 1000
    assert peak < 2 * MANY, "no list of what was sent is made"


@given(st.binary(max_size=200))
def test_any_bytes_end_in_a_clean_refusal_or_a_record(data: bytes) -> None:
    item = request(**UP)
    try:
        item.feedback.MergeFromString(data)
    except Exception:
        return
    try:
        record = submit(item)
    except (InvalidFeedback, TokenError):
        return
    assert record.feedback.WhichOneof("kind")


@given(st.text(max_size=40), st.text(max_size=300))
def test_ids_are_uuid5(tenant: str, request_id: str) -> None:
    space = uuid.uuid5(uuid.UUID("5f3c1c1e-6f0d-5b0a-9a57-0d0f6c1b8a4e"), tenant)
    assert feedback_id(tenant, request_id) == str(uuid.uuid5(space, request_id))


def test_ids_depend_on_tenant_and_request_alone() -> None:
    assert feedback_id("a", "q") == feedback_id("a", "q")
    assert len({feedback_id("a", "q"), feedback_id("b", "q"), feedback_id("a", "r"), feedback_id("aq", "")}) == 4


def test_a_retry_is_recognised_and_a_reused_id_refused() -> None:
    recent = RecentSubmissions(capacity=2)
    first = submit(request(**UP))
    assert recent.find(first) is None
    recent.add(first, Durability.BROKER)
    assert recent.find(record_feedback(request(**UP), TENANT, SIGNER, max_text_chars=9, now=NOW + 5)) == "BROKER"
    with pytest.raises(IdConflict):
        recent.find(submit(request(thumbs=feedback_pb2.THUMBS_DOWN)))
    for number in range(2):
        recent.add(submit(request(f"later-{number}", **UP)), Durability.SPOOL)
    assert recent.find(first) is None


def test_retraction_names_its_target() -> None:
    target = submit(request(**UP))
    record = record_retraction(
        feedback_pb2.RetractFeedbackRequest(
            request_id="q2", feedback_token=TOKEN, feedback_id=target.feedback_id, rater_id="rater"
        ),
        TENANT,
        SIGNER,
        now=NOW,
    )
    assert record.retracts == target.feedback_id
    assert record.feedback.rater_id == "rater"
    with pytest.raises(InvalidFeedback, match="feedback_id"):
        record_retraction(feedback_pb2.RetractFeedbackRequest(request_id="q", rater_id="r"), TENANT, SIGNER)
