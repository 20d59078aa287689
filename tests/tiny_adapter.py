"""LoRA versions of a model as the trainer would publish them: the adapter, and the same policy merged."""

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def make_tiny_adapter(base: Path, directory: Path, *, seed: int, rank: int = 8) -> Path:
    """On the upper two layers. B is drawn at random as A is, so that the policy is far from the base's."""
    return make_adapter(base, directory, seed=seed, rank=rank, layers=(2, 3), drawn=".lora_", scale=0.1)


def make_adapter(
    base: Path, directory: Path, *, seed: int, rank: int, layers: Sequence[int], drawn: str, scale: float
) -> Path:
    """Write `adapter/` (PEFT, fp32, on `layers`) and `weights/` (bf16, merged) below `directory`.

    Factors whose names hold `drawn` are normal with deviation `scale`; the others are as PEFT makes them.
    """
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=list(TARGETS),
        layers_to_transform=list(layers),
        layers_pattern="layers",
        task_type="CAUSAL_LM",
    )
    generator = torch.Generator().manual_seed(seed)
    adapted = get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if drawn in name:
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    adapted.save_pretrained(directory / "adapter")
    (directory / "adapter" / "README.md").unlink(missing_ok=True)  # PEFT's model card
    adapted.merge_and_unload().to(torch.bfloat16).save_pretrained(directory / "weights")
    return directory
