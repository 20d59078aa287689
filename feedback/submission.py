"""From a client's feedback to the event that is logged: checked, its tokens verified, its identity fixed."""

import hashlib
import math
import time
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache

from feedback.event import Durability, Event, build_event
from feedback.tokens import TokenSigner
from feedback.topics import FEEDBACK
from foldback.v1 import events_pb2, feedback_pb2

FEEDBACK_TYPE = "foldback.v1.FeedbackRecorded"
MAX_ID_CHARS = 256
MAX_REASON_CODES = 16

_NAMESPACE = uuid.UUID("5f3c1c1e-6f0d-5b0a-9a57-0d0f6c1b8a4e")
_SOURCES = frozenset(feedback_pb2.FeedbackSource.values()) - {feedback_pb2.FEEDBACK_SOURCE_UNSPECIFIED}

Violation = tuple[str, str]
"""(field path, why it is refused and what would be accepted)."""


class InvalidFeedback(ValueError):
    """What a client sent breaks the contract; `violations` names each field."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__("; ".join(f"{field}: {why}" for field, why in violations))
        self.violations = list(violations)


class IdConflict(ValueError):
    """The same request_id came before with different content."""


def feedback_id(tenant: str, request_id: str) -> str:
    """UUIDv5 (RFC 9562): the same submission has the same id on every replica and in every retry.

    What `uuid.uuid5` gives, in a third of its time.
    """
    digits = hashlib.sha1(_namespace(tenant) + request_id.encode(), usedforsecurity=False).hexdigest()
    # Section 5.5: version 5 in the 13th digit, variant 10 in the top bits of the 17th.
    variant = "89ab"[int(digits[16], 16) % 4]
    return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:32]}"


@lru_cache(maxsize=1024)
def _namespace(tenant: str) -> bytes:
    return uuid.uuid5(_NAMESPACE, tenant).bytes


def record_feedback(
    request: feedback_pb2.SubmitFeedbackRequest,
    tenant: str,
    signer: TokenSigner,
    *,
    max_text_chars: int,
    now: float | None = None,
) -> events_pb2.FeedbackRecorded:
    """The event for one submission. Raises InvalidFeedback, TokenError."""
    feedback = request.feedback
    violations = [*check_id("request_id", request.request_id), *_check_common(feedback)]
    given = len(feedback.feedback_tokens)
    if not 1 <= given <= 2:
        violations.append(("feedback.feedback_tokens", f"{given} given; give one, or two to compare two responses"))
    if violations:
        raise InvalidFeedback(violations)
    claims = [signer.verify(token, tenant, now) for token in feedback.feedback_tokens]
    if violations := check_content(feedback, claims, max_text_chars):
        raise InvalidFeedback([(f"feedback.{field}", why) for field, why in violations])
    return build_record(feedback_id(tenant, request.request_id), tenant, feedback, claims, now=now)


def record_retraction(
    request: feedback_pb2.RetractFeedbackRequest, tenant: str, signer: TokenSigner, *, now: float | None = None
) -> events_pb2.FeedbackRecorded:
    """The event that withdraws `request.feedback_id`. Raises InvalidFeedback, TokenError."""
    violations = [
        *check_id("request_id", request.request_id),
        *check_id("rater_id", request.rater_id),
        *check_id("feedback_id", request.feedback_id),
    ]
    if violations:
        raise InvalidFeedback(violations)
    claims = signer.verify(request.feedback_token, tenant, now)
    return build_record(
        feedback_id(tenant, request.request_id),
        tenant,
        feedback_pb2.Feedback(rater_id=request.rater_id),
        [claims],
        retracts=request.feedback_id,
        now=now,
    )


def build_record(
    id: str,
    tenant: str,
    feedback: feedback_pb2.Feedback,
    claims: Sequence[events_pb2.TokenClaims],
    *,
    retracts: str = "",
    now: float | None = None,
) -> events_pb2.FeedbackRecorded:
    """The event itself, from parts that are already trusted."""
    record = events_pb2.FeedbackRecorded(
        feedback_id=id, tenant=tenant, feedback=feedback, claims=claims, retracts=retracts
    )
    record.feedback.ClearField("feedback_tokens")
    record.feedback.DiscardUnknownFields()
    received_ns = time.time_ns() if now is None else int(now * 1e9)
    record.receive_time.seconds, record.receive_time.nanos = divmod(received_ns, 10**9)
    record.content_sha256 = content_sha256(record)
    return record


def feedback_event(record: events_pb2.FeedbackRecorded) -> Event:
    """As it goes to the log: by conversation, so that what is said of one stays in order."""
    return build_event(
        FEEDBACK,
        record.claims[0].conversation_id,
        record,
        event_id=record.feedback_id,
        type=FEEDBACK_TYPE,
        tenant=record.tenant,
    )


def content_sha256(record: events_pb2.FeedbackRecorded) -> bytes:
    """Hash of what was said about what; not of when it arrived, nor of the token that proved it."""
    parts = [record.feedback.SerializeToString(deterministic=True), record.retracts.encode()]
    parts += [claim.response_id.encode() for claim in record.claims]
    return hashlib.sha256(b"".join([len(part).to_bytes(8, "big") + part for part in parts])).digest()


def check_content(
    feedback: feedback_pb2.Feedback, claims: Sequence[events_pb2.TokenClaims], max_text_chars: int
) -> list[Violation]:
    """What is wrong with the judgement itself, given what was served; fields relative to Feedback."""
    served = [candidate for claim in claims for candidate in claim.candidate_ids]
    violations: list[Violation] = []
    if feedback.candidate_id and feedback.candidate_id not in served:
        violations.append(("candidate_id", "not among the candidates that the token was given for"))
    if len(claims) == 2:
        violations += _check_comparison(feedback, claims)
    kind = feedback.WhichOneof("kind")
    match kind:
        case "thumbs":
            if feedback.thumbs not in (feedback_pb2.THUMBS_UP, feedback_pb2.THUMBS_DOWN):
                violations.append(("thumbs", "unknown value; give THUMBS_UP or THUMBS_DOWN"))
        case "rating":
            violations += _check_rating(feedback.rating)
        case "ranking":
            violations += _check_ranking(feedback, served)
        case "demonstration":
            edited = feedback.demonstration.candidate_id
            if edited not in served and (edited or len(served) > 1):
                violations.append(("demonstration.candidate_id", "name the served candidate that was edited"))
            violations += _check_text("demonstration.text", feedback.demonstration.text, max_text_chars)
        case "comment":
            violations += _check_text("comment.text", feedback.comment.text, max_text_chars)
        case _:
            violations.append(("kind", "missing; give one of thumbs, rating, ranking, demonstration, comment"))
    return violations


def check_id(field: str, value: str) -> list[Violation]:
    """An id that a client gives: not empty, and no longer than it may be repeated in an answer."""
    if not value:
        return [(field, "missing")]
    if len(value) > MAX_ID_CHARS:
        return [(field, f"{len(value)} characters; at most {MAX_ID_CHARS}")]
    return []


def _check_common(feedback: feedback_pb2.Feedback) -> list[Violation]:
    violations = check_id("feedback.rater_id", feedback.rater_id)
    if feedback.source not in _SOURCES:
        violations.append(("feedback.source", "unknown; give END_USER, ANNOTATOR, MODEL or IMPLICIT"))
    if len(feedback.reason_codes) > MAX_REASON_CODES or any(len(code) > 64 for code in feedback.reason_codes):
        violations.append(("feedback.reason_codes", f"at most {MAX_REASON_CODES}, of at most 64 characters"))
    return violations


def _check_comparison(feedback: feedback_pb2.Feedback, claims: Sequence[events_pb2.TokenClaims]) -> list[Violation]:
    if claims[0].response_id == claims[1].response_id:
        return [("feedback_tokens", "both of the same response; one is enough")]
    if claims[0].conversation_id != claims[1].conversation_id:
        return [("feedback_tokens", "of two conversations; compare responses of one conversation")]
    if feedback.WhichOneof("kind") != "ranking":
        return [("feedback_tokens", "two are for a ranking across two responses; give one")]
    return []


def _check_rating(rating: feedback_pb2.Rating) -> list[Violation]:
    if not all(math.isfinite(number) for number in (rating.value, rating.min, rating.max)):
        return [("rating", "value, min and max must be finite")]
    if rating.min >= rating.max:
        return [("rating.max", f"{rating.max:g} must be above rating.min={rating.min:g}")]
    if not rating.min <= rating.value <= rating.max:
        return [("rating.value", f"{rating.value:g} lies outside [{rating.min:g}, {rating.max:g}]")]
    return []


def _check_ranking(feedback: feedback_pb2.Feedback, served: Sequence[str]) -> list[Violation]:
    ranking = feedback.ranking
    # Counted before they are looked at: a message holds millions of names, and whoever reads them stops all others.
    if len(ranking.tiers) > len(served) or sum(len(tier.candidate_ids) for tier in ranking.tiers) > len(served):
        return [("ranking.tiers", f"more than the {len(served)} candidates of the tokens")]
    named = [candidate for tier in ranking.tiers for candidate in tier.candidate_ids]
    violations: list[Violation] = []
    if feedback.candidate_id:
        violations.append(("candidate_id", "a ranking is about several; leave it empty"))
    if any(not tier.candidate_ids for tier in ranking.tiers):
        violations.append(("ranking.tiers", "a tier is empty"))
    if unknown := [candidate for candidate in named if candidate not in served]:
        violations.append(("ranking.tiers", f"{unknown[0][:MAX_ID_CHARS]!r} is not among the candidates of the tokens"))
    if len(set(named)) != len(named):
        violations.append(("ranking.tiers", "a candidate is named twice"))
    if len(named) < 2 and not (ranking.rejected_all and not named):
        violations.append(("ranking.tiers", "rank at least two candidates, or set rejected_all alone"))
    return violations


def _check_text(field: str, text: str, max_chars: int) -> list[Violation]:
    if not text.strip():
        return [(field, "empty")]
    if len(text) > max_chars:
        return [(field, f"{len(text)} characters; at most {max_chars}")]
    return []


class RecentSubmissions:
    """The last submissions this replica accepted: answers retries at once and catches reused request ids.

    A convenience only: across replicas and restarts the preference store decides.
    """

    def __init__(self, capacity: int = 100_000) -> None:
        self._capacity = capacity
        self._hashes: OrderedDict[tuple[str, str], tuple[bytes, Durability]] = OrderedDict()
        """By (tenant, feedback_id)."""

    def find(self, record: events_pb2.FeedbackRecorded) -> Durability | None:
        """How the same submission was made durable, if it was here. Raises IdConflict."""
        known = self._hashes.get((record.tenant, record.feedback_id))
        if known is None:
            return None
        content, durability = known
        if content != record.content_sha256:
            raise IdConflict("request_id: used before with different content; use a new one for a new feedback")
        return durability

    def accepted(self, tenant: str, feedback_id: str) -> bool:
        """Whether this replica took that feedback from `tenant`."""
        return (tenant, feedback_id) in self._hashes

    def add(self, record: events_pb2.FeedbackRecorded, durability: Durability) -> None:
        submission = record.tenant, record.feedback_id
        self._hashes[submission] = (record.content_sha256, durability)
        self._hashes.move_to_end(submission)
        while len(self._hashes) > self._capacity:
            self._hashes.popitem(last=False)
