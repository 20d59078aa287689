"""The adapted linear layer against plain autograd, and peft's own layer."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import AutoModelForCausalLM

from settings.ppo import LoraSettings
from tests.trainer.gradients import gradient
from trainer.lora import LowRankLinear, adapt, first_adapted_layer


@pytest.mark.parametrize("bias", [False, True])
def test_output_and_gradients_agree_with_autograd(bias: bool) -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.proj = nn.Linear(24, 16, bias=bias)

    from peft import LoraConfig

    torch.manual_seed(0)
    config = LoraConfig(r=4)
    layer = LowRankLinear(Block().proj, "default", config=config, r=4, lora_alpha=12)
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    nn.init.normal_(b)
    x, upstream = torch.randn(2, 5, 24, requires_grad=True), torch.randn(2, 5, 16)
    out = layer(x)
    (out * upstream).sum().backward()

    exact_x, exact_a, exact_b = (t.detach().double().requires_grad_() for t in (x, a, b))
    base = layer.base_layer
    exact = exact_x @ base.weight.double().T + 3.0 * (exact_x @ exact_a.T) @ exact_b.T
    if bias:
        exact = exact + base.bias.double()
    (exact * upstream.double()).sum().backward()

    torch.testing.assert_close(out.double(), exact, rtol=1e-5, atol=1e-5)
    for found, expected in ((x, exact_x), (a, exact_a), (b, exact_b)):
        torch.testing.assert_close(gradient(found).double(), gradient(expected), rtol=1e-4, atol=1e-4)
    exact_weight = base.weight.double() + 3.0 * b.double() @ a.double()
    torch.testing.assert_close(layer.merged_weight(torch.float32).double(), exact_weight, rtol=1e-5, atol=1e-5)
    rounded = exact_weight.bfloat16().to(base.weight.dtype)
    torch.testing.assert_close(layer.merged_weight(torch.bfloat16), rounded, rtol=2**-7, atol=1e-6)


def test_only_the_top_layers_carry_adapters_and_only_adapters_train(tiny_model: Path) -> None:
    model = adapt(AutoModelForCausalLM.from_pretrained(tiny_model), LoraSettings(layers=0.5, rank=8), seed=0)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 7 * 2, "A and B, 7 linear layers a block, 2 of 4 blocks"
    assert {name.split(".layers.")[1][0] for name in trained} == {"2", "3"}
    assert all("lora_" in name and p.dtype == torch.float32 for name, p in trained.items())


@pytest.mark.parametrize(("depth", "share", "first"), [(30, 0.5, 15), (30, 1.0, 0), (4, 0.01, 3), (1, 0.5, 0)])
def test_share_of_layers(depth: int, share: float, first: int) -> None:
    assert first_adapted_layer(depth, share) == first


def test_peft_itself_computes_the_same_from_the_saved_adapter(tiny_model: Path, tmp_path: Path) -> None:
    ours = adapt(AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32), LoraSettings(), seed=1)
    for name, parameter in ours.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.02)
    ours.save_pretrained(str(tmp_path))
    theirs = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32), str(tmp_path)
    )
    ids = torch.tensor([[5, 9, 40, 77, 200]])
    with torch.no_grad():
        torch.testing.assert_close(ours(input_ids=ids).logits, theirs(input_ids=ids).logits, rtol=1e-4, atol=1e-4)
