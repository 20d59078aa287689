"""Which prompts teach and which only judge."""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from feedback.judgement import Prompt
from feedback.store import PreferenceStore
from settings.trainer import TrainerSettings
from trainer import holdout

PROBES = (
    "What is a good way to start the day?",
    "Explain why the sky is blue.",
    "How do I learn to cook?",
    "Tell me about the moon.",
    "What should I pack for a weekend trip?",
    "Why do people dream?",
    "Give me advice for a job interview.",
    "How does a bicycle stay upright?",
    "What makes a good friend?",
    "Describe the sea to someone who has never seen it.",
    "How can I sleep better?",
    "What is the use of mathematics?",
    "Recommend something to read.",
    "How do plants grow?",
    "What is the difference between weather and climate?",
    "Help me plan a birthday party.",
    "Why is music moving?",
    "How do I save money?",
    "What happens when water boils?",
    "Write a short greeting for a neighbour.",
    "How can I remember names?",
    "What do bees do in winter?",
    "Is it better to rent or to buy a home?",
    "How do I apologise well?",
)
"""General questions that stand in at the gate while users have not asked enough; never trained on."""


@dataclass(frozen=True, slots=True)
class PromptPool:
    """Served prompts, newest first."""

    training: tuple[Prompt, ...]
    held_out: tuple[Prompt, ...]


def recent(store: PreferenceStore, settings: TrainerSettings) -> PromptPool:
    """The latest prompts that consenting users sent, short enough to train on."""
    served = store.recent_prompts(settings.recent_prompts)
    short = [prompt for prompt in served if len(prompt.prompt_token_ids) <= settings.max_prompt_tokens]
    return split(short, settings.held_out_fraction)


def split(prompts: Sequence[Prompt], held_out_fraction: float) -> PromptPool:
    """Set some conversations apart for the gate."""
    training: list[Prompt] = []
    held_out: list[Prompt] = []
    for prompt in prompts:
        (held_out if is_held_out(prompt, held_out_fraction) else training).append(prompt)
    return PromptPool(tuple(training), tuple(held_out))


def is_held_out(prompt: Prompt, fraction: float) -> bool:
    """By the conversation's opening message, as for judgements: neither policy nor reward model trains on it."""
    return _place(prompt) < fraction


def for_rollouts(pool: PromptPool, count: int, seed: int) -> list[Prompt]:
    """`count` training prompts, distinct while there are enough; fewer only if there are none."""
    generator = random.Random(seed)
    chosen: list[Prompt] = []
    while pool.training and len(chosen) < count:
        rest = count - len(chosen)
        chosen += generator.sample(pool.training, min(rest, len(pool.training)))
    return chosen


def for_gate(pool: PromptPool, count: int, tokenizer: Any, *, keep: Sequence[str] = ()) -> list[tuple[int, ...]]:
    """Token ids of `count` prompts: held-out ones in an order that hardly changes from gate to gate, then probes.

    Those with the fingerprints `keep` are asked again if all of them may be, and nobody has withdrawn one since.
    """
    chosen = with_probes(sorted(pool.held_out, key=_place), count, tokenizer)
    if len(keep) != len(chosen):
        return chosen
    allowed = [token_ids(tokenizer, prompt) for prompt in pool.held_out]
    allowed += [chat_ids(tokenizer, (("user", question),)) for question in PROBES]
    named = {fingerprint(prompt): prompt for prompt in allowed}
    return [named[name] for name in keep] if named.keys() >= set(keep) else chosen


def fingerprint(prompt_ids: tuple[int, ...]) -> str:
    """Tells a prompt from others where its text may not be kept."""
    return hashlib.sha256(repr(prompt_ids).encode()).hexdigest()[:16]


def with_probes(prompts: Sequence[Prompt], count: int, tokenizer: Any) -> list[tuple[int, ...]]:
    """Token ids of the first `count` prompts, filled up with probes as far as they reach."""
    served = [token_ids(tokenizer, prompt) for prompt in prompts[:count]]
    probes = PROBES[: max(0, count - len(served))]
    return served + [chat_ids(tokenizer, (("user", question),)) for question in probes]


def token_ids(tokenizer: Any, prompt: Prompt) -> tuple[int, ...]:
    """As served; computed for a prompt that was imported as text."""
    return prompt.prompt_token_ids or chat_ids(tokenizer, prompt.messages)


def chat_ids(tokenizer: Any, messages: Sequence[tuple[str, str]]) -> tuple[int, ...]:
    """Token ids of (role, content) messages in the model's chat template, ready for the assistant's turn."""
    turns = [{"role": role, "content": content} for role, content in messages]
    encoded = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)
    return tuple(encoded["input_ids"])


def _place(prompt: Prompt) -> float:
    return holdout.place(prompt.messages, prompt.conversation_id)
