"""People come to like something else: it is noticed, what they said before no longer decides; and it is noticed of
nobody who did not."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from settings.reward import RewardSettings
from tests.trainer.reward_tastes import DENSE, FEATURES, correlation, normal, rankings, taste
from trainer.reward import RewardExample, RewardModel
from trainer.reward.change import changed_at
from trainer.statefile import load_state, save_state

SETTINGS = RewardSettings()


def said(
    taste_F: Tensor, count: int, *, seed: int, raters: int = 8, name: str = "user", noise: float = 0.1
) -> list[RewardExample]:
    """`count` rankings of two answers, by `raters` in turn."""
    judged = rankings(taste_F, count, seed=seed, answers=2, noise=noise, rater=name)
    return [replace(example, rater=f"{name}{index % raters}") for index, example in enumerate(judged)]


def taught(model: RewardModel, examples: list[RewardExample], at_once: int = 32) -> list[int]:
    """Learn from them in instalments; what was noticed when, as `RewardFigures.changed`."""
    return [model.update(examples[start : start + at_once]).changed for start in range(0, len(examples), at_once)]


def agreement(model: RewardModel, taste_F: Tensor) -> float:
    fresh_BF = normal(1000, seed=77)
    return correlation(model.score(fresh_BF)[0], fresh_BF @ taste_F)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["user", "newcomer"])
def test_after_a_change_of_mind_the_later_judgements_decide(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """400 judgements for a taste, then 200 for its opposite, by the same people or by others in their place."""
    taste_F = taste(0)
    before, since = said(taste_F, 400, seed=0), said(-taste_F, 200, seed=1, name=name)
    model = RewardModel(FEATURES, SETTINGS, seed=0)
    assert set(taught(model, before)) == {0}
    [noticed] = [changed for changed in taught(model, since) if changed]
    assert noticed <= 200, "nothing that was said before is taken for said since"
    assert agreement(model, taste_F) < -0.5
    assert model.ready

    monkeypatch.setattr("trainer.reward.model.changed_at", lambda *_, **__: None)
    model = RewardModel(FEATURES, SETTINGS, seed=0)
    taught(model, before + since)
    assert agreement(model, taste_F) > 0.3, "else what was said before decides"


@pytest.mark.slow
def test_what_nobody_has_spoken_of_since_is_remembered() -> None:
    """Answers differ in two respects; later ones are alike in the first, and people change their mind on the second."""
    first, second = DENSE[0], DENSE[1]
    both_F, second_F = torch.zeros(FEATURES), torch.zeros(FEATURES)
    both_F[[first, second]] = 2.0
    second_F[second] = -2.0
    since = said(second_F, 200, seed=1)
    for example in since:
        example.features_AF[:, first] = 0.0
    model = RewardModel(FEATURES, SETTINGS, seed=0)
    assert any(taught(model, [*said(both_F, 400, seed=0), *since]))
    expected_F = second_F.clone()
    expected_F[first] = 2.0
    assert agreement(model, expected_F) > 0.4
    fresh_BF = normal(1000, seed=77)
    assert correlation(model.score(fresh_BF)[0], fresh_BF[:, first]) > 0.2


@pytest.mark.slow
@pytest.mark.parametrize(("raters", "liars", "noise"), [(8, 0, 0.1), (8, 0, 0.5), (20, 3, 0.1), (1, 0, 0.1)])
def test_while_tastes_stay_nothing_is_noticed(raters: int, liars: int, noise: float) -> None:
    """Nor where answers come to please more and more, as a policy that learns makes them."""
    taste_F = taste(2)
    examples = []
    for index, example in enumerate(said(taste_F, 500, seed=3, raters=raters, noise=noise)):
        lie = index % raters < liars
        example.features_AF.add_(2 * index / 500 * taste_F / taste_F.norm())
        examples.append(replace(example, tiers=tuple(reversed(example.tiers))) if lie else example)
    for count in range(100, 501, 40):
        assert changed_at(examples[:count], SETTINGS, seed=0) is None


@pytest.mark.slow
@pytest.mark.parametrize("flooders", [1, 3])
def test_a_few_who_flood_the_log_have_changed_nobodys_mind(flooders: int) -> None:
    taste_F = taste(0)
    before = said(taste_F, 200, seed=0)
    flood = said(-taste_F, 400, seed=1, raters=flooders, name="flood")
    for count in (64, 128, 256, 400):
        assert changed_at(before + flood[:count], SETTINGS, seed=0) is None
    alone = said(taste_F, 200, seed=0, raters=flooders, name="flood")
    found = changed_at(alone + flood[:100], SETTINGS, seed=0)
    assert found is not None, "where they are all there are, they may change their own"
    assert found >= 180


@pytest.mark.slow
def test_what_was_noticed_survives_a_checkpoint(tmp_path: Path) -> None:
    taste_F = taste(0)
    examples = [*said(taste_F, 320, seed=0), *said(-taste_F, 160, seed=1)]
    model = RewardModel(FEATURES, SETTINGS, seed=0)
    assert any(taught(model, examples))
    save_state(model.state_dict(), tmp_path, "reward")
    resumed = RewardModel(FEATURES, SETTINGS, seed=0)
    resumed.load_state_dict(load_state(tmp_path, "reward"))
    more, fresh_BF = said(-taste_F, 64, seed=2), normal(50, seed=3)
    assert taught(model, more) == taught(resumed, more)
    assert torch.equal(model.score(fresh_BF)[0], resumed.score(fresh_BF)[0])


def test_too_few_to_tell() -> None:
    assert changed_at(said(taste(0), 90, seed=0), SETTINGS, seed=0) is None
    one = [replace(example, conversation="one") for example in said(taste(0), 120, seed=0)]
    assert changed_at(one, SETTINGS, seed=0) is None
