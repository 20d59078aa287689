"""What the tests of the loop around a canary share."""

from pathlib import Path

import pytest

from settings.canary import CanarySettings
from tests.trainer.world import SETTINGS, World

ON_TRIAL = SETTINGS.model_copy(
    update={
        "canary": CanarySettings(),
        "gate": SETTINGS.gate.model_copy(update={"min_win_rate": 0.01}),  # whatever is trained goes on trial
        "judgements_per_update": 60,
        "iterations_per_judgement": 0.1,
    }
)


class Killed(Exception):
    pass


def die(*_: object, **__: object) -> None:
    raise Killed


@pytest.fixture(scope="module")
def rated(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The directory of a world whose users have ranked the base policy's answers, and liked three in four."""
    world = World(tmp_path_factory.mktemp("rated"), tiny_model, ON_TRIAL)
    world.users_rank(60)
    world.users_thumb([index % 4 != 0 for index in range(40)])
    world.store.close()
    return world.directory
