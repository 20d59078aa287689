"""`python ppo_trl.py WORKLOAD`: one PPO update of TRL a turn. Runs in TRL's environment."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TrainerCallback,
)
from trl.experimental.ppo import PPOConfig, PPOTrainer
from turns import Turn


class TakesTurns(TrainerCallback):
    def __init__(self, turn: Turn, tokens: int) -> None:
        self._turn = turn
        self._tokens = tokens

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._turn.await_go()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._turn.done(tokens=self._tokens)
        if not self._turn.await_go():
            sys.exit(0)


def main() -> None:
    workload = json.loads(Path(sys.argv[1]).read_text())
    turn = Turn()
    torch.set_num_threads(workload["threads"])
    path, prompts, dtype = workload["model"], workload["prompts"], getattr(torch, workload["dtype"])
    tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
    tokenizer.pad_token = tokenizer.bos_token  # PPO must tell padding from the end of an answer

    def scorer() -> Any:
        model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=1, dtype=dtype)
        model.config.pad_token_id = tokenizer.pad_token_id
        return model

    with tempfile.TemporaryDirectory() as folder:
        PPOTrainer(
            PPOConfig(
                output_dir=folder,
                per_device_train_batch_size=len(prompts),
                gradient_accumulation_steps=1,
                num_mini_batches=workload["minibatches"],
                num_ppo_epochs=1,
                total_episodes=10_000 * len(prompts),
                local_rollout_forward_batch_size=len(prompts),
                response_length=workload["tokens"],
                temperature=workload["temperature"],
                learning_rate=workload["learning_rate"],
                num_sample_generations=0,
                save_strategy="no",
                report_to="none",
                use_cpu=True,
                bf16=False,  # the weights are in `dtype` already
                disable_tqdm=True,
                gradient_checkpointing=False,
            ),
            processing_class=tokenizer,
            model=AutoModelForCausalLM.from_pretrained(path, dtype=dtype),
            ref_model=None,
            reward_model=scorer(),
            value_model=scorer(),
            train_dataset=Dataset.from_dict({"input_ids": prompts}),
            eval_dataset=Dataset.from_dict({"input_ids": prompts}),
            peft_config=LoraConfig(**workload["lora"], task_type="CAUSAL_LM"),
            callbacks=[TakesTurns(turn, len(prompts) * workload["tokens"])],
        ).train()


if __name__ == "__main__":
    main()
