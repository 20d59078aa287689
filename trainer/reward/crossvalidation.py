"""How well heads predict judgements they have not seen, where there are too few to set some aside."""

import hashlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from settings.reward import RewardSettings
from trainer.reward.examples import RewardExample
from trainer.reward.heads import fit
from trainer.reward.heldout import Report, examine, losses

_COMPARISON_FOLDS = 3
_MEMBERS, _ITERATIONS = 2, 25
"""A comparison needs neither the whole ensemble nor the last digit."""
_CLEARLY = 2.0
"""Standard errors by which a comparison is decided: of several scales, one is better by a single one by chance."""


class TooFewConversations(ValueError):
    """Judgements of too few conversations to set any aside."""


def cross_validate(examples: Sequence[RewardExample], settings: RewardSettings, *, folds: int, seed: int = 0) -> Report:
    """The report of scores that no fold's own conversations had a part in, the tuning's neither.

    Raises:
        TooFewConversations: all examples fall into one fold.
    """
    scores: list[Tensor] = [torch.empty(0)] * len(examples)
    for training, held_out in _splits(examples, folds):
        heads = fit(training, tuned(training, settings, seed=seed), seed=seed)
        for index in held_out:
            scores[index] = heads.scores(examples[index].features_AF)
    return examine(examples, scores)


def tuned(examples: Sequence[RewardExample], settings: RewardSettings, *, seed: int) -> RewardSettings:
    """`settings` with that one of `taste_scales` by which heads predict judgements of unseen conversations best.

    These scales decide how fast a taste for words or style is learned, and how much noise with it. The first stands
    where none is clearly better, or there are too few conversations.
    """
    first, *others = settings.taste_scales

    def losses_by(scales: tuple[float, float, float]) -> Tensor:
        return unseen_losses(examples, settings.model_copy(update={"taste_scales": (scales,)}), seed=seed)

    best, most = first, 0.0
    try:
        first_J = losses_by(first) if others else torch.empty(0)
        for scales in others:
            gain_J = first_J - losses_by(scales)
            gain = gain_J.mean().item()
            if gain > max(most, _CLEARLY * gain_J.std().item() / len(gain_J) ** 0.5):
                best, most = scales, gain
    except TooFewConversations:
        pass
    return settings.model_copy(update={"taste_scales": (best,)})


def unseen_losses(examples: Sequence[RewardExample], settings: RewardSettings, *, seed: int) -> Tensor:
    """Nats of every judgement by heads that did not see its conversation, weighted as in training; [J].

    For comparisons: the heads are few, and the first of `taste_scales` is theirs.

    Raises:
        TooFewConversations: all examples fall into one fold.
    """
    settings = settings.model_copy(update={"members": _MEMBERS, "max_iterations": _ITERATIONS})
    losses_J = torch.empty(len(examples))
    for training, held_out in _splits(examples, _COMPARISON_FOLDS):
        unseen = [examples[index] for index in held_out]
        weight_J = torch.tensor([settings.weight_of(example.kind) for example in unseen])
        losses_J[held_out] = weight_J * losses(fit(training, settings, seed=seed), unseen)
    return losses_J


def _splits(examples: Sequence[RewardExample], folds: int) -> Iterator[tuple[list[RewardExample], list[int]]]:
    """What to train on and the indices of what is held out, fold by fold."""
    fold_of = [_fold(example.conversation, folds) for example in examples]
    if len(set(fold_of)) < 2:
        raise TooFewConversations(
            f"{len(examples)} judgements of too few conversations to split in {folds}; collect more"
        )
    for fold in sorted(set(fold_of)):
        training = [example for example, of in zip(examples, fold_of, strict=True) if of != fold]
        yield training, [index for index, of in enumerate(fold_of) if of == fold]


def _fold(conversation: str, folds: int) -> int:
    digest = hashlib.blake2b(conversation.encode(), digest_size=8, person=b"fold%d" % folds).digest()
    return int.from_bytes(digest, "big") % folds
