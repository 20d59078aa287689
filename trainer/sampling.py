"""The trainer's own sampling: batched, with a key-value cache."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from trainer.packed import packed
from trainer.tokens import Sample

ROWS = 64
"""Prompts decoded at a time."""


@dataclass(frozen=True, slots=True)
class Draw:
    """A sample, and the distributions that its T tokens were drawn from."""

    sample: Sample
    logprobs_T: Tensor
    """float32, nats, temperature applied; 0 where it is 0."""
    entropy_T: Tensor
    """float32, nats."""


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
) -> list[Draw]:
    """One response a prompt, in the prompts' order; temperature 0 is greedy. The same seed gives the same answers."""
    generator = torch.Generator(model.device).manual_seed(seed)
    by_length = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    draws: dict[int, Draw] = {}
    with packed(model, min(ROWS, len(prompts))):
        for start in range(0, len(prompts), ROWS):
            chosen = by_length[start : start + ROWS]
            drawn = _decode(
                model, [prompts[i] for i in chosen], max_new_tokens, temperature, eos_token_ids, pad_id, generator
            )
            draws |= dict(zip(chosen, drawn, strict=True))
    return [draws[index] for index in range(len(prompts))]


def _decode(
    model: PreTrainedModel,
    prompts: list[tuple[int, ...]],
    max_new_tokens: int,
    temperature: float,
    eos_token_ids: frozenset[int],
    pad_id: int,
    generator: torch.Generator,
) -> list[Draw]:
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    distinct = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
    asked = torch.tensor([distinct[prompt] for prompt in prompts], device=model.device)
    input_ids, attention = _left_pad(list(distinct), pad_id, model.device)
    position_ids = (attention.cumsum(-1) - 1).clamp_(min=0)
    cache = DynamicCache(config=model.config)
    steps: list[tuple[Tensor, ...]] = []
    alive = torch.arange(len(prompts), device=model.device)
    ends = torch.tensor(sorted(eos_token_ids), device=model.device, dtype=torch.long)
    for step in range(max_new_tokens):
        hidden_BSD = decoder(
            input_ids=input_ids,
            attention_mask=attention,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        # Indexed before the head: given a slice of a longer tensor, PyTorch copies the head once a row.
        last_BD = hidden_BSD[:, -1].contiguous()
        if step == 0:  # every prompt was read once, however many answers are drawn to it
            last_BD, attention, position_ids = last_BD[asked], attention[asked], position_ids[asked]
            cache.batch_select_indices(asked)
        tokens_B, logprobs_B, entropy_B = _draw(head(last_BD).float(), temperature, generator)
        steps.append((alive, tokens_B, logprobs_B, entropy_B))
        kept = (~torch.isin(tokens_B, ends)).nonzero().flatten()
        if not len(kept):
            break
        if len(kept) < len(alive):
            alive = alive[kept]
            cache.batch_select_indices(kept)
        input_ids = tokens_B[kept, None]
        position_ids = position_ids[kept, -1:] + 1
        attention = torch.cat([attention[kept], attention.new_ones(len(kept), 1)], dim=1)
    return _by_row(prompts, steps)


def _by_row(prompts: list[tuple[int, ...]], steps: list[tuple[Tensor, ...]]) -> list[Draw]:
    """`steps`: rows that were still being written, and for each its token, logprob and entropy."""
    rows_N, tokens_N, logprobs_N, entropy_N = (torch.cat(column) for column in zip(*steps, strict=True))
    draws = []
    for row, prompt in enumerate(prompts):
        own_N = rows_N == row
        draws.append(Draw(Sample(prompt, tuple(tokens_N[own_N].tolist())), logprobs_N[own_N], entropy_N[own_N]))
    return draws


def _draw(logits_BV: Tensor, temperature: float, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """(tokens_B, logprobs_B, entropy_B), by inverting the cumulative distribution: one random number a row, not one a
    vocabulary entry."""
    if temperature == 0:
        zeros_B = logits_BV.new_zeros(len(logits_BV))
        return logits_BV.argmax(-1), zeros_B, zeros_B
    logprobs_BV = torch.log_softmax(logits_BV / temperature, -1)
    probs_BV = logprobs_BV.exp()
    entropy_B = -torch.linalg.vecdot(probs_BV, logprobs_BV)
    cumulative_BV = probs_BV.cumsum(-1)
    uniform_B1 = torch.rand(len(logits_BV), 1, generator=generator, device=logits_BV.device)
    threshold_B1 = uniform_B1 * cumulative_BV[:, -1:]
    tokens_B1 = torch.searchsorted(cumulative_BV, threshold_B1, right=True).clamp_(max=logits_BV.shape[-1] - 1)
    return tokens_B1.squeeze(-1), logprobs_BV.gather(-1, tokens_B1).squeeze(-1), entropy_B


def _left_pad(prompts: list[tuple[int, ...]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([(pad_id,) * (width - len(prompt)) + prompt for prompt in prompts], device=device)
    lengths = torch.tensor([[len(prompt)] for prompt in prompts], device=device)
    attention = (torch.arange(width, device=device) >= width - lengths).long()
    return ids, attention
