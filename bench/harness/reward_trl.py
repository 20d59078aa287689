"""`python reward_trl.py WORKLOAD`: TRL's RewardTrainer on pairs, then its accuracy on others, a fold a turn.

One epoch with LoRA on every linear layer, as TRL's documentation does it. Runs in TRL's environment.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from trl import RewardConfig, RewardTrainer
from turns import Turn


def train(workload: dict[str, Any], pairs: list[dict[str, Any]], unseen: list[dict[str, Any]]) -> tuple[float, float]:
    """Accuracy on the unseen pairs, and the seconds that training alone took."""
    tokenizer = AutoTokenizer.from_pretrained(workload["model"])
    dtype = getattr(torch, workload["dtype"])
    model = AutoModelForSequenceClassification.from_pretrained(workload["model"], num_labels=1, dtype=dtype)
    with tempfile.TemporaryDirectory() as folder:
        trainer = RewardTrainer(
            model=model,
            args=RewardConfig(
                output_dir=folder,
                num_train_epochs=1,
                per_device_train_batch_size=2,  # four of a thousand tokens each were killed at 24 GiB
                gradient_accumulation_steps=4,
                per_device_eval_batch_size=_divisor(len(unseen), most=8),
                max_length=workload["max_length"],
                seed=workload["seed"],
                logging_steps=10,
                save_strategy="no",
                report_to="none",
                use_cpu=True,
                bf16=False,
                gradient_checkpointing=False,
            ),
            processing_class=tokenizer,
            train_dataset=Dataset.from_list(pairs),
            eval_dataset=Dataset.from_list(unseen),
            peft_config=LoraConfig(
                r=16, lora_alpha=32, target_modules="all-linear", task_type="SEQ_CLS", modules_to_save=["score"]
            ),
        )
        began = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - began
        return float(trainer.evaluate()["eval_accuracy"]), seconds


def _divisor(count: int, *, most: int) -> int:
    """TRL reports the mean over batches: of batches of one size that is the mean over pairs."""
    return next(size for size in range(most, 0, -1) if count % size == 0)


def main() -> None:
    workload = json.loads(Path(sys.argv[1]).read_text())
    turn = Turn()
    torch.set_num_threads(workload["threads"])
    for fold in workload["folds"]:
        if not turn.await_go():
            return
        accuracy, seconds = train(workload, fold["train"], fold["test"])
        turn.done(accuracy=accuracy, pairs=len(fold["test"]), trained_on=len(fold["train"]), training_seconds=seconds)


if __name__ == "__main__":
    main()
