"""Versions to swap between: LoRA policies of a real model, published as the trainer publishes them."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from registry import CanaryPrompt, PolicyState, Registry

MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
RANK, LAYERS = 16, 0.5
"""As `trainer.lora` is shipped."""


def make_policy(model: Path, folder: Path, seed: int) -> Path:
    """`adapter/` and merged `weights/` below `folder`: about half a nat a token from the base, and as much from others
    of another seed, so that what a wrong version computes shows."""
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    depth = base.config.num_hidden_layers
    config = LoraConfig(
        r=RANK,
        lora_alpha=2 * RANK,
        target_modules=list(MODULES),
        layers_to_transform=list(range(depth - round(depth * LAYERS), depth)),
        layers_pattern="layers",
        task_type="CAUSAL_LM",
    )
    generator = torch.Generator().manual_seed(seed)
    adapted = get_peft_model(base, config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if ".lora_B" in name:
                parameter.copy_(0.004 * torch.randn(parameter.shape, generator=generator))
    adapted.save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").unlink(missing_ok=True)
    adapted.merge_and_unload().to(torch.bfloat16).save_pretrained(folder / "weights")
    return folder


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
    model = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.bfloat16).eval()
    found: list[float] = []
    for prompt, answer in zip(prompts, answers, strict=True):
        ids_1S = torch.tensor([[*prompt, *answer]])
        logits_TV = model(input_ids=ids_1S).logits[0, len(prompt) - 1 : -1].float()
        found += logits_TV.log_softmax(-1).gather(-1, torch.tensor(answer)[:, None])[:, 0].tolist()
    return found
