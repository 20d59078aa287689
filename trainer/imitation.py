"""What an iteration of PPO imitates beside its rollouts: users' own edits, and the answers that they liked best."""

import random
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from feedback.judgement import Answer, Judgement
from settings.trainer import TrainerSettings
from trainer import holdout, prompts
from trainer.tokens import Sample

_WELL_ABOVE_THE_BASE = 1.0
"""Least reward of a favourite, in deviations of the base's answers."""


def demonstrations(
    judgements: Sequence[Judgement], settings: TrainerSettings, tokenizer: Any, seed: int
) -> list[Sample]:
    """`ppo.demonstrations` edits, old and new alike, or as many as there are.

    Raters take turns, so that one who writes much has no more of them than another. Held-out conversations and prompts
    that are too long are left out, as for rollouts.
    """
    hands = _Hands()
    for judgement in judgements:
        if judgement.kind == "demonstration" and judgement.text and _may_teach(judgement, settings):
            prompt_ids = judgement.prompt_token_ids or prompts.chat_ids(tokenizer, judgement.messages)
            text_ids = tokenizer(judgement.text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            edit = (*text_ids, tokenizer.eos_token_id)[: settings.ppo.demonstration_tokens]
            if len(prompt_ids) <= settings.max_prompt_tokens:
                hands.add(judgement, Sample(prompt_ids, edit))
    return hands.deal(settings.ppo.demonstrations, seed)


def favourites(
    judgements: Sequence[Judgement],
    settings: TrainerSettings,
    reward: Callable[[Sequence[Sample]], Tensor],
    seed: int,
    *,
    bar: float,
) -> list[Sample]:
    """`ppo.favourites` served answers that a rater put first or gave a thumb and that the reward model, which weighs
    all raters, puts above `bar`; drawn as edits are.

    Self-imitation (Oh et al. 2018, arXiv 1806.05635): what turned out better than the policy expects of itself is worth
    doing again. Rollouts of a policy that hardly ever does what people like teach it little; the few times that it did
    are on record.

    Args:
        reward: conservative rewards [B] of samples.
    """
    found = [
        (judgement, Sample(judgement.prompt_token_ids, answer.token_ids))
        for judgement in judgements
        if _may_teach(judgement, settings) and 0 < len(judgement.prompt_token_ids) <= settings.max_prompt_tokens
        for answer in _liked(judgement)
        if answer.token_ids
    ]
    hands = _Hands()
    rewards = reward([sample for _, sample in found]).tolist() if found else []
    for (judgement, sample), worth in zip(found, rewards, strict=True):
        if worth > bar:
            hands.add(judgement, sample)
    return hands.deal(settings.ppo.favourites, seed)


def bar(scores_B: Tensor) -> float:
    """Least reward of a favourite beside rollouts of these scores: a deviation above their mean.

    What the policy hits in every second rollout (p hits worth r: p r + r √(p (1 − p)) = r at p = ½) it learns from
    those. Older answers would hold it back from there on, being less likely to it than its own.
    """
    return max(_WELL_ABOVE_THE_BASE, (scores_B.mean() + scores_B.std(correction=0)).item())


def _liked(judgement: Judgement) -> Sequence[Answer]:
    """Answers that came first where not all came first, or that got a thumb up."""
    if judgement.kind == "ranking" and len(judgement.tiers) > 1 and not judgement.rejected_all:
        return [judgement.answers[index] for index in judgement.tiers[0]]
    return judgement.answers if judgement.kind == "thumbs" and judgement.score == 1.0 else ()


def _may_teach(judgement: Judgement, settings: TrainerSettings) -> bool:
    return holdout.place(judgement.messages, judgement.conversation_id) >= settings.held_out_fraction


class _Hands:
    """Samples by rater."""

    def __init__(self) -> None:
        self._of_rater: dict[tuple[str, str], list[Sample]] = {}

    def add(self, judgement: Judgement, sample: Sample) -> None:
        self._of_rater.setdefault((judgement.tenant, judgement.rater_id), []).append(sample)

    def deal(self, count: int, seed: int) -> list[Sample]:
        """At most `count` at random, raters in turn."""
        rng = random.Random(seed)
        hands = list(self._of_rater.values())
        rng.shuffle(hands)
        for hand in hands:
            rng.shuffle(hand)
        chosen: list[Sample] = []
        while hands and len(chosen) < count:
            chosen += [hand.pop() for hand in hands[: count - len(chosen)]]
            hands = [hand for hand in hands if hand]
        return chosen
