"""`python -m harness.speech BASE WEIGHTS`: has a policy forgotten how to speak?

Perplexity of the base model's own greedy answers to neutral questions, under the policy over under the base: 1 where
nothing is forgotten. The questions ask for facts and steps, and share no wording with any simulated user's.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

QUESTIONS = (
    "Define the word democracy.",
    "Name three kinds of renewable energy.",
    "Summarise what photosynthesis is.",
    "List the planets of the solar system.",
    "Explain how a bicycle pump works.",
    "Describe the water cycle.",
    "Give an example of a metaphor.",
    "State Newton's first law of motion.",
    "Explain what inflation means in economics.",
    "Describe what a compiler does.",
    "Name the parts of a flower.",
    "Explain the difference between weather and climate.",
    "Describe how a bill becomes law.",
    "Explain what an atom is made of.",
    "Tell a short story about a fisherman.",
    "Translate 'good morning' into French and Spanish.",
)
MAX_NEW_TOKENS = 64


def perplexity_ratio(base_dir: Path, weights_dir: Path) -> float:
    """exp of the mean difference in NLL a token, on the base's answers."""
    torch.set_num_threads(2)
    tokenizer = AutoTokenizer.from_pretrained(base_dir)
    base = load(base_dir, base_dir)
    answered = [answer(base, tokenizer, question) for question in QUESTIONS]
    policy = load(base_dir, weights_dir)
    tokens = sum(len(ids) - start for ids, start in answered)
    return math.exp(sum(nll(policy, *each) - nll(base, *each) for each in answered) / tokens)


def load(base_dir: Path, weights_dir: Path) -> Any:
    """The base's architecture with the merged weights of a version."""
    model = AutoModelForCausalLM.from_pretrained(base_dir, dtype=torch.float32).eval()
    if weights_dir != base_dir:
        files = [load_file(file) for file in weights_dir.glob("*.safetensors")]
        merged = {name: tensor.float() for file in files for name, tensor in file.items()}
        wrong = model.load_state_dict(merged, strict=False)
        if wrong.unexpected_keys or any(name != "lm_head.weight" for name in wrong.missing_keys):
            raise ValueError(f"{weights_dir}: missing {wrong.missing_keys}, unexpected {wrong.unexpected_keys}")
        model.tie_weights()
    return model


@torch.inference_mode()
def answer(model: Any, tokenizer: Any, question: str) -> tuple[list[int], int]:
    """Token ids of prompt and greedy answer, and where the answer starts."""
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    ids = model.generate(**prompt, do_sample=False, max_new_tokens=MAX_NEW_TOKENS)
    return ids[0].tolist(), prompt["input_ids"].shape[1]


@torch.inference_mode()
def nll(model: Any, ids: list[int], start: int) -> float:
    """Nats of the tokens from `start` on."""
    logits_TV = model(torch.tensor([ids])).logits[0, start - 1 : -1]
    return float(torch.nn.functional.cross_entropy(logits_TV, torch.tensor(ids[start:]), reduction="sum"))


if __name__ == "__main__":
    print(json.dumps({"perplexity_ratio": perplexity_ratio(Path(sys.argv[1]), Path(sys.argv[2]))}))
