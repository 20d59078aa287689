"""Answers drawn by the trainer's own decoder as the serving fleet would send them: with their logprobs."""

from collections.abc import Collection, Sequence

from trainer.sampling import Draw
from trainer.tokens import Rollout


def rollouts(
    drawn: Sequence[Draw], *, version: str, temperature: float, eos_token_ids: Collection[int]
) -> list[Rollout]:
    """One a draw; draws of one prompt share a group. Without the text, which PPO does not read."""
    group = {prompt: number for number, prompt in enumerate(dict.fromkeys(each.sample.prompt_ids for each in drawn))}
    return [
        Rollout(
            sample=each.sample,
            text="",
            behaviour_logprobs=tuple(each.logprobs_T.tolist()),
            finish_reason="stop" if each.sample.response_ids[-1] in eos_token_ids else "length",
            policy_version=(version,) * len(each.sample.response_ids),
            temperature=temperature,
            group=group[each.sample.prompt_ids],
        )
        for each in drawn
    ]
