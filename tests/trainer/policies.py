"""Samples, and policies that have left their reference, for tests of the backbone and of PPO."""

import random
from pathlib import Path

import torch
from torch import nn

from settings.ppo import LoraSettings
from trainer.backbone import Backbone
from trainer.tokens import Rollout, Sample


def some_samples(prompts: int = 5, samples_per_prompt: int = 3, *, seed: int = 0) -> list[Sample]:
    """Prompts and responses of many lengths; prompts are shared by neighbours."""
    rng = random.Random(seed)

    def tokens(shortest: int, longest: int) -> tuple[int, ...]:
        return tuple(rng.randrange(3, 256) for _ in range(rng.randint(shortest, longest)))

    distinct = [tokens(1, 20) for _ in range(prompts)]
    return [Sample(prompt, tokens(1, 9)) for prompt in distinct for _ in range(samples_per_prompt)]


def backbone(path: Path, *, layers: float = 0.5, dtype: torch.dtype = torch.float32, moved: float = 0.0) -> Backbone:
    """A backbone whose policy differs from the reference by random adapters of deviation `moved`."""
    made = Backbone(path, LoraSettings(layers=layers, rank=8), dtype=dtype, seed=1)
    if moved:
        generator = torch.Generator().manual_seed(2)
        for name, parameter in made.model.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, std=moved, generator=generator)
    return made


def rollouts_of(policy: Backbone, samples: list[Sample], version: str, group_size: int) -> list[Rollout]:
    """What an engine that serves `policy` as `version` would report of these samples."""
    with torch.no_grad():
        logprobs_BT, _, mask_BT = policy.policy_logprobs(samples, 1.0)
    return [
        Rollout(
            sample=sample,
            text="",
            behaviour_logprobs=tuple(logprobs_BT[b][mask_BT[b]].tolist()),
            finish_reason="stop" if sample.response_ids[-1] in policy.eos_token_ids else "length",
            policy_version=(version,) * len(sample.response_ids),
            temperature=1.0,
            group=b // group_size,
        )
        for b, sample in enumerate(samples)
    ]
