"""No rater shouts."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foldback.v1 import feedback_pb2
from settings.reward import RewardSettings
from tests.trainer.reward_tastes import FEATURES, correlation, example, normal, rankings, taste
from trainer.reward import RewardExample, RewardModel
from trainer.reward.heads import fit
from trainer.reward.raters import rater_weights


def thumbs(raters: list[str], source: int = feedback_pb2.FEEDBACK_SOURCE_END_USER) -> list[RewardExample]:
    x_AF = torch.zeros(1, FEATURES)
    return [
        example(x_AF, name=f"t{i}", rater=rater, kind="thumbs", score=1.0, source=source)
        for i, rater in enumerate(raters)
    ]


@settings(deadline=None, max_examples=30)
@given(st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 300), min_size=1))
def test_weights_cap_the_rater_and_never_amplify(counts: dict[str, int]) -> None:
    raters = [rater for rater, count in counts.items() for _ in range(count)]
    weights = rater_weights(thumbs(raters), floor=32, ratio=3)
    assert all(0 < weight <= 1 for weight in weights)
    totals = {r: sum(w for w, other in zip(weights, raters, strict=True) if other == r) for r in counts}
    cap = max(32, 3 * sorted(counts.values())[len(counts) // 2])
    assert all(total <= cap + 1e-6 for total in totals.values())
    assert all(total == count for rater, total in totals.items() if (count := counts[rater]) <= 32)


def test_one_rater_with_a_thousand_votes_cannot_outweigh_ten() -> None:
    raters = ["loud"] * 1000 + [f"quiet-{i % 10}" for i in range(100)]
    weights = rater_weights(thumbs(raters), floor=32, ratio=3)
    assert sum(weights[:1000]) < sum(weights[1000:])


def test_annotators_count_in_full_and_leave_the_others_as_they_are() -> None:
    users = thumbs(["ada"] * 100 + ["bob"] * 2)
    annotators = thumbs(["team"] * 500, source=feedback_pb2.FEEDBACK_SOURCE_ANNOTATOR)
    together = rater_weights(users + annotators, floor=32, ratio=3)
    assert together == rater_weights(users, floor=32, ratio=3) + [1.0] * 500


@pytest.mark.slow
def test_the_model_follows_ten_raters_and_not_the_loud_one() -> None:
    theirs, loud = taste(1), taste(2)
    examples = [e for i in range(10) for e in rankings(theirs, 10, seed=i, rater=f"quiet-{i}")]
    examples += rankings(loud, 1000, seed=99, rater="loud")
    model = RewardModel(FEATURES, RewardSettings(), seed=0)
    model.update(examples)
    features_BF = normal(400, seed=5)
    score_B, _ = model.score(features_BF)
    assert correlation(score_B, features_BF @ theirs) > correlation(score_B, features_BF @ loud) + 0.2


def test_bias_is_learned_from_many_thumbs_and_shrunk_for_few() -> None:
    features_NF = normal(200, seed=0)
    votes = [("often", 1.0)] * 60 + [("once", 1.0)] * 2 + [("harsh", 0.0)] * 60
    examples = [
        example(features_NF[[i]], name=f"t{i}", rater=rater, kind="thumbs", score=score)
        for i, (rater, score) in enumerate(votes)
    ]
    heads = fit(examples, RewardSettings(), seed=0)
    often, once, harsh = (heads.bias_RM[heads.raters.index(r)].mean().item() for r in ("often", "once", "harsh"))
    assert harsh < -0.5 < 0.5 < often
    assert abs(once) < often / 3
    assert heads.biases(["a stranger"]).abs().max().item() == 0


def test_a_harsh_rater_does_not_spoil_what_he_rates() -> None:
    """Two raters of one taste, one pleased by nearly all and one by nearly nothing, who see different answers."""
    taste_F = taste(3)
    generator = torch.Generator().manual_seed(1)
    examples = []
    for i in range(400):
        features_AF = normal(1, generator)
        rater, bias = ("mild", 2.5) if i % 2 else ("harsh", -2.5)
        up = float(torch.rand(1, generator=generator) < (features_AF @ taste_F + bias).sigmoid())
        examples.append(example(features_AF, name=f"t{i}", rater=rater, kind="thumbs", score=up))
    heads = fit(examples, RewardSettings(rater_floor=1000, thumbs_weight=1.0), seed=0)
    mild, harsh = (heads.bias_RM[heads.raters.index(r)].mean().item() for r in ("mild", "harsh"))
    assert mild - harsh > 1.5
    features_BF = normal(400, generator)
    assert correlation(heads.scores(features_BF).mean(dim=1), features_BF @ taste_F) > 0.8
