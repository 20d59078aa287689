"""The engine suite on vLLM, in bfloat16 as it serves, in both swap modes."""

import pytest

from server.engines.base import Engine
from tests.server.engine_suite import EngineSuite

pytest.importorskip("vllm")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class TestVllmInPlace(EngineSuite):
    tolerance = 0.1

    @pytest.fixture(scope="class")
    def engine(self, vllm_in_place: Engine) -> Engine:
        return vllm_in_place


class TestVllmAdapters(EngineSuite):
    tolerance = 0.2  # the reference is merged and rounded to bfloat16, where the engine adds the product in bfloat16

    @pytest.fixture(scope="class")
    def engine(self, vllm_adapters: Engine) -> Engine:
        return vllm_adapters
