"""Which demonstrations an iteration of PPO learns from."""

import random
from collections.abc import Sequence
from typing import Any

from feedback.judgement import Judgement
from settings.trainer import TrainerSettings
from trainer import holdout, prompts
from trainer.tokens import Sample


def draw(judgements: Sequence[Judgement], settings: TrainerSettings, tokenizer: Any, seed: int) -> list[Sample]:
    """`ppo.demonstrations` edits as samples, old and new alike, or as many as there are.

    Raters take turns, so that one who writes much has no more of them than another. Held-out conversations and prompts
    that are too long are left out, as for rollouts.
    """
    of_rater: dict[tuple[str, str], list[Sample]] = {}
    for judgement in judgements:
        sample = _sample(judgement, settings, tokenizer) if _teaches(judgement, settings) else None
        if sample is not None:
            of_rater.setdefault((judgement.tenant, judgement.rater_id), []).append(sample)
    rng = random.Random(seed)
    hands = list(of_rater.values())
    rng.shuffle(hands)
    for hand in hands:
        rng.shuffle(hand)
    chosen: list[Sample] = []
    while hands and len(chosen) < settings.ppo.demonstrations:
        chosen += [hand.pop() for hand in hands[: settings.ppo.demonstrations - len(chosen)]]
        hands = [hand for hand in hands if hand]
    return chosen


def _teaches(judgement: Judgement, settings: TrainerSettings) -> bool:
    place = holdout.place(judgement.messages, judgement.conversation_id)
    return judgement.kind == "demonstration" and bool(judgement.text) and place >= settings.held_out_fraction


def _sample(judgement: Judgement, settings: TrainerSettings, tokenizer: Any) -> Sample | None:
    prompt_ids = judgement.prompt_token_ids or prompts.chat_ids(tokenizer, judgement.messages)
    if len(prompt_ids) > settings.max_prompt_tokens:
        return None
    text_ids = tokenizer(judgement.text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return Sample(prompt_ids, (*text_ids, tokenizer.eos_token_id)[: settings.ppo.demonstration_tokens])
