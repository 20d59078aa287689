"""How much each judgement counts, so that no rater shouts."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from foldback.v1 import feedback_pb2
from trainer.reward.examples import RewardExample


def rater_weights(
    examples: Sequence[RewardExample], *, floor: int, ratio: float, shares: Sequence[float] | None = None
) -> list[float]:
    """A weight in (0, 1] for every judgement, by who made it.

    A rater's judgements together weigh at most max(floor, ratio · m), with m the median number of judgements a rater
    made: whoever judges more than that counts no more for it. Annotators count in full: the application vouches for
    them, and often one name stands for a whole team. Of `shares` of a judgement only so much is counted.
    """
    counts: defaultdict[str, float] = defaultdict(float)
    for example, share in zip(examples, shares or [1.0] * len(examples), strict=True):
        if not _is_annotator(example):
            counts[example.rater] += share
    cap = max(float(floor), ratio * median(counts.values())) if counts else 0.0
    return [1.0 if _is_annotator(example) else min(1.0, cap / counts[example.rater]) for example in examples]


def _is_annotator(example: RewardExample) -> bool:
    return example.source == feedback_pb2.FEEDBACK_SOURCE_ANNOTATOR
