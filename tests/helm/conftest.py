from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import settings
from tests.helm.chart import VALUES, Load, Object, container, foldback_yaml, render
from tests.helm.prometheus import Prometheus
from tests.helm.watching import watching
from tests.integration.stack import Stack


@pytest.fixture(params=VALUES, scope="session")
def values(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The chart's defaults, then each values file under examples/."""
    chosen: dict[str, Any] = VALUES[request.param]
    return chosen


@pytest.fixture(scope="session")
def objects(values: dict[str, Any]) -> list[dict[str, Any]]:
    return render(values)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Load:
    """Loads settings as one container of the release would."""

    def load_as(objects: list[Object], component: str) -> settings.Settings:
        file = tmp_path / "foldback.yaml"
        file.write_text(foldback_yaml(objects))
        for variable in container(objects, component)["env"]:
            if variable["name"].startswith("FOLDBACK_"):
                monkeypatch.setenv(variable["name"], variable.get("value", "from-a-secret"))
        monkeypatch.setenv("FOLDBACK_CONFIG", str(file))
        return settings.load()

    return load_as


@pytest.fixture(scope="session")
def watched(live_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus beside a Foldback that is in use, and has been long enough for rates."""
    with watching(live_stack, tmp_path_factory.mktemp("prometheus")) as running:
        yield running
