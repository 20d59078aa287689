"""The one language model of the trainer: a frozen trunk, and the policy's adapters on it."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from settings.ppo import LoraSettings
from trainer import attention, lora_merge, lower_trunk, sampling
from trainer.batching import Layout, lay_out, micro_batches
from trainer.logprobs import token_logprobs
from trainer.lora import adapt, first_adapted_layer, saved_weights, scale
from trainer.lower_trunk import LowerStates
from trainer.tokens import Sample
from trainer.upper_trunk import UpperTrunk


class Pool(Protocol):
    """Makes something (features, mostly) of the trunk's states at a response's tokens."""

    def layers(self, depth: int) -> tuple[int, ...]:
        """Which layers' inputs it reads, of a trunk of `depth` layers; 0 is the embeddings' output."""
        ...

    def __call__(self, states_BTD: tuple[Tensor, ...], tokens_BT: Tensor, response_mask_BT: Tensor) -> Tensor:
        """A row for each response: features_BF, say. States and token ids of what the mask leaves out are anything."""
        ...


@dataclass(frozen=True, slots=True)
class FrozenPass:
    """What the trunk alone says of one sample of T response tokens; S tokens with its prompt."""

    reference_logprobs_T: Tensor
    """float32, nats: the trunk is the reference policy."""
    hidden_TD: Tensor
    """The final hidden state that predicts each response token: what the value head reads."""
    pooled: Tensor | None
    """What `pool` made of the sample: its row, padded as the longest response it was computed with. None without it."""
    lower: LowerStates | None
    """Inputs of the lowest adapted layer at prompt_PD and at response_TD, the same for reference and policy. None where
    every layer is adapted."""


class Backbone:
    """Reference (adapters off) and policy (adapters on) over one copy of the weights.

    Args:
        model_path: a directory or hub name of a causal language model with a chat template.
        dtype: of the frozen trunk; adapters are float32.
        seed: of the adapters' initial values.

    Raises:
        ValueError: the model's logits are not its head times its final hidden state.
    """

    def __init__(
        self,
        model_path: str | Path,
        lora: LoraSettings,
        *,
        dtype: torch.dtype = torch.bfloat16,
        seed: int = 0,
        token_budget: int = 1024,
    ) -> None:
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(model_path)
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            model_path, dtype=dtype, attn_implementation=attention.NAME
        ).eval()
        self.stored = _narrower(AutoConfig.from_pretrained(model_path).dtype, dtype)
        """The dtype of published weights."""
        self.eos_token_ids = _eos_token_ids(model, self.tokenizer)
        self.token_budget = token_budget
        self._share_prompts = _attends_everywhere(model)
        self._decoder: nn.Module = model.get_decoder()
        self._head_VD: Tensor = model.get_output_embeddings().weight
        self._pad_id = min(self.eos_token_ids)
        self._depth = int(model.config.num_hidden_layers)
        self._split = first_adapted_layer(self._depth, lora.layers)
        self.model: PeftModel = adapt(model, lora, seed)
        self._upper = UpperTrunk(self._decoder, self._split)
        self._check_head()

    @property
    def hidden_size(self) -> int:
        """D."""
        return int(self._head_VD.shape[1])

    @property
    def vocabulary(self) -> int:
        """V."""
        return int(self._head_VD.shape[0])

    @property
    def dtype(self) -> torch.dtype:
        """Of the trunk."""
        return self._head_VD.dtype

    @property
    def device(self) -> torch.device:
        return self._head_VD.device

    def parameters(self) -> list[nn.Parameter]:
        """The adapters."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def micro_batches(self, samples: Sequence[Sample]) -> list[list[int]]:
        """Indices of samples that fit one pass together."""
        return micro_batches(samples, self.token_budget, share_prompts=self._share_prompts)

    @torch.no_grad()
    def frozen(self, samples: Sequence[Sample], *, temperature: float, pool: Pool | None = None) -> list[FrozenPass]:
        """The reference's logprobs and hidden states, and what `pool` makes of them, of each sample in order."""
        passes: dict[int, FrozenPass] = {}
        with self.model.disable_adapter():
            for batch in self.micro_batches(samples):
                found = self._frozen_batch([samples[i] for i in batch], temperature, pool)
                passes |= dict(zip(batch, found, strict=True))
        return [passes[index] for index in range(len(samples))]

    @torch.no_grad()
    def features(self, samples: Sequence[Sample], pool: Pool) -> Tensor:
        """[B, F], the same as `frozen` gives, from the trunk's layers up to the last that `pool` reads."""
        features: dict[int, Tensor] = {}
        wanted = pool.layers(self._depth)
        with self.model.disable_adapter():
            for batch in self.micro_batches(samples):
                layout = self._lay_out([samples[i] for i in batch])
                states_RSD = lower_trunk.lower_states(self._decoder, wanted, **_inputs(layout))
                features |= dict(zip(batch, _pooled(states_RSD, layout, pool), strict=True))
        return torch.stack([features[index] for index in range(len(samples))])

    def policy_logprobs(
        self,
        samples: Sequence[Sample],
        temperature: float,
        frozen: Sequence[FrozenPass] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The policy's logprobs of the samples, in one pass; `frozen` (of the same samples) saves the lower layers.

        Returns:
            (logprobs_BT, entropy_BT, mask_BT): float32 nats, 0 past a response's end. The entropy carries no gradient.
        """
        layout = self._lay_out(samples)
        kept = [each.lower for each in frozen or () if each.lower is not None]
        lower_RSD = lower_trunk.put(kept, layout) if kept else None
        with self._upper.starting_from(lower_RSD) if lower_RSD is not None else nullcontext():
            hidden_RSD = self._hidden(layout)[-1]
        mask_BT = layout.mask_BT
        hidden_ND = hidden_RSD.flatten(0, 1)[layout.predictor_BT[mask_BT]]
        tokens_N = layout.input_ids_RS.flatten()[layout.token_BT[mask_BT]]
        logprobs_N, entropy_N = token_logprobs(hidden_ND, self._head_VD, tokens_N, temperature)
        zeros_BT = torch.zeros(mask_BT.shape, device=self.device)
        return (
            zeros_BT.masked_scatter(mask_BT, logprobs_N),
            zeros_BT.masked_scatter(mask_BT, entropy_N),
            mask_BT,
        )

    def generate(
        self, prompts: list[tuple[int, ...]], *, max_new_tokens: int, temperature: float, seed: int
    ) -> list[Sample]:
        """Sample the policy as it would be served (merged weights), one response a prompt."""
        drawn = self.draw(prompts, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
        return [each.sample for each in drawn]

    def draw(
        self, prompts: list[tuple[int, ...]], *, max_new_tokens: int, temperature: float, seed: int
    ) -> list[sampling.Draw]:
        """The same as `generate`, with the logprobs that the merged weights gave each token."""
        with lora_merge.merged(self.model, self.stored):
            return sampling.sample(
                self.model.get_base_model(),
                prompts,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                eos_token_ids=self.eos_token_ids,
                pad_id=self._pad_id,
                seed=seed,
            )

    def save_adapter(self, directory: Path) -> None:
        """adapter_config.json and adapter_model.safetensors, as PEFT and vLLM read them."""
        self.model.save_pretrained(str(directory), safe_serialization=True)

    def load_adapter(self, directory: Path) -> None:
        """Take the adapter weights that `save_adapter` wrote.

        Raises:
            FileNotFoundError: there are no safetensors.
            ValueError: they are of other layers or another rank than this backbone's.
        """
        report = set_peft_model_state_dict(self.model, saved_weights(directory))
        missing = [name for name in report.missing_keys if "lora_" in name]
        if missing or report.unexpected_keys:
            raise ValueError(
                f"adapter {directory}: {len(missing)} tensors missing, {len(report.unexpected_keys)} unknown "
                f"(first: {[*missing, *report.unexpected_keys][0]}); use the lora settings it was trained with"
            )

    def holds(self, directory: Path) -> bool:
        """Whether the adapter that `save_adapter` wrote there is, bit for bit, the present one."""
        saved, own = saved_weights(directory), get_peft_model_state_dict(self.model)
        return saved.keys() == own.keys() and all(torch.equal(saved[name], own[name].cpu()) for name in saved)

    def scale_adapter(self, share: float) -> None:
        """W + s B A becomes W + share · s B A."""
        scale(self.model, share)

    def save_merged(self, directory: Path) -> None:
        """A complete model directory: safetensors of W + s B A in `stored`, config and tokenizer."""
        lora_merge.save_merged(self.model, directory, self.stored)
        self.tokenizer.save_pretrained(directory)

    def _lay_out(self, samples: Sequence[Sample]) -> Layout:
        return lay_out(samples, self._pad_id, share_prompts=self._share_prompts)

    def _hidden(self, layout: Layout, *, every_layer: bool = False) -> tuple[Tensor, ...]:
        output = self._decoder(**_inputs(layout), use_cache=False, output_hidden_states=every_layer)
        return (*(output.hidden_states or ()), output.last_hidden_state)

    def _frozen_batch(self, samples: Sequence[Sample], temperature: float, pool: Pool | None) -> list[FrozenPass]:
        layout = self._lay_out(samples)
        *layers, final_RSD = self._hidden(layout, every_layer=True)
        mask_BT = layout.mask_BT
        hidden_ND = final_RSD.flatten(0, 1)[layout.predictor_BT[mask_BT]]
        tokens_N = layout.input_ids_RS.flatten()[layout.token_BT[mask_BT]]
        logprobs_N, _ = token_logprobs(hidden_ND, self._head_VD, tokens_N, temperature)
        pooled = None
        if pool is not None:
            pooled = _pooled([layers[index] for index in pool.layers(self._depth)], layout, pool)
        lengths = [len(sample.response_ids) for sample in samples]
        return [
            FrozenPass(
                reference_logprobs_T=logprobs_T.clone(),
                hidden_TD=hidden_TD.clone(),
                pooled=None if pooled is None else pooled[b],
                lower=lower_trunk.take(layers[self._split], layout, b) if self._split else None,
            )
            for b, (logprobs_T, hidden_TD) in enumerate(
                zip(torch.split(logprobs_N, lengths), torch.split(hidden_ND, lengths), strict=True)
            )
        ]

    @torch.no_grad()
    def _check_head(self) -> None:
        token = torch.tensor([[self._pad_id]], device=self.device)
        logits_V = self.model(input_ids=token).logits[0, -1].float()
        hidden_D = self._decoder(input_ids=token, use_cache=False).last_hidden_state[0, -1]
        gap = (self._head_VD.float() @ hidden_D.float() - logits_V).abs().max().item()
        if gap > 0.02 * max(1.0, logits_V.abs().max().item()):
            raise ValueError(
                f"model {self.model.config.name_or_path}: its logits differ by {gap:.3g} from its head times its final "
                "hidden state (a bias, a scale or a cap); choose a model with a plain head"
            )


def _narrower(kept: torch.dtype | None, computed: torch.dtype) -> torch.dtype:
    """Wider than the base model's files are, or than what its values were rounded to, would say no more."""
    return kept if kept is not None and kept.itemsize < computed.itemsize else computed


def _inputs(layout: Layout) -> dict[str, Any]:
    return {
        "input_ids": layout.input_ids_RS,
        "attention_mask": layout.attention_mask,
        "position_ids": layout.position_ids_RS,
    }


def _pooled(states_RSD: Sequence[Tensor], layout: Layout, pool: Pool) -> Tensor:
    states_BTD = tuple(state.flatten(0, 1)[layout.token_BT] for state in states_RSD)
    return pool(states_BTD, layout.input_ids_RS.flatten()[layout.token_BT], layout.mask_BT)


def _attends_everywhere(model: PreTrainedModel) -> bool:
    """Whether every layer is full causal attention, so that a mask of ours may replace the model's own."""
    config = model.config
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    return kinds == {"full_attention"} and not getattr(config, "sliding_window", None)


def _eos_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """What ends a turn: the generation config's tokens and the tokenizer's.

    Raises:
        ValueError: neither names one.
    """
    configured = model.generation_config.eos_token_id if model.generation_config else None
    ids = configured if isinstance(configured, list) else [configured]
    found = frozenset(token for token in (*ids, tokenizer.eos_token_id) if token is not None)
    if not found:
        raise ValueError(f"model {model.config.name_or_path}: no end-of-turn token; set eos_token_id in its config")
    return found
