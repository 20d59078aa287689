"""A LoRA version of the tiny model as the trainer would publish it: the adapter, and the same policy merged."""

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def make_tiny_adapter(base: Path, directory: Path, *, seed: int, rank: int = 8) -> Path:
    """Write `adapter/` (PEFT, fp32, on the upper two layers) and `weights/` (bf16, merged) below `directory`.

    B is drawn at random as A is, so that the policy is far from the base's.
    """
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=list(TARGETS),
        layers_to_transform=[2, 3],
        layers_pattern="layers",
        task_type="CAUSAL_LM",
    )
    generator = torch.Generator().manual_seed(seed)
    adapted = get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if ".lora_" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    adapted.save_pretrained(directory / "adapter")
    (directory / "adapter" / "README.md").unlink(missing_ok=True)  # PEFT's model card
    adapted.merge_and_unload().to(torch.bfloat16).save_pretrained(directory / "weights")
    return directory
