"""Continuous batching over a Hugging Face model: sequences join and leave the batch between two tokens.

The batch is left-padded: every row ends at the same column, so all rows append their next key and value together.
Shapes: B rows, L columns of the cache, N joining rows, V vocabulary.
"""

from collections.abc import Sequence as Rows
from dataclasses import dataclass, field
from random import Random

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache, PreTrainedModel

from server.engines.base import Delta, FinishReason, GenerationRequest, VersionSpan
from server.engines.detokenize import TextStream
from server.engines.sampling import draw, processed_logprobs


@dataclass(eq=False)
class Sequence:
    """One candidate on its way. It can be taken off the batch and put back: its tokens are all that it needs."""

    request: GenerationRequest
    candidate_index: int
    text: TextStream
    random: Random
    output_ids: list[int] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)
    """The version that each output token was drawn from."""
    done: bool = False
    """Finished or cancelled: leaves the batch before the next token."""

    @property
    def token_ids(self) -> tuple[int, ...]:
        return (*self.request.prompt_token_ids, *self.output_ids)

    def append(self, token_id: int, logprob: float, version: str, eos: frozenset[int], max_model_len: int) -> Delta:
        """Take the drawn token; the Delta says what it means to the reader."""
        self.output_ids.append(token_id)
        self.versions.append(version)
        text = "" if token_id in eos else self.text.push((token_id,))
        finish: FinishReason | None = None
        if token_id in eos or self.text.stopped:
            finish = "stop"
        elif len(self.output_ids) >= self.request.sampling.max_tokens or len(self.token_ids) >= max_model_len:
            finish = "length"
        if finish:
            text += self.text.finish()
            self.done = True
        spans = version_spans(self.versions) if finish else ()
        return Delta(self.candidate_index, text, (token_id,), (logprob,), finish, spans)


def version_spans(versions: Rows[str]) -> tuple[VersionSpan, ...]:
    """Runs of equal versions, in order."""
    starts = [i for i, version in enumerate(versions) if i == 0 or version != versions[i - 1]]
    ends = [*starts[1:], len(versions)]
    return tuple(VersionSpan(versions[s], s, e) for s, e in zip(starts, ends, strict=True) if e > s)


class Batch:
    """The rows being decoded and their key-value cache. All methods run in the engine's compute thread."""

    def __init__(self, model: PreTrainedModel, eos: frozenset[int], max_model_len: int) -> None:
        self.rows: list[Sequence] = []
        self._model = model
        self._eos = eos
        self._max_model_len = max_model_len
        self._cache = DynamicCache()
        self._mask_BL = torch.zeros(0, 0, dtype=torch.long, device=model.device)

    @torch.inference_mode()
    def step(self, joining: Rows[Sequence], leaving: Rows[Sequence], version: str) -> list[tuple[Sequence, Delta]]:
        """One token for every row: those that were here decode, those that join prefill first."""
        self._keep([row for row in self.rows if not row.done and row not in leaving])
        logits = [self._decode()] if self.rows else []
        if joining:
            logits.append(self._prefill(joining))
            self.rows += joining
        if not self.rows:
            return []
        samplings = [row.request.sampling for row in self.rows]
        logprobs_BV = processed_logprobs(torch.cat(logits), samplings)
        ids_B = draw(logprobs_BV, samplings, [row.random.random() for row in self.rows])
        logprobs = logprobs_BV.gather(1, ids_B[:, None])[:, 0].tolist()
        return [
            (row, row.append(token_id, logprob, version, self._eos, self._max_model_len))
            for row, token_id, logprob in zip(self.rows, ids_B.tolist(), logprobs, strict=True)
        ]

    def _keep(self, staying: list[Sequence]) -> None:
        """Drop the other rows, and the columns that only they used."""
        if len(staying) == len(self.rows):
            return
        index_B = torch.tensor([self.rows.index(row) for row in staying], dtype=torch.long, device=self._mask_BL.device)
        self.rows = staying
        if not staying:
            self._cache, self._mask_BL = DynamicCache(), self._mask_BL[:0, :0]
            return
        mask_BL = self._mask_BL[index_B]
        first = int(mask_BL.any(dim=0).int().argmax())
        self._mask_BL = mask_BL[:, first:]
        for layer in self._cache.layers:
            layer.keys = layer.keys[index_B, :, first:]
            layer.values = layer.values[index_B, :, first:]

    def _decode(self) -> Tensor:
        """Logits [B, V] after each row's last token."""
        last_B1 = torch.tensor([[row.output_ids[-1]] for row in self.rows], device=self._mask_BL.device)
        self._mask_BL = pad(self._mask_BL, (0, 1), value=1)
        return self._forward(last_B1, self._mask_BL, self._cache)

    def _prefill(self, joining: Rows[Sequence]) -> Tensor:
        """Logits [N, V] after each joining row's tokens; candidates of one prompt share the work."""
        distinct = list(dict.fromkeys(row.token_ids for row in joining))
        width = max(map(len, distinct))
        ids = torch.tensor([[0] * (width - len(ids)) + list(ids) for ids in distinct])
        mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in distinct])
        cache = DynamicCache()
        device = self._mask_BL.device
        logits = self._forward(ids.to(device), mask.to(device), cache)
        index_N = torch.tensor([distinct.index(row.token_ids) for row in joining], device=device)
        cache.batch_select_indices(index_N)
        self._merge(cache, mask.to(device)[index_N])
        return logits[index_N]

    def _forward(self, ids: Tensor, mask: Tensor, cache: DynamicCache) -> Tensor:
        positions = (mask.cumsum(dim=-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        output = self._model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, logits_to_keep=1
        )
        logits: Tensor = output.logits[:, -1]
        return logits

    def _merge(self, cache: DynamicCache, mask_NL: Tensor) -> None:
        """Put the rows of `cache` below those of the batch, both padded on the left to the longer."""
        if not self.rows:
            self._cache, self._mask_BL = cache, mask_NL
            return
        width = max(self._mask_BL.shape[1], mask_NL.shape[1])
        old, new = width - self._mask_BL.shape[1], width - mask_NL.shape[1]
        self._mask_BL = torch.cat([pad(self._mask_BL, (old, 0)), pad(mask_NL, (new, 0))])
        for mine, theirs in zip(self._cache.layers, cache.layers, strict=True):
            mine.keys = torch.cat([pad(mine.keys, (0, 0, old, 0)), pad(theirs.keys, (0, 0, new, 0))])
            mine.values = torch.cat([pad(mine.values, (0, 0, old, 0)), pad(theirs.values, (0, 0, new, 0))])
