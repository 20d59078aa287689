from typing import Any

import pytest

from tests.helm.chart import VALUES, render


@pytest.fixture(params=VALUES)
def values(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The chart's defaults, then each values file under examples/."""
    return VALUES[request.param]


@pytest.fixture
def objects(values: dict[str, Any]) -> list[dict[str, Any]]:
    return render(values)
