import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from feedback.connection import admin_client
from feedback.eventlog import EventLog
from feedback.topic_alter import alter, find_differences
from feedback.topics import FEEDBACK, ensure_topics
from settings.feedback import FeedbackSettings
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

    async def test_topics_are_held_against_the_settings_and_altered(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """On a broker of its own that obeys: partitions are added, retention and replicas set; nothing is taken."""
        with noida_broker(tmp_path / "broker") as address:
            settings = FeedbackSettings(bootstrap_servers=address, partitions=2)
            ensure_topics(settings)
            admin = admin_client(settings)
            assert find_differences(admin, settings) == []
            wanted = settings.model_copy(update={"partitions": 3, "min_insync_replicas": 2})
            differences = find_differences(admin, wanted)
            assert {(d.name, d.found, d.wanted) for d in differences if d.topic == FEEDBACK} == {
                ("partitions", "2", "3"),
                ("min.insync.replicas", "1", "2"),
            }
            log = EventLog(wanted, tmp_path / "spool")
            with caplog.at_level(logging.WARNING, "feedback.link"):
                await log.start()
            await log.stop()
            assert f"{FEEDBACK}: it has 2 partitions, not 3" in caplog.text
            assert alter(admin, differences) == {}
            assert find_differences(admin, wanted) == []
            fewer = find_differences(admin, wanted.model_copy(update={"partitions": 1}))
            assert all("taken away" in why for why in alter(admin, fewer).values())
            assert len(alter(admin, fewer)) == 2
            admin.close()
