"""What is kept to learn from: a bounded, stratified sample of all there was."""

import random
from collections.abc import Iterable, Sequence

from trainer.reward.examples import RewardExample


class Replay:
    """At most `capacity` examples. When it overflows, old ones keep at least half the places, or all they have."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._examples: dict[str, RewardExample] = {}

    def __len__(self) -> int:
        return len(self._examples)

    @property
    def examples(self) -> list[RewardExample]:
        return list(self._examples.values())

    def load(self, examples: Iterable[RewardExample]) -> None:
        self._examples = {example.key: example for example in examples}

    def add(self, examples: Iterable[RewardExample], rng: random.Random) -> int:
        """Take examples in, the later of the same key in place of the earlier. Returns how many places the new have."""
        new = {example.key: example for example in examples}
        old = [example for key, example in self._examples.items() if key not in new]
        reserved = min(len(old), self._capacity // 2)
        kept_new = _thin(list(new.values()), self._capacity - reserved, rng)
        kept_old = _thin(old, self._capacity - len(kept_new), rng)
        self._examples = {example.key: example for example in (*kept_old, *kept_new)}
        return len(kept_new)

    def retain(self, feedback_ids: set[str]) -> int:
        """Forget what is not among `feedback_ids` (retracted, erased). Returns how many were forgotten."""
        before = len(self)
        self._examples = {key: e for key, e in self._examples.items() if e.feedback_id in feedback_ids}
        return before - len(self)


def _thin(examples: Sequence[RewardExample], places: int, rng: random.Random) -> list[RewardExample]:
    """`places` of them at random, as evenly over (kind, source) as there are examples; in their order."""
    if len(examples) <= places:
        return list(examples)
    strata: dict[tuple[str, int], list[int]] = {}
    for index, example in enumerate(examples):
        strata.setdefault(example.stratum, []).append(index)
    for indices in strata.values():
        rng.shuffle(indices)
    chosen: list[int] = []
    while len(chosen) < places:
        for indices in strata.values():
            if indices and len(chosen) < places:
                chosen.append(indices.pop())
    return [examples[index] for index in sorted(chosen)]
