from collections.abc import Iterator
from typing import Any

import pytest

from tests.helm.chart import VALUES, render
from tests.helm.prometheus import Prometheus
from tests.helm.watching import watching
from tests.integration.stack import Stack


@pytest.fixture(params=VALUES, scope="session")
def values(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The chart's defaults, then each values file under examples/."""
    return VALUES[request.param]


@pytest.fixture(scope="session")
def objects(values: dict[str, Any]) -> list[dict[str, Any]]:
    return render(values)


@pytest.fixture(scope="session")
def watched(live_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus beside a Foldback that is in use, and has been long enough for rates."""
    with watching(live_stack, tmp_path_factory.mktemp("prometheus")) as running:
        yield running
