"""The trainer's own sampling: batched, with a key-value cache."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from trainer.tokens import Sample

ROWS = 64
"""Prompts decoded at a time."""


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    prompts: Sequence[tuple[int, ...]],
    *,
    max_new_tokens: int,
    temperature: float,
    eos_token_ids: frozenset[int],
    pad_id: int,
    seed: int,
) -> list[Sample]:
    """One response a prompt, in the prompts' order; temperature 0 is greedy. The same seed gives the same answers."""
    generator = torch.Generator(model.device).manual_seed(seed)
    by_length = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    samples: dict[int, Sample] = {}
    for start in range(0, len(prompts), ROWS):
        chosen = by_length[start : start + ROWS]
        responses = _decode(
            model, [prompts[i] for i in chosen], max_new_tokens, temperature, eos_token_ids, pad_id, generator
        )
        samples |= {i: Sample(prompts[i], tuple(r)) for i, r in zip(chosen, responses, strict=True)}
    return [samples[index] for index in range(len(prompts))]


def _decode(
    model: PreTrainedModel,
    prompts: list[tuple[int, ...]],
    max_new_tokens: int,
    temperature: float,
    eos_token_ids: frozenset[int],
    pad_id: int,
    generator: torch.Generator,
) -> list[list[int]]:
    input_ids, attention = _left_pad(prompts, pad_id, model.device)
    position_ids = (attention.cumsum(-1) - 1).clamp_(min=0)
    cache = DynamicCache(config=model.config)
    responses: list[list[int]] = [[] for _ in prompts]
    alive = list(range(len(prompts)))
    for _ in range(max_new_tokens):
        logits = model(
            input_ids=input_ids,
            attention_mask=attention,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        tokens = _draw(logits.float(), temperature, generator)
        for row, token in zip(alive, tokens.tolist(), strict=True):
            responses[row].append(token)
        going = [i for i, token in enumerate(tokens.tolist()) if token not in eos_token_ids]
        if not going:
            break
        kept = torch.tensor(going, device=model.device)
        if len(going) < len(alive):
            alive = [alive[i] for i in going]
            cache.batch_select_indices(kept)
        input_ids = tokens[kept, None]
        position_ids = position_ids[kept, -1:] + 1
        attention = torch.cat([attention[kept], attention.new_ones(len(going), 1)], dim=1)
    return responses


def _draw(logits_BV: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """One token a row by inverting the cumulative distribution: one random number a row, not one a vocabulary entry."""
    if temperature == 0:
        return logits_BV.argmax(-1)
    cumulative_BV = torch.softmax(logits_BV / temperature, -1).cumsum(-1)
    uniform_B1 = torch.rand(len(logits_BV), 1, generator=generator, device=logits_BV.device)
    threshold_B1 = uniform_B1 * cumulative_BV[:, -1:]
    return torch.searchsorted(cumulative_BV, threshold_B1, right=True).squeeze(-1).clamp_(max=logits_BV.shape[-1] - 1)


def _left_pad(prompts: list[tuple[int, ...]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([(pad_id,) * (width - len(prompt)) + prompt for prompt in prompts], device=device)
    lengths = torch.tensor([[len(prompt)] for prompt in prompts], device=device)
    attention = (torch.arange(width, device=device) >= width - lengths).long()
    return ids, attention
