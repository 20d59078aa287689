"""How well heads predict judgements they have not seen, where there are too few to set some aside."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from settings.reward import RewardSettings
from trainer.reward.examples import RewardExample
from trainer.reward.heads import fit
from trainer.reward.heldout import Report, examine


class TooFewConversations(ValueError):
    """Judgements of too few conversations to set any aside."""


def cross_validate(examples: Sequence[RewardExample], settings: RewardSettings, *, folds: int, seed: int = 0) -> Report:
    """The report of scores that no fold's own conversations had a part in.

    Raises:
        TooFewConversations: all examples fall into one fold.
    """
    fold_of = [_fold(example.conversation, folds) for example in examples]
    if len(set(fold_of)) < 2:
        raise TooFewConversations(
            f"{len(examples)} judgements of too few conversations to split in {folds}; collect more"
        )
    scores: list[Tensor] = [torch.empty(0)] * len(examples)
    for fold in sorted(set(fold_of)):
        heads = fit([e for e, f in zip(examples, fold_of, strict=True) if f != fold], settings, seed=seed)
        for index, example in enumerate(examples):
            if fold_of[index] == fold:
                scores[index] = heads.scores(example.features_AF)
    return examine(examples, scores)


def _fold(conversation: str, folds: int) -> int:
    digest = hashlib.blake2b(conversation.encode(), digest_size=8, person=b"fold").digest()
    return int.from_bytes(digest, "big") % folds
