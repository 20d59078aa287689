"""Judgements as the reward model keeps them: whose, how sure, and the features of what was judged. No text."""

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from feedback.judgement import Judgement
from settings.trainer import TrainerSettings
from trainer.backbone import Backbone
from trainer.holdout import place
from trainer.reward.choices import Choice, absolute, ranking
from trainer.reward.features import AnswerPool
from trainer.tokens import Sample

Featurise = Callable[[list[Sample]], Tensor]
"""Features [B, F] of samples, as `AnswerPool` makes them."""


@dataclass(frozen=True, eq=False, slots=True)
class RewardExample:
    """A judgement to learn from."""

    feedback_id: str
    sequence: int
    """Later judgements have larger ones."""
    key: str
    """A later example with the same key takes this one's place."""
    conversation: str
    held_out: bool
    """Never trained on: decides on promotion and readiness."""
    rater: str
    source: int
    """A FeedbackSource."""
    kind: str
    """thumbs, rating, ranking or demonstration."""
    tiers: tuple[tuple[int, ...], ...]
    """Rows of `features_AF`, best tier first; empty for thumbs and ratings."""
    rejected_all: bool
    score: float | None
    """Thumbs and ratings: in [0, 1]."""
    lengths: tuple[int, ...]
    """Characters of every answer."""
    features_AF: Tensor

    @property
    def stratum(self) -> tuple[str, int]:
        return self.kind, self.source

    def choices(self) -> list[Choice]:
        """What the rater chose, over the rows of `features_AF`."""
        if self.score is not None:
            return absolute(len(self.lengths), self.score)
        return ranking(self.tiers, self.rejected_all)

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


class Featuriser:
    """Turns judgements into examples; features of an answer are computed once while the cache holds it."""

    def __init__(
        self,
        featurise: Featurise,
        tokenizer: PreTrainedTokenizerBase,
        *,
        cache_size: int,
        prompt_tokens: int,
        response_tokens: int,
        held_out_fraction: float,
    ) -> None:
        """Longer prompts lose their beginning, longer responses their end."""
        self._featurise = featurise
        self._tokenizer = tokenizer
        self._cache_size = cache_size
        self._prompt_tokens = prompt_tokens
        self._response_tokens = response_tokens
        self._held_out_fraction = held_out_fraction
        self._cache: OrderedDict[bytes, Tensor] = OrderedDict()

    @classmethod
    def over(cls, backbone: Backbone, pool: AnswerPool, settings: TrainerSettings) -> Self:
        """Of the frozen trunk's features, as settings say."""
        return cls(
            lambda samples: backbone.features(samples, pool),
            backbone.tokenizer,
            cache_size=settings.reward.feature_cache,
            prompt_tokens=settings.reward.prompt_tokens,
            response_tokens=settings.reward.response_tokens,
            held_out_fraction=settings.held_out_fraction,
        )

    def examples(self, judgements: Sequence[Judgement]) -> list[RewardExample]:
        """One example each; comments and judgements without an answer have nothing to learn from and are left out."""
        usable = [j for j in judgements if j.kind != "comment" and j.answers]
        samples = [self._samples(j) for j in usable]
        features_NF = self.features([sample for group in samples for sample in group])
        rows = torch.split(features_NF, [len(group) for group in samples]) if usable else ()
        return [
            _example(j, features_AF, held_out=place(j.messages, j.conversation_id) < self._held_out_fraction)
            for j, features_AF in zip(usable, rows, strict=True)
        ]

    def features(self, samples: Sequence[Sample]) -> Tensor:
        """[B, F], from the cache where it has them."""
        keys = [_digest(sample) for sample in samples]
        known = {key: self._cache[key] for key in keys if key in self._cache}
        missing = {key: s for key, s in zip(keys, samples, strict=True) if key not in known}
        if missing:
            known.update(zip(missing, self._featurise(list(missing.values())).unbind(), strict=True))
        for key in keys:
            self._cache[key] = known[key]
            self._cache.move_to_end(key)
        while len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)
        return torch.stack([known[key] for key in keys]) if keys else torch.empty(0, 0)

    def _samples(self, judgement: Judgement) -> list[Sample]:
        prompt_ids = judgement.prompt_token_ids or self._prompt_ids(judgement.messages)
        prompt_ids = prompt_ids[-self._prompt_tokens :]
        responses = [answer.token_ids or self._response_ids(answer.text) for answer in judgement.answers]
        if judgement.kind == "demonstration":
            responses.append(self._response_ids(judgement.text))
        return [Sample(prompt_ids, response_ids[: self._response_tokens]) for response_ids in responses]

    def _prompt_ids(self, messages: tuple[tuple[str, str], ...]) -> tuple[int, ...]:
        chat = [{"role": role, "content": content} for role, content in messages]
        encoded = self._tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)
        return tuple(encoded["input_ids"])

    def _response_ids(self, text: str) -> tuple[int, ...]:
        # What a person wrote is words, a control token that they typed, too.
        ids = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return (*ids, self._tokenizer.eos_token_id)


def _example(judgement: Judgement, features_AF: Tensor, *, held_out: bool) -> RewardExample:
    tiers = judgement.tiers
    lengths = tuple(len(answer.text) for answer in judgement.answers)
    if judgement.kind == "demonstration":  # the edit, which is the last row, beats what was edited
        tiers = ((len(lengths),), tuple(range(len(lengths))))
        lengths += (len(judgement.text),)
    answers = ",".join(sorted(answer.candidate_id for answer in judgement.answers))
    rater = f"{judgement.tenant}/{judgement.rater_id}"
    return RewardExample(
        feedback_id=judgement.feedback_id,
        sequence=judgement.sequence,
        key=f"{rater}/{judgement.response_id}/{judgement.kind}/{answers}",
        conversation=judgement.conversation_id,
        held_out=held_out,
        rater=rater,
        source=judgement.source,
        kind=judgement.kind,
        tiers=tiers,
        rejected_all=judgement.rejected_all,
        score=judgement.score,
        lengths=lengths,
        features_AF=features_AF,
    )


def _digest(sample: Sample) -> bytes:
    digest = hashlib.blake2b(array("q", sample.prompt_ids).tobytes(), digest_size=16)
    digest.update(b"|" + array("q", sample.response_ids).tobytes())
    return digest.digest()
