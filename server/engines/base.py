"""The one interface between serving and whatever decodes tokens."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to draw tokens: every field set (the API's optionals are resolved before)."""

    temperature: float
    """0 is greedy."""
    top_p: float
    top_k: int
    """0 keeps the whole vocabulary."""
    max_tokens: int
    stop: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    request_id: str
    """Unique among those in flight."""
    prompt_token_ids: tuple[int, ...]
    sampling: Sampling
    candidate_count: int = 1
    background: bool = False
    """Rollouts: scheduled after users."""


@dataclass(frozen=True, slots=True)
class VersionSpan:
    """Completion tokens [start, end) came from `version`."""

    version: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Delta:
    """New tokens of one candidate; the last one of a candidate carries how it finished."""

    candidate_index: int
    text: str
    """Text that became certain; may be empty while a character or a stop string is incomplete."""
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """Nats, one a token, under the distribution the token was drawn from (temperature, top-p and top-k applied)."""
    finish_reason: FinishReason | None = None
    version_spans: tuple[VersionSpan, ...] = ()
    """With finish_reason only: the spans of the whole candidate; they cover every token once."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A verified version on local disk, ready to be loaded."""

    version: str
    directory: Path
    """Merged safetensors (`weights/` of the artifact), or the base model's own directory."""


class EngineDead(RuntimeError):
    """The engine cannot serve any more; the server turns NOT_SERVING."""


class SwapFailed(RuntimeError):
    """The new weights could not be loaded; the message says why. The engine serves what it served before."""


class Engine(Protocol):
    """Decodes tokens under one current version at a time.

    `generate` starts producing at once when iterated; closing the iterator (`aclose`, or cancelling the task that
    iterates) frees the engine's slot. Any number of requests may be in flight, across any number of swaps.
    """

    name: str
    """"vllm" or "transformers"."""

    async def start(self) -> None:
        """Load the base model; returns when ready to serve. Raises EngineDead."""
        ...

    @property
    def version(self) -> str:
        """The version that the next token is drawn from."""
        ...

    @property
    def max_model_len(self) -> int:
        """Prompt and completion tokens together."""
        ...

    def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        """Candidates interleaved. Raises EngineDead."""
        ...

    async def swap(self, weights: Weights) -> None:
        """Switch to `weights` between two tokens; requests in flight continue. Raises SwapFailed, EngineDead."""
        ...

    async def score(
        self, prompt_token_ids: tuple[int, ...], completion_token_ids: tuple[int, ...]
    ) -> tuple[float, ...]:
        """Logprob of each completion token at temperature 1 under the current version, in nats."""
        ...

    async def stop(self) -> None: ...
