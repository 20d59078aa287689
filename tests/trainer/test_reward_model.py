"""The reward model as the trainer uses it: uncertainty, calibration, promotion, readiness, resume."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from foldback.v1.feedback_pb2 import FEEDBACK_SOURCE_ANNOTATOR
from settings.reward import RewardSettings
from tests.trainer.reward_tastes import FEATURES, HIDDEN, correlation, model_of, normal, rankings, taste
from trainer.reward import RewardModel
from trainer.reward.heads import fit
from trainer.reward.replay import Replay
from trainer.statefile import load_state, save_state


@pytest.mark.slow
def test_learns_a_taste_from_noisy_rankings_in_instalments() -> None:
    taste_F = taste(0)
    examples = rankings(taste_F, 200, seed=0, noise=0.1)
    model = RewardModel(FEATURES, RewardSettings(), seed=0)
    figures = [model.update(examples[start : start + 40]) for start in range(0, 200, 40)]
    features_BF = normal(500, seed=1)
    assert correlation(model.score(features_BF)[0], features_BF @ taste_F) > 0.9
    assert figures[-1].judgements + figures[-1].heldout_judgements == 200
    assert all(f.replay_share >= 0.5 for f in figures[1:])
    assert figures[-1].ready
    assert figures[-1].accuracy > 0.8


def test_in_instalments_is_as_good_as_at_once() -> None:
    """The problem is convex and the replay complete, so how the judgements arrived leaves no trace in the heads."""
    examples = rankings(taste(0), 60, seed=0)
    at_once = fit(examples, RewardSettings(), seed=0)
    warm = fit(examples, RewardSettings(), seed=0, start=fit(examples[:30], RewardSettings(), seed=0))
    features_BF = normal(200, seed=1)
    torch.testing.assert_close(warm.scores(features_BF), at_once.scores(features_BF), atol=0.05, rtol=0.05)


def test_a_warm_start_from_other_scales_is_as_good_as_a_cold_one() -> None:
    """What nothing may be said of any more, its style here, must not hold back the rest."""
    style, plain = (RewardSettings(taste_scales=(scales,)) for scales in ((1.0, 2.0, 1.0), (1.0, 2.0, 0.0)))
    examples = rankings(taste(0), 60, seed=0)
    before = fit(rankings(-taste(0), 60, seed=1), style, seed=0)
    warm, cold = (fit(examples, plain, seed=0, start=start) for start in (before, None))
    features_BF = normal(200, seed=1)
    torch.testing.assert_close(warm.scores(features_BF), cold.scores(features_BF), atol=0.05, rtol=0.05)


def test_unlearned_members_disagree_and_their_mean_is_indifferent() -> None:
    mean_B, std_B = RewardModel(FEATURES, RewardSettings(), seed=0).score(normal(10, seed=0))
    assert mean_B.tolist() == [0.0] * 10
    assert std_B.min() > 0


@pytest.mark.slow
def test_members_disagree_more_off_the_distribution() -> None:
    """Features 0 … 12 never vary in what was judged; answers that vary in them are news to the model."""
    examples = rankings(taste(0), 100, seed=0)
    for each in examples:
        each.features_AF[:, :12] *= 0.01
    model = model_of(examples)
    familiar_BF = normal(300, seed=1)
    familiar_BF[:, :12] *= 0.01
    unfamiliar_BF = familiar_BF.clone()
    unfamiliar_BF[:, :12] *= 100
    (_, familiar_B), (_, unfamiliar_B) = model.score(familiar_BF), model.score(unfamiliar_BF)
    assert unfamiliar_B.median() > 3 * familiar_B.median()
    far_B = model.score(4 * familiar_BF)[1]
    assert far_B.median() > 2 * familiar_B.median()


@pytest.mark.slow
def test_members_come_to_agree_as_judgements_come_in() -> None:
    features_BF = normal(300, seed=1)
    spread = []
    for count in (10, 200):
        model = model_of(rankings(taste(0), count, seed=0))
        model.calibrate(features_BF)
        spread.append(model.score(features_BF)[1].mean().item())
    assert spread[1] < 0.6 * spread[0]


@pytest.mark.slow
def test_reference_samples_score_zero_plus_minus_one_now_and_after_updates() -> None:
    examples = rankings(taste(0), 80, seed=0)
    reference_BF = 2 * normal(256, seed=1) + 1
    model = model_of(examples[:40])
    for step in (lambda: model.calibrate(reference_BF), lambda: model.update(examples[40:])):
        step()
        mean_B, _ = model.score(reference_BF)
        assert mean_B.mean().item() == pytest.approx(0, abs=1e-4)
        assert mean_B.std(correction=0).item() == pytest.approx(1, abs=1e-4)


def test_reward_is_conservative_and_saturates() -> None:
    """Ever further along the taste the mean grows, and the reward turns back."""
    taste_F = taste(0)
    settings = RewardSettings()
    model = model_of(rankings(taste_F, 60, seed=0))
    reference_BF = normal(256, seed=1)
    model.calibrate(reference_BF)
    mean_B, std_B = model.score(reference_BF)
    bounded_B = settings.bound * (mean_B / settings.bound).tanh()
    torch.testing.assert_close(model.reward(reference_BF), bounded_B - settings.uncertainty_penalty * std_B)
    steps_BF = torch.linspace(0, 12, 49).unsqueeze(1) * (taste_F / taste_F.norm())
    reward_B = model.reward(steps_BF)
    best = int(reward_B.argmax())
    assert 0 < best < len(steps_BF) - 1
    assert reward_B[best] > reward_B[-1]
    assert reward_B.max() < settings.bound


@pytest.mark.slow
def test_length_earns_what_raters_show_for_it_and_no_more_beyond_what_they_saw() -> None:
    """Length is the last feature, and the easiest to drive."""
    steps_BF = torch.zeros(41, FEATURES)
    steps_BF[:, -1] = torch.linspace(0, 8, 41)
    indifferent_F, longer_F = taste(1), torch.zeros(FEATURES)
    indifferent_F[-1], longer_F[-1] = 0.0, 2.0
    gains = []
    for taste_F in (indifferent_F, longer_F):
        examples = rankings(taste_F, 80, seed=0)
        model = model_of(examples)
        model.calibrate(normal(256, seed=1))
        reward_B = model.reward(steps_BF)
        longest = max(example.features_AF[:, -1].max() for example in examples if not example.held_out)
        beyond_B = reward_B[steps_BF[:, -1] > longest]
        assert len(beyond_B) > 10
        torch.testing.assert_close(beyond_B, beyond_B[:1].expand_as(beyond_B))
        gains.append((reward_B.max() - reward_B[0]).item())
    assert gains[0] < 0.3 < 1.0 < gains[1], "deviations of the reference's samples"


@pytest.mark.slow
def test_a_worse_fit_is_refused_and_what_was_in_use_stays() -> None:
    """300 judgements of the opposite taste, all by one, would spoil what the held-out conversations still hold to."""
    taste_F = taste(0)
    raters = ("ann", "ben", "cat")
    model = model_of(
        [e for i, rater in enumerate(raters) for e in rankings(taste_F, 34, seed=i, rater=rater, held_out=0.3)]
    )
    features_BF = normal(50, seed=1)
    before_B, _ = model.score(features_BF)
    annotator = [replace(e, source=FEEDBACK_SOURCE_ANNOTATOR) for e in rankings(-taste_F, 300, seed=7, held_out=0.0)]
    figures = model.update(annotator)
    assert not figures.promoted
    torch.testing.assert_close(model.score(features_BF)[0], before_B)


@pytest.mark.slow
def test_how_much_words_say_is_what_predicts_best_and_is_kept(tmp_path: Path) -> None:
    """Of two worlds, one judges by words and one by all but them: each gets the scale that suits it."""
    settings = RewardSettings(taste_scales=((0.6, 1.0, 0.0), (0.02, 1.0, 0.0)), meaning_scale=0.6, closing_scale=0.6)
    words_F = torch.zeros(FEATURES)
    words_F[:HIDDEN] = 1.5
    rest_F = torch.full((FEATURES,), 0.9)
    rest_F[:HIDDEN] = 0.0
    for taste_F, expected in ((words_F, (0.6, 1.0)), (rest_F, (0.02, 1.0))):
        model = RewardModel(FEATURES, settings, seed=0)
        model.update(rankings(taste_F, 30, seed=0))
        assert model.state_dict()["taste_scales"] == ((0.6, 1.0, 0.0),), "too few to choose by"
        model.update(rankings(taste_F, 90, seed=1))
        assert model.state_dict()["taste_scales"] == ((*expected, 0.0),)
        save_state(model.state_dict(), tmp_path, "reward")
        resumed = RewardModel(FEATURES, settings, seed=0)
        resumed.load_state_dict(load_state(tmp_path, "reward"))
        more = rankings(taste_F, 20, seed=2)
        model.update(more)
        resumed.update(more)
        assert torch.equal(model.score(normal(20, seed=3))[0], resumed.score(normal(20, seed=3))[0])


@pytest.mark.slow
def test_state_survives_a_checkpoint(tmp_path: Path) -> None:
    examples = rankings(taste(0), 60, seed=0, noise=0.1)
    model = model_of(examples[:40])
    model.calibrate(normal(64, seed=1))
    save_state(model.state_dict(), tmp_path, "reward")
    resumed = RewardModel(FEATURES, RewardSettings(), seed=0)
    resumed.load_state_dict(load_state(tmp_path, "reward"))
    features_BF = normal(50, seed=2)
    assert resumed.ready == model.ready
    for one in (model, resumed):
        one.update(examples[40:])
    for mine_B, theirs_B in zip(model.score(features_BF), resumed.score(features_BF), strict=True):
        assert torch.equal(mine_B, theirs_B)


def test_an_empty_state_survives_too(tmp_path: Path) -> None:
    save_state(RewardModel(FEATURES, RewardSettings(), seed=0).state_dict(), tmp_path, "reward")
    resumed = RewardModel(FEATURES, RewardSettings(), seed=0)
    resumed.load_state_dict(load_state(tmp_path, "reward"))
    assert not resumed.ready
    assert not resumed.update([]).promoted


def test_the_same_judgements_give_the_same_scores() -> None:
    features_BF = normal(50, seed=1)
    a, b = (model_of(rankings(taste(0), 40, seed=0)).score(features_BF) for _ in range(2))
    assert torch.equal(a[0], b[0])
    assert torch.equal(a[1], b[1])


def test_features_of_another_model_or_not_finite_are_refused() -> None:
    model = RewardModel(FEATURES, RewardSettings(), seed=0)
    with pytest.raises(ValueError, match=rf"this model takes \[B, {FEATURES}\]"):
        model.score(torch.zeros(3, FEATURES + 1))
    examples = rankings(taste(0), 1, seed=0)
    examples[0].features_AF[0, 0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        model.update(examples)


def test_forgets_what_no_longer_counts() -> None:
    examples = rankings(taste(0), 40, seed=0)
    model = model_of(examples)
    keep = {example.feedback_id for example in examples[:10]}
    assert model.retain(keep) == 30
    kept = model.state_dict()
    assert {e["feedback_id"] for e in kept["train"] + kept["heldout"]} == keep


def test_a_later_judgement_takes_the_place_of_the_earlier() -> None:
    model = model_of(rankings(taste(0), 30, seed=0))
    again = model.update(rankings(taste(0), 30, seed=0))
    assert again.judgements + again.heldout_judgements == 30


def test_a_full_replay_keeps_half_its_places_for_the_old_and_every_stratum() -> None:

    replay = Replay(capacity=40)
    old, new = rankings(taste(0), 35, seed=0), rankings(taste(0), 100, seed=1, rater="other")
    rare = rankings(taste(0), 5, seed=2, rater="rare")
    for each in rare:
        object.__setattr__(each, "source", 2)
    replay.add(old + rare, random.Random(0))
    assert replay.add(new, random.Random(1)) == 20
    kept = replay.examples
    assert len(kept) == 40
    assert sum(e.rater == "other" for e in kept) == 20
    assert sum(e.rater == "rare" for e in kept) == 5
