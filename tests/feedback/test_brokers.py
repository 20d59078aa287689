from collections.abc import Iterator

import pytest

from tests.feedback.broker_suite import BrokerSuite
from tests.feedback.noida import noida_broker


class TestEmbeddedBroker(BrokerSuite):
    @pytest.fixture(scope="class")
    def brokers(self, broker: str) -> str:
        return broker


class TestNoidaBroker(BrokerSuite):
    @pytest.fixture(scope="class")
    def brokers(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
        with noida_broker(tmp_path_factory.mktemp("noida")) as address:
            yield address
