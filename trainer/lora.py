"""Low-rank adapters on a frozen trunk: peft's format and modules, with a forward and backward made for it."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear as PeftLinear
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from settings.ppo import LoraSettings

ADAPTER = "default"


def adapt(model: PreTrainedModel, settings: LoraSettings, seed: int) -> PeftModel:
    """Freeze `model`; put fp32 adapters on every linear layer of its top decoder layers (B = 0: no effect at first)."""
    layers = model.get_decoder().layers
    depth = len(layers)
    linear = {name.rsplit(".", 1)[-1] for name, layer in layers.named_modules() if isinstance(layer, nn.Linear)}
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=0.0,
        target_modules=sorted(linear),
        layers_to_transform=list(range(first_adapted_layer(depth, settings.layers), depth)),
        layers_pattern="layers",
        task_type="CAUSAL_LM",
    )
    config._register_custom_module({nn.Linear: LowRankLinear})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return get_peft_model(model, config, adapter_name=ADAPTER, autocast_adapter_dtype=True)


def saved_weights(directory: Path) -> dict[str, Tensor]:
    """Of an adapter that PEFT wrote. Its own loader would read a pickle, too, and look for what is missing at the hub.

    Raises:
        FileNotFoundError: there are no safetensors.
    """
    weights: dict[str, Tensor] = load_file(directory / SAFETENSORS_WEIGHTS_NAME)
    return weights


@torch.no_grad()
def scale(model: PeftModel, share: float) -> None:
    """s B A becomes share · s B A, in place: an optimiser of the adapters goes on with the same tensors."""
    for layer in model.modules():
        if isinstance(layer, LowRankLinear):
            layer.lora_B[ADAPTER].weight.mul_(share)


def first_adapted_layer(depth: int, share: float) -> int:
    """Index of the lowest of `depth` layers that carries adapters, when the top `share` of them do."""
    return depth - max(1, round(depth * share))


class LowRankLinear(PeftLinear):  # type: ignore[misc]  # peft is untyped
    """x ↦ x Wᵀ + s (x Aᵀ) Bᵀ in the trunk's dtype, A and B kept in fp32.

    peft's own forward casts x to fp32, multiplies there and adds in fp32, keeping all of it for the backward pass;
    on CPU in bf16 that costs more than the trunk itself.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.disable_adapters or self.merged:
            return self.base_layer(x)  # type: ignore[no-any-return]
        base = self.base_layer
        return _LowRankProduct.apply(  # type: ignore[no-any-return, no-untyped-call]
            x,
            base.weight,
            base.bias,
            self.lora_A[ADAPTER].weight,
            self.lora_B[ADAPTER].weight,
            self.scaling[ADAPTER],
        )

    def merged_weight(self, stored: torch.dtype) -> Tensor:
        """W + s B A, added in fp32 and rounded to what it is stored in; in W's dtype."""
        weight = self.base_layer.weight
        a, b = self.lora_A[ADAPTER].weight, self.lora_B[ADAPTER].weight
        return torch.addmm(weight.float(), b, a, alpha=self.scaling[ADAPTER]).to(stored).to(weight.dtype)


class _LowRankProduct(torch.autograd.Function):
    """Saves x (which the layers that read it share) and x Aᵀ; W gets no gradient, being frozen."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scaling: float
    ) -> Tensor:
        low_a, low_b = a.to(x.dtype), (b * scaling).to(x.dtype)
        x_ND = x.reshape(-1, x.shape[-1])
        xa_NR = x_ND @ low_a.T
        y_NE = nn.functional.linear(x_ND, weight, bias).addmm_(xa_NR, low_b.T)
        ctx.save_for_backward(x_ND, weight, low_a, low_b, xa_NR)
        ctx.scaling = scaling
        return y_NE.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x_ND, weight, low_a, low_b, xa_NR = ctx.saved_tensors
        grad_NE = grad.reshape(-1, grad.shape[-1])
        grad_xa_NR = grad_NE @ low_b
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (grad_NE @ weight).addmm_(grad_xa_NR, low_a).view(*grad.shape[:-1], -1)
        grad_a = (grad_xa_NR.T @ x_ND).float()
        grad_b = (grad_NE.T @ xa_NR).float() * ctx.scaling
        return grad_x, None, None, grad_a, grad_b, None
