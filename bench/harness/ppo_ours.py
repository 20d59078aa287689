"""`python ppo_ours.py WORKLOAD`: one PPO update of ours a turn, with all that TRL's has: sampling, reference, reward.

Answers are drawn by the trainer's own decoder from the merged weights, with their logprobs, as a serving engine would
send them.
"""

import json
import sys
from pathlib import Path

import torch

from harness.turns import Turn
from settings.ppo import LoraSettings, PpoSettings
from settings.trainer import TrainerSettings
from trainer.credit import of_prefixes, potentials
from trainer.learner import Learner
from trainer.own_rollouts import as_rollouts


def update(learner: Learner, prompts: list[tuple[int, ...]], tokens: int, temperature: float, turn: int) -> int:
    """One iteration; how many response tokens it learned from."""
    backbone = learner.backbone
    drawn = backbone.draw(prompts, max_new_tokens=tokens, temperature=temperature, seed=turn)
    samples = [each.sample for each in drawn]
    frozen, earned = of_prefixes(backbone, samples, learner.pool, learner.reward.reward, temperature=temperature)
    answers = as_rollouts(drawn, temperature=temperature, eos_token_ids=backbone.eos_token_ids)
    learner.ppo.update(answers, frozen, [reward_T[-1].item() for reward_T in earned], potentials(earned))
    return sum(len(sample.response_ids) for sample in samples)


def main() -> None:
    workload = json.loads(Path(sys.argv[1]).read_text())
    turn = Turn()
    torch.set_num_threads(workload["threads"])
    settings = TrainerSettings(
        lora=LoraSettings(rank=workload["lora"]["r"], layers=workload["lora_share"]),
        ppo=PpoSettings(minibatches=workload["minibatches"], learning_rate=workload["learning_rate"]),
    )
    learner = Learner.create(workload["model"], settings)
    learner.backbone.eos_token_ids = frozenset()  # TRL's answers do not end early either
    prompts = [tuple(prompt) for prompt in workload["prompts"]]
    count = 0
    while turn.await_go():
        count += 1
        tokens = update(learner, prompts, workload["tokens"], workload["temperature"], count)
        turn.done(tokens=tokens)


if __name__ == "__main__":
    main()
