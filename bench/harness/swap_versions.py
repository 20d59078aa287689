"""Versions to swap between: LoRA policies of a real model, published as the trainer publishes them."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from registry import CanaryPrompt, PolicyState, Registry
from registry.arithmetic import computed_in
from tests.tiny_adapter import make_adapter

RANK, LAYERS = 16, 0.5
"""As `trainer.lora` is shipped."""


def make_policy(model: Path, folder: Path, seed: int) -> Path:
    """`adapter/` and merged `weights/` below `folder`: about half a nat a token from the base, and as much from others
    of another seed, so that what a wrong version computes shows."""
    depth = AutoConfig.from_pretrained(model).num_hidden_layers
    layers = range(depth - round(depth * LAYERS), depth)
    return make_adapter(model, folder, seed=seed, rank=RANK, layers=layers, drawn=".lora_B", scale=0.004)


def publish(registry: Registry, policy: Path, scratch: Path, step: int, check: tuple[list[int], list[int]]) -> str:
    """A version with the files of `policy`, in state candidate. `check`: prompt and answer of its canary."""
    active = registry.manifest(registry.state().active or "")
    draft = scratch / f"draft-{step}"
    shutil.copytree(policy, draft)
    prompt, answer = check
    logprobs = fresh_logprobs(policy / "weights", [prompt], [answer])
    manifest = registry.publish(
        draft,
        step=step,
        parent=active.version,
        base=active.base,
        base_digest=active.base_digest,
        figures={},
        canary=[CanaryPrompt(prompt_token_ids=prompt, completion_token_ids=answer, logprobs=logprobs)],
    )
    registry.transition(manifest.version, PolicyState.CANDIDATE, reason="bench", actor="trainer")
    return manifest.version


@torch.inference_mode()
def fresh_logprobs(weights: Path, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> list[float]:
    """Logprobs at temperature 1 of all answers' tokens, by Hugging Face, from files loaded for the purpose."""
    model = AutoModelForCausalLM.from_pretrained(weights, dtype=computed_in("auto")).eval()
    found: list[float] = []
    for prompt, answer in zip(prompts, answers, strict=True):
        ids_1S = torch.tensor([[*prompt, *answer]])
        logits_TV = model(input_ids=ids_1S).logits[0, len(prompt) - 1 : -1].float()
        found += logits_TV.log_softmax(-1).gather(-1, torch.tensor(answer)[:, None])[:, 0].tolist()
    return found
