"""The one interface between serving and whatever decodes tokens."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

FinishReason = Literal["stop", "length"]
SwapMode = Literal["weights", "adapter"]
"""weights: one version at a time, each put in the place of the last between two tokens. adapter: several at once."""


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
    version: str = ""
    """Which version draws the tokens, where the engine has several; one that it has not, or none, means the current
    one. What drew them in the end is in the spans."""


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
    """Merged safetensors (`weights/` of the artifact), or the base model's own directory; or see `adapter`."""
    adapter: bool = False
    """`directory` holds a LoRA adapter on the base model, in PEFT's form (`adapter/` of the artifact)."""


class EngineDead(RuntimeError):
    """The engine cannot serve any more; the server turns NOT_SERVING."""


class SwapFailed(RuntimeError):
    """The new weights could not be loaded; the message says why. The engine serves what it served before."""


class Engine(Protocol):
    """Decodes tokens under one current version; in mode `adapter`, under others beside it for requests that name them.

    `generate` starts producing at once when iterated; closing the iterator (`aclose`, or cancelling the task that
    iterates) frees the engine's slot. Any number of requests may be in flight, across any number of swaps.
    """

    name: str
    """"vllm" or "transformers"."""
    swap_mode: SwapMode

    async def start(self) -> None:
        """Load the base model; returns when ready to serve. Raises EngineDead."""
        ...

    async def died(self) -> str:
        """Returns within seconds of the engine's end, also when nobody asks anything of it, with the reason."""
        ...

    @property
    def version(self) -> str:
        """The current version: requests that name none, and begin now, get it."""
        ...

    @property
    def max_model_len(self) -> int:
        """Prompt and completion tokens together."""
        ...

    def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        """Candidates interleaved. Raises EngineDead."""
        ...

    async def swap(self, weights: Weights) -> None:
        """Make `weights` the current version. Requests in flight continue: in mode `weights` under the new version from
        their next token on, in mode `adapter` under the one they began with, which is let go when the last has ended.

        Raises SwapFailed, EngineDead.
        """
        ...

    async def load(self, weights: Weights) -> None:
        """Have `weights` beside the current version, until they are unloaded or swapped in and out again.

        Raises SwapFailed: also in mode `weights`, where there is no beside. EngineDead.
        """
        ...

    async def unload(self, version: str) -> None:
        """Let a version go that was loaded and is not current, once its requests have ended."""
        ...

    async def score(
        self, prompt_token_ids: tuple[int, ...], completion_token_ids: tuple[int, ...], version: str = ""
    ) -> tuple[float, ...]:
        """Logprob of each completion token at temperature 1, in nats, under `version` (as in GenerationRequest).

        Waits for no request to end, and none makes room for it.
        """
        ...

    async def stop(self) -> None: ...
