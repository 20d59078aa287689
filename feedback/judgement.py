"""What the trainer reads from the preference store: one judgement of one rater, joined with what it is about."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["thumbs", "rating", "ranking", "demonstration", "comment"]


@dataclass(frozen=True, slots=True)
class Answer:
    """One candidate as it was served."""

    candidate_id: str
    text: str
    token_ids: tuple[int, ...]
    """Empty when the answer was imported."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A feedback that counts: the latest of its rater, not retracted, not erased, on a consenting response."""

    sequence: int
    """Store order, strictly increasing; a change gets a new one."""
    feedback_id: str
    tenant: str
    rater_id: str
    source: int
    """A FeedbackSource."""
    kind: Kind
    conversation_id: str
    response_id: str
    policy_version: str
    messages: tuple[tuple[str, str], ...]
    """The prompt: (role, content), role one of system, user, assistant."""
    prompt_token_ids: tuple[int, ...]
    """Empty when the prompt was imported."""
    answers: tuple[Answer, ...]
    """Those the judgement speaks of."""
    tiers: tuple[tuple[int, ...], ...]
    """Ranking: indices into `answers`, best tier first."""
    rejected_all: bool
    """Ranking: the rater found none acceptable."""
    score: float | None
    """Thumbs: 1 or 0. Rating: scaled to [0, 1]. Else None."""
    text: str
    """Demonstration or comment, else empty."""
    receive_time: float
    """Unix seconds, by the server's clock."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt that a consenting user sent."""

    conversation_id: str
    messages: tuple[tuple[str, str], ...]
    prompt_token_ids: tuple[int, ...]
    serve_time: float
    """Unix seconds."""
