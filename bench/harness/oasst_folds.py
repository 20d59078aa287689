"""OpenAssistant trees as judgements in a store, split by tree, for both contenders of the reward bench."""

import hashlib
from itertools import combinations
from pathlib import Path
from typing import Any

from feedback.judgement import Judgement
from feedback.oasst import import_events, read_trees
from feedback.record import Record
from feedback.store import PreferenceStore


def fill_store(data: Path, store: Path) -> list[Judgement]:
    """The judgements of an OpenAssistant file, through the store as if they had come from Kafka."""
    preferences = PreferenceStore(store)
    events = [imported.event for tree in read_trees(data) for imported in import_events(tree, "bench")]
    records = []
    ends: dict[tuple[str, int], int] = {}
    for event in events:
        offset = ends.get((event.topic, 0), 0)
        ends[event.topic, 0] = offset + 1
        records.append(Record(event.topic, 0, offset, event.key, event.value, ""))
    preferences.ingest(records, "bench", ends)
    return preferences.judgements()


def folds(judgements: list[Judgement], count: int, *, pairs: int | None = None) -> list[dict[str, Any]]:
    """Each: names of judgements to train on and to judge by, and the rankings among them as TRL's pairs.

    `pairs`: at most so many on either side.
    """
    found = []
    for fold in range(count):
        rankings = [j for j in judgements if j.kind == "ranking"]
        train = _up_to([j for j in rankings if fold_of(j, count) != fold], pairs)
        test = _up_to([j for j in rankings if fold_of(j, count) == fold], pairs)
        thumbs = [j for j in judgements if j.kind == "thumbs" and fold_of(j, count) != fold]
        found.append(
            {
                "train_rankings": [j.feedback_id for j in train],
                "test_rankings": [j.feedback_id for j in test],
                "train_thumbs": [j.feedback_id for j in _up_to(thumbs, pairs)],
                "train": [pair for j in train for pair in as_pairs(j)],
                "test": [pair for j in test for pair in as_pairs(j)],
            }
        )
    return found


def fold_of(judgement: Judgement, count: int) -> int:
    digest = hashlib.blake2b(judgement.conversation_id.encode(), digest_size=8, person=b"bench").digest()
    return int.from_bytes(digest, "big") % count


def as_pairs(judgement: Judgement) -> list[dict[str, Any]]:
    """Every better and worse answer of a ranking, in TRL's conversational form."""
    prompt = [{"role": role, "content": content} for role, content in judgement.messages]

    def said(index: int) -> list[dict[str, str]]:
        return [{"role": "assistant", "content": judgement.answers[index].text}]

    return [
        {"prompt": prompt, "chosen": said(better), "rejected": said(worse)}
        for upper, lower in combinations(judgement.tiers, 2)
        for better in upper
        for worse in lower
    ]


def _up_to(judgements: list[Judgement], pairs: int | None) -> list[Judgement]:
    """The first judgements that make at most so many pairs; a thumb counts as one."""
    chosen, total = [], 0
    for judgement in judgements:
        size = max(1, len(as_pairs(judgement)))
        if pairs is None or total + size <= pairs:
            chosen.append(judgement)
            total += size
    return chosen
