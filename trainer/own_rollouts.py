"""Rollouts by the trainer's own decoder: of the very policy that is trained, and of no server's time."""

from collections.abc import Collection, Sequence

from feedback.judgement import Prompt
from settings.trainer import TrainerSettings
from trainer.backbone import Backbone
from trainer.prompts import token_ids
from trainer.sampling import Draw
from trainer.tokens import IN_TRAINING, Rollout


class OwnRollouts:
    """RolloutSource over the backbone, whose present policy answers: none of its rollouts is stale."""

    beside_training = False

    def __init__(self, backbone: Backbone, settings: TrainerSettings) -> None:
        self._backbone = backbone
        self._settings = settings

    def sample(self, prompts: Sequence[Prompt], *, seed: int, version: str) -> list[Rollout]:
        """See RolloutSource. The same from the same policy, which may be some updates beyond `version`."""
        backbone, settings = self._backbone, self._settings
        questions = [token_ids(backbone.tokenizer, prompt) for prompt in prompts]
        asked = [question for question in questions for _ in range(settings.samples_per_prompt)]
        drawn = backbone.draw(
            asked, max_new_tokens=settings.max_new_tokens, temperature=settings.temperature, seed=seed
        )
        return as_rollouts(drawn, temperature=settings.temperature, eos_token_ids=backbone.eos_token_ids)


def as_rollouts(drawn: Sequence[Draw], *, temperature: float, eos_token_ids: Collection[int]) -> list[Rollout]:
    """Of the present policy, one a draw; draws of a prompt share a group. Without the text, which PPO does not read."""
    group = {prompt: number for number, prompt in enumerate(dict.fromkeys(each.sample.prompt_ids for each in drawn))}
    return [
        Rollout(
            sample=each.sample,
            text="",
            behaviour_logprobs=tuple(each.logprobs_T.tolist()),
            finish_reason="stop" if each.sample.response_ids[-1] in eos_token_ids else "length",
            policy_version=(IN_TRAINING,) * len(each.sample.response_ids),
            temperature=temperature,
            group=group[each.sample.prompt_ids],
        )
        for each in drawn
    ]
