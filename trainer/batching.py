"""Samples laid out for one forward pass: little padding, and a prompt that several samples share computed once.

A row holds one prompt and the responses to it, one after the other. A response token sees the prompt and its own
response, at the positions it would have alone, so every sample gets what it would get in a row of its own:

    prompt p p p p  first a a a  second b b      a sees p, a;  b sees p, b
    position 0 1 2 3        4 5 6         4 5
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.tokens import Sample

ROW_TOKENS = 512
"""Responses join a row up to this length: beyond, attention over the whole row costs more than the prompt saves."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the tokens of B samples lie in R right-padded rows of S tokens; responses padded to T."""

    input_ids_RS: Tensor
    position_ids_RS: Tensor
    attention_mask: Tensor | None
    """[R, 1, S, S] bool; None where each row is one sample, and causal attention alone is right."""
    predictor_BT: Tensor
    """Flat index (into R·S) of the position that predicts each response token."""
    token_BT: Tensor
    """Flat index of each response token itself."""
    prompt_rows: tuple[tuple[int, int], ...]
    """Row and prompt length of each sample."""
    mask_BT: Tensor
    """True at response tokens."""


@dataclass(slots=True)
class _Row:
    prompt_ids: tuple[int, ...]
    members: list[int]
    length: int


def micro_batches(samples: Sequence[Sample], token_budget: int, *, share_prompts: bool) -> list[list[int]]:
    """Split samples into index lists whose rows hold at most `token_budget` tokens, padding included.

    Rows of like length go together. A row longer than the budget makes a batch of its own.
    """
    rows = sorted(_rows(samples, share_prompts), key=lambda row: row.length, reverse=True)
    batches: list[list[int]] = []
    room = 0
    width = 0
    for row in rows:
        if room == 0:
            width = row.length
            room = max(1, token_budget // width)
            batches.append([])
        batches[-1].extend(row.members)
        room -= 1
    return batches


def lay_out(samples: Sequence[Sample], pad_id: int, *, share_prompts: bool) -> Layout:
    """Rows, masks and indices of `samples`, on CPU."""
    rows = _rows(samples, share_prompts)
    width = max(row.length for row in rows)
    longest = max(len(sample.response_ids) for sample in samples)
    input_ids_RS = torch.full((len(rows), width), pad_id)
    position_ids_RS = torch.zeros((len(rows), width), dtype=torch.long)
    segment_RS = torch.full((len(rows), width), -1)
    predictor_BT = torch.zeros((len(samples), longest), dtype=torch.long)
    token_BT = torch.zeros((len(samples), longest), dtype=torch.long)
    mask_BT = torch.zeros((len(samples), longest), dtype=torch.bool)
    prompt_rows = [(0, 0)] * len(samples)
    for r, row in enumerate(rows):
        prompt = len(row.prompt_ids)
        input_ids_RS[r, :prompt] = torch.tensor(row.prompt_ids)
        position_ids_RS[r, :prompt] = torch.arange(prompt)
        segment_RS[r, :prompt] = 0
        start = prompt
        for segment, b in enumerate(row.members, start=1):
            response = samples[b].response_ids
            end = start + len(response)
            input_ids_RS[r, start:end] = torch.tensor(response)
            position_ids_RS[r, start:end] = torch.arange(prompt, prompt + len(response))
            segment_RS[r, start:end] = segment
            token_BT[b, : len(response)] = torch.arange(start, end) + r * width
            predictor_BT[b, : len(response)] = torch.tensor([prompt - 1, *range(start, end - 1)]) + r * width
            mask_BT[b, : len(response)] = True
            prompt_rows[b] = (r, prompt)
            start = end
    shared = any(len(row.members) > 1 for row in rows)
    return Layout(
        input_ids_RS,
        position_ids_RS,
        _attention_mask(segment_RS) if shared else None,
        predictor_BT,
        token_BT,
        tuple(prompt_rows),
        mask_BT,
    )


def _rows(samples: Sequence[Sample], share_prompts: bool) -> list[_Row]:
    rows: list[_Row] = []
    open_rows: dict[tuple[int, ...], _Row] = {}
    for index, sample in enumerate(samples):
        row = open_rows.get(sample.prompt_ids) if share_prompts else None
        if row is None or row.length + len(sample.response_ids) > ROW_TOKENS:
            row = open_rows[sample.prompt_ids] = _Row(sample.prompt_ids, [], len(sample.prompt_ids))
            rows.append(row)
        row.members.append(index)
        row.length += len(sample.response_ids)
    return rows


def _attention_mask(segment_RS: Tensor) -> Tensor:
    """Causal, and only the prompt (segment 0) or one's own segment; padding (-1) sees padding, so no row is empty."""
    width = segment_RS.shape[1]
    causal_SS = torch.ones(width, width, dtype=torch.bool).tril()
    query_RS1, key_R1S = segment_RS[:, :, None], segment_RS[:, None, :]
    return (causal_SS & ((key_R1S == 0) | (key_R1S == query_RS1)))[:, None]
