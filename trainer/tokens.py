"""What passes between sampling and learning: prompts and responses as token ids."""

from dataclasses import dataclass
from typing import Literal

IN_TRAINING = "in training"
"""In Rollout.policy_version: the policy that is trained drew it, as it stands when the update begins."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One response to one prompt. The response is not empty, and ends with EOS when it stopped by itself."""

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Rollout:
    """A sample with what its sampler knew of it. Per-token fields run along the response's tokens."""

    sample: Sample
    text: str
    behaviour_logprobs: tuple[float, ...]
    """Nats, under the distribution each token was drawn from (temperature applied)."""
    finish_reason: Literal["stop", "length"]
    policy_version: tuple[str, ...]
    """The version that drew each token: more than one where a swap fell into the response."""
    temperature: float
    group: int
    """Index of the prompt: samples of the same prompt share it."""

    def __post_init__(self) -> None:
        length = len(self.sample.response_ids)
        for name in ("behaviour_logprobs", "policy_version"):
            if len(getattr(self, name)) != length:
                raise ValueError(
                    f"{name} has {len(getattr(self, name))} entries for {length} response tokens; give one a token"
                )
