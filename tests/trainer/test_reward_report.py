"""The held-out report against counts by hand and against raters whose odds are known."""

import math
from dataclasses import replace

import pytest
import torch
from prometheus_client import REGISTRY
from torch import Tensor

from foldback.v1 import feedback_pb2
from settings.reward import RewardSettings
from tests.trainer.reward_tastes import FEATURES, example, rankings, taste
from trainer import metrics
from trainer.reward import RewardExample, RewardModel
from trainer.reward.heldout import Report, examine

ANNOTATOR = feedback_pb2.FEEDBACK_SOURCE_ANNOTATOR
END_USER = feedback_pb2.FEEDBACK_SOURCE_END_USER


def members(*scores: float) -> Tensor:
    """Three members of one mind."""
    return torch.tensor(scores, dtype=torch.float32).unsqueeze(1).expand(-1, 3)


def ranked(name: str, tiers: tuple[tuple[int, ...], ...], source: int = ANNOTATOR) -> RewardExample:
    answers = sum(len(tier) for tier in tiers)
    return example(torch.zeros(answers, FEATURES), name=name, tiers=tiers, source=source)


def thumb(name: str, score: float) -> RewardExample:
    return example(torch.zeros(1, FEATURES), name=name, kind="thumbs", score=score, source=END_USER)


def pairs_won(margins: Tensor, won: Tensor) -> Report:
    """Pairs of two answers, the first scored higher by `margins`, of which it `won` some."""
    examples = [ranked(f"e{i}", ((0,), (1,)) if won[i] else ((1,), (0,))) for i in range(len(margins))]
    return examine(examples, [members(margin, 0.0) for margin in margins.tolist()])


def test_accuracy_is_a_share_of_pairs_and_of_each_source() -> None:
    examples = [
        ranked("a", ((0,), (1, 2))),  # 0 over 1 and 0 over 2: one right, one equal
        ranked("b", ((1,), (0,))),  # wrong
        example(torch.zeros(2, FEATURES), name="edit", kind="demonstration", tiers=((1,), (0,)), source=END_USER),
        thumb("up", 1.0),
        thumb("also up", 1.0),
        thumb("down", 0.0),
    ]
    scores = [members(1, 0, 1), members(1, 0), members(0, 2), members(3), members(0), members(1)]
    report = examine(examples, scores)
    assert report.pairs == 4
    assert report.accuracy == pytest.approx((1 + 0.5 + 0 + 1) / 4)
    assert report.by_source == pytest.approx(
        {"annotator/ranking": 1.5 / 3, "end_user/demonstration": 1.0, "end_user/thumbs": 0.5}
    )


@pytest.mark.slow
def test_calibration_error_vanishes_where_answers_win_as_often_as_predicted() -> None:
    generator = torch.Generator().manual_seed(0)
    margins = 3 * torch.randn(2000, generator=generator)
    won = torch.rand(2000, generator=generator) < margins.sigmoid()
    assert pairs_won(margins, won).calibration_error < 0.05
    assert pairs_won(4 * margins, won).calibration_error > 0.08, "too sure"
    assert pairs_won(0.25 * margins, won).calibration_error > 0.08, "not sure enough"


def test_calibration_error_is_the_gap_of_one_bin() -> None:
    """All predictions alike: σ(1) = 0.73 confidence against 0.6 of the pairs won."""
    won = torch.arange(10) < 6
    report = pairs_won(torch.ones(10), won)
    assert report.calibration_error == pytest.approx(1 / (1 + math.exp(-1)) - 0.6, abs=1e-5)


def test_the_standard_error_counts_conversations_not_pairs() -> None:
    """One ranking of five, all right or all wrong, is one observation and not ten."""
    right = tuple((index,) for index in range(5))
    wrong = right[::-1]
    examples = [ranked(f"e{i}", right if i % 2 else wrong) for i in range(40)]
    report = examine(examples, [members(5, 4, 3, 2, 1)] * 40)
    assert report.accuracy == pytest.approx(0.5)
    assert report.accuracy_error == pytest.approx(0.5 / math.sqrt(39), rel=1e-3)


def test_thumbs_are_counted_in_pairs_across_conversations() -> None:
    """By chance alone the AUC has the variance of Mann and Whitney's U: (L + D + 1) / (12 L D)."""
    generator = torch.Generator().manual_seed(0)
    examples = [thumb(f"t{i}", float(i < 120)) for i in range(200)]
    report = examine(examples, [members(score) for score in torch.randn(200, generator=generator).tolist()])
    assert report.rated == 2 * 80
    assert report.rated_error == pytest.approx(math.sqrt(201 / (12 * 120 * 80)), rel=0.1)
    assert abs(report.rated_accuracy - 0.5) < 3 * report.rated_error
    assert report.evidence == (report.rated_accuracy, report.rated_error, 160)
    certain = examine(examples, [members(float(i < 120)) for i in range(200)])
    assert (certain.rated_accuracy, certain.rated_error) == (1.0, 0.0)
    one = [replace(each, conversation="one") for each in examples]
    assert math.isnan(examine(one, [members(float(i)) for i in range(200)]).rated_error)


def test_metrics_tell_accuracy_and_calibration_in_all_and_accuracy_by_source() -> None:
    model = RewardModel(FEATURES, RewardSettings(), seed=0)
    figures = model.update(rankings(taste(0), 120, seed=0))
    metrics.show_reward_model(figures)

    def shown(name: str, **labels: str) -> float | None:
        return REGISTRY.get_sample_value(f"foldback_reward_model_{name}_ratio", labels)

    assert shown("accuracy", split="held_out") == figures.accuracy > 0.6
    assert shown("calibration_error", split="held_out") == figures.calibration_error
    assert shown("source_accuracy", source="end_user", kind="ranking") == pytest.approx(figures.accuracy)


def test_metrics_count_changes_of_taste() -> None:
    before = REGISTRY.get_sample_value("foldback_taste_changes_total")
    assert before is not None
    figures = RewardModel(FEATURES, RewardSettings(), seed=0).update(rankings(taste(0), 20, seed=0))
    for changed in (0, 60):
        metrics.show_reward_model(replace(figures, changed=changed))
    assert REGISTRY.get_sample_value("foldback_taste_changes_total") == before + 1


def test_nothing_to_measure_is_not_a_number() -> None:
    report = examine([thumb("up", 1.0)], [members(1)])
    assert report.pairs == 0
    assert math.isnan(report.accuracy)
    assert math.isnan(report.calibration_error)
    assert report.by_source == {}
