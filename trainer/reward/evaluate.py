"""`python -m trainer.reward.evaluate --store PATH`: how well the reward model predicts judgements it has not seen.

Cross-validated by conversation over all judgements in the preference store: every conversation is scored once, by heads
that were learned from other conversations only.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from feedback.judgement import Judgement
from feedback.store import PreferenceStore
from registry.arithmetic import computed_in
from settings import Settings, load
from trainer.backbone import Backbone
from trainer.reward.crossvalidation import cross_validate
from trainer.reward.examples import Featuriser, RewardExample
from trainer.reward.features import AnswerPool
from trainer.reward.heldout import Report

_CHUNK = 32
"""Judgements between two signs of life."""


def featurise(judgements: Sequence[Judgement], settings: Settings) -> list[RewardExample]:
    """Examples with the features of the configured base model; prints how far it is."""
    trainer = settings.trainer
    backbone = Backbone(settings.model.path, trainer.lora, dtype=computed_in(trainer.dtype), seed=trainer.seed)
    featuriser = Featuriser.over(backbone, AnswerPool.of(backbone), trainer)
    examples: list[RewardExample] = []
    for start in range(0, len(judgements), _CHUNK):
        examples += featuriser.examples(judgements[start : start + _CHUNK])
        print(f"\r  {min(start + _CHUNK, len(judgements))} of {len(judgements)}", end="", flush=True)
    print()
    return examples


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m trainer.reward.evaluate", description=__doc__)
    parser.add_argument("--store", type=Path, required=True, help="the trainer's preference store (SQLite)")
    parser.add_argument("--folds", type=int, default=5)
    arguments = parser.parse_args()
    if not arguments.store.is_file():
        parser.error(f"--store {arguments.store}: no such file")
    settings = load()
    torch.set_num_threads(settings.trainer.threads)
    judgements = PreferenceStore(arguments.store).judgements()
    print(f"{len(judgements)} judgements; computing features with {settings.model.path} …", flush=True)
    examples = featurise(judgements, settings)
    show(cross_validate(examples, settings.trainer.reward, folds=arguments.folds), folds=arguments.folds)


def show(report: Report, *, folds: int) -> None:
    """Print a report as a table."""
    print(f"{report.judgements} judgements, {report.pairs} pairs, {folds} folds by conversation")
    print(f"  held-out pairwise accuracy  {report.accuracy:6.1%} ± {report.accuracy_error:.1%}")
    print(f"  longer answer wins (floor)  {report.longer_wins:6.1%}")
    print(f"  calibration error           {report.calibration_error:6.1%}")
    for name, accuracy in sorted(report.by_source.items()):
        print(f"  {name:<26}  {accuracy:6.1%}")


if __name__ == "__main__":
    main()
