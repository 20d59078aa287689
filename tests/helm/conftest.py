from typing import Any

import pytest

from tests.helm.chart import VALUES, render


@pytest.fixture(params=VALUES, scope="session")
def values(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The chart's defaults, then each values file under examples/."""
    return VALUES[request.param]


@pytest.fixture(scope="session")
def objects(values: dict[str, Any]) -> list[dict[str, Any]]:
    return render(values)
