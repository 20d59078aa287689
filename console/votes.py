"""Feedback as the console builds it."""

import uuid
from collections.abc import Sequence

from foldback.v1 import feedback_pb2 as pb

END_USER = pb.FEEDBACK_SOURCE_END_USER


def thumbs(token: str, rater_id: str, up: bool, candidate_id: str = "") -> pb.SubmitFeedbackRequest:
    """A thumb on one candidate, or on the whole response."""
    value = pb.THUMBS_UP if up else pb.THUMBS_DOWN
    return _request(_feedback([token], rater_id, candidate_id=candidate_id, thumbs=value))


def ranking(
    tokens: Sequence[str], rater_id: str, tiers: Sequence[Sequence[str]], rejected_all: bool = False
) -> pb.SubmitFeedbackRequest:
    """Candidate ids in tiers, best first; two tokens when two responses are compared."""
    value = pb.Ranking(tiers=[pb.Tier(candidate_ids=tier) for tier in tiers], rejected_all=rejected_all)
    return _request(_feedback(tokens, rater_id, ranking=value))


def demonstration(token: str, rater_id: str, candidate_id: str, text: str) -> pb.SubmitFeedbackRequest:
    """The answer as the user would have written it."""
    value = pb.Demonstration(candidate_id=candidate_id, text=text)
    return _request(_feedback([token], rater_id, demonstration=value))


def _feedback(tokens: Sequence[str], rater_id: str, **fields: object) -> pb.Feedback:
    return pb.Feedback(feedback_tokens=tokens, rater_id=rater_id, source=END_USER, **fields)  # type: ignore[arg-type]


def _request(feedback: pb.Feedback) -> pb.SubmitFeedbackRequest:
    return pb.SubmitFeedbackRequest(request_id=str(uuid.uuid4()), feedback=feedback)
