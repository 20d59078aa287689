"""`python reward_ours.py WORKLOAD`: our reward model on the judgements of a fold, then on the others, a fold a turn.

Nothing is carried over from turn to turn: every fold computes the features it needs afresh.
"""

import json
import sys
import time
from pathlib import Path

import torch

from feedback.judgement import Judgement
from feedback.store import PreferenceStore
from harness.turns import Turn
from settings import Settings
from settings.model import ModelSettings
from trainer.reward.crossvalidation import tuned
from trainer.reward.evaluate import featurise
from trainer.reward.heads import fit
from trainer.reward.heldout import examine


def of(judgements: list[Judgement], names: list[str]) -> list[Judgement]:
    wanted = set(names)
    return [judgement for judgement in judgements if judgement.feedback_id in wanted]


def main() -> None:
    workload = json.loads(Path(sys.argv[1]).read_text())
    turn = Turn()
    torch.set_num_threads(workload["threads"])
    settings = Settings(model=ModelSettings(name=workload["model"]))
    judgements = PreferenceStore(Path(workload["store"])).judgements()
    for fold in workload["folds"]:
        if not turn.await_go():
            return
        train, test = of(judgements, fold["train_rankings"]), of(judgements, fold["test_rankings"])
        thumbs = of(judgements, fold["train_thumbs"])
        examples = featurise([*train, *test], settings)
        learned, unseen = examples[: len(train)], examples[len(train) :]
        began = time.perf_counter()
        heads = fit(learned, tuned(learned, settings.trainer.reward, seed=0), seed=0)
        fitting = time.perf_counter() - began
        report = examine(unseen, [heads.scores(example.features_AF) for example in unseen])
        figures = {"accuracy": report.accuracy, "longer_wins": report.longer_wins, "pairs": report.pairs}
        turn.done(**figures, fit_seconds=fitting)
        if not turn.await_go():
            return
        # The same rankings and the thumbs on the same conversations, which TRL has no use for.
        learned += featurise(thumbs, settings)
        heads = fit(learned, tuned(learned, settings.trainer.reward, seed=0), seed=0)
        report = examine(unseen, [heads.scores(example.features_AF) for example in unseen])
        turn.done(accuracy=report.accuracy, pairs=report.pairs)


if __name__ == "__main__":
    main()
