"""The real human feedback that comes with the project: all of it through Kafka, and once only."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka.errors import KafkaError

from feedback.embedded_broker import EmbeddedBroker
from feedback.event import Event
from feedback.importing import send_import
from feedback.oasst import POLICY_VERSION, count, import_events, read_trees
from feedback.store import PreferenceStore
from settings.feedback import FeedbackSettings
from tests.feedback.broker_suite import joining, until


def test_what_the_file_holds(oasst_file: Path) -> None:
    trees = read_trees(oasst_file)
    assert len(trees) == 100
    counts = count([event for tree in trees for event in import_events(tree, "default")])
    assert (counts["ranking"], counts["thumbs_up"], counts["thumbs_down"]) == (212, 854, 372)


@pytest.mark.slow
def test_imported_twice_through_kafka_it_is_there_once(broker: str, oasst_file: Path, tmp_path: Path) -> None:
    store = PreferenceStore(tmp_path / "store")
    for _ in range(2):
        printed = run_import(broker, oasst_file)
        assert "212 rankings, 1226 thumbs" in printed
        assert "foldback status" in printed
    with joining(FeedbackSettings(bootstrap_servers=broker), store) as joiner:
        until(lambda: joiner.state.consumed["foldback.feedback.v1"] >= 2 * 1438, 20.0)
    imported = [judgement for judgement in store.judgements() if judgement.policy_version == POLICY_VERSION]
    assert Counter(judgement.kind for judgement in imported) == {"ranking": 212, "thumbs": 1226}
    assert Counter(judgement.score for judgement in imported if judgement.kind == "thumbs") == {1.0: 854, 0.0: 372}
    by_tree = {tree["message_tree_id"]: tree for tree in read_trees(oasst_file)}
    for judgement in imported:
        assert judgement.conversation_id in by_tree
        assert judgement.messages[0] == ("user", by_tree[judgement.conversation_id]["prompt"]["text"])
        assert judgement.messages[-1][0] == "user"
        if judgement.kind == "ranking":
            assert len(judgement.tiers) >= 2
    store.close()


@pytest.mark.slow
@pytest.mark.parametrize("comes_back", [True, False])
def test_a_broker_that_goes_away_midway_costs_nothing(oasst_file: Path, tmp_path: Path, comes_back: bool) -> None:
    """The embedded one forgets what it had: then importing again completes it, and nothing counts twice."""
    events = [event.event for tree in read_trees(oasst_file) for event in import_events(tree, "default")]
    batches = [events[start : start + 500] for start in range(0, len(events), 500)]
    with EmbeddedBroker() as broker:
        settings = FeedbackSettings(
            bootstrap_servers=broker.bootstrap_servers, ack_timeout_s=3.0, reconnect_interval_s=0.05
        )

        def interrupted() -> Iterator[list[Event]]:
            yield batches[0]
            broker.stop()
            if comes_back:
                broker.start()
            yield from batches[1:]

        if comes_back:
            assert send_import(settings, interrupted()) == 0
        else:
            with pytest.raises(KafkaError, match="after 500 events"):
                send_import(settings, interrupted(), patience_s=0.3)
            broker.start()
        assert send_import(settings, batches) == 0
        store = PreferenceStore(tmp_path / "store")
        with joining(settings, store):
            until(lambda: store.judgement_count() >= 212 + 1226, 60.0)
        assert store.funnel()["accepted"] == 212 + 1226
        store.close()


def run_import(broker: str, file: Path) -> str:
    environment = os.environ | {"FOLDBACK_FEEDBACK__BOOTSTRAP_SERVERS": broker, "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-m", "feedback", "import", "oasst", str(file)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize("line", ["{}", "not json", "[1]"])
def test_a_line_that_is_no_tree_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "trees.jsonl"
    path.write_text(f"\n{line}\n" if line == "{}" else f"{line}\n")
    with pytest.raises(ValueError, match=r"trees\.jsonl, line 1"):
        read_trees(path)


def test_without_a_broker_the_import_says_what_to_do(oasst_file: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failure:
        run_import("127.0.0.1:1", oasst_file)
    assert "no broker at 127.0.0.1:1" in failure.value.stderr
    assert "foldback up" in failure.value.stderr
