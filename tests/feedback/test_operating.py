"""What an operator does: adds up, replays dead letters, has a rater forgotten, sees who weighs most."""

import asyncio
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from feedback.audit import Audit, audit
from feedback.commands import parse_time
from feedback.connection import admin_client, read_cluster_id
from feedback.database import open_writer
from feedback.dlq import newest_letters, read_letters
from feedback.embedded_broker import EmbeddedBroker
from feedback.eventlog import EventLog
from feedback.forget import forget, holdings
from feedback.producer import Producer
from feedback.raters import report_raters
from feedback.record import Record
from feedback.replay import NotReplayable, event_of, replay, summary
from feedback.store import PreferenceStore
from feedback.topics import OUTCOMES
from foldback.v1 import events_pb2
from settings.feedback import FeedbackSettings
from tests.feedback.broker_suite import emit_feedback, emit_response, joining, until
from tests.feedback.events import TENANT, Loggable, as_record, make_feedback, make_response, make_retraction


@pytest.fixture
def settings() -> Iterator[FeedbackSettings]:
    """With a broker of its own, as an audit counts everything there is."""
    with EmbeddedBroker() as broker:
        yield FeedbackSettings(bootstrap_servers=broker.bootstrap_servers, reconnect_interval_s=0.05)


def auditing(settings: FeedbackSettings, folder: Path) -> Callable[[], Audit]:
    return lambda: audit(
        settings,
        store=folder / "trainer/preferences.sqlite",
        receipts=[folder / "receipts"],
        spools=[folder / "spool.sqlite"],
        since=0,
        until=float("inf"),
    )


async def test_it_adds_up_at_every_step_and_says_what_is_lost(settings: FeedbackSettings, tmp_path: Path) -> None:
    take_stock = auditing(settings, tmp_path)
    (tmp_path / "trainer").mkdir()
    log = EventLog(settings, tmp_path / "spool.sqlite")
    await log.start()
    response, closed = make_response("r"), make_response("no", consent=False)
    await emit_response(log, response)
    await emit_response(log, closed)
    first = make_feedback(str(uuid.uuid4()), [response])
    given = [
        first,
        make_feedback(str(uuid.uuid4()), [response], time=3.0),
        make_feedback(str(uuid.uuid4()), [closed]),
        make_feedback(str(uuid.uuid4()), [make_response("never")]),
        make_feedback(str(uuid.uuid4()), [response], rater_id="other"),
        make_retraction(str(uuid.uuid4()), first),
    ]
    for record in given:
        await emit_feedback(log, record)
    found = await asyncio.to_thread(take_stock)
    assert (found.acknowledged, found.on_topic, found.fates) == (6, 6, {"waiting for the trainer": 6})
    store = PreferenceStore(tmp_path / "trainer/preferences.sqlite")
    with joining(settings, store):
        await asyncio.to_thread(until, lambda: store.funnel()["accepted"] == 5, 10.0)
    store.mark_learned([given[4].feedback_id], "p000002-0")
    found = await asyncio.to_thread(take_stock)
    assert found.adds_up
    assert found.fates == {
        "retracted": 1,
        "joined": 1,
        "dead-lettered": 1,
        "waiting for its response": 1,
        "learned": 1,
        "retraction": 1,
    }
    db = open_writer(tmp_path / "trainer/preferences.sqlite")
    db.execute("DELETE FROM targets")
    db.execute("DELETE FROM feedback WHERE feedback_id = ?", (given[1].feedback_id,))
    db.close()
    found = await asyncio.to_thread(take_stock)
    # With the embedded broker the spool keeps what the trainer may not have read yet: nothing is lost while it does.
    assert found.lost in ((), (given[1].feedback_id,))
    store.close()
    await log.stop()
    (tmp_path / "spool.sqlite").unlink()
    assert (await asyncio.to_thread(take_stock)).lost == (given[1].feedback_id,)


async def test_replay_gives_a_dead_feedback_another_chance(settings: FeedbackSettings, tmp_path: Path) -> None:
    log = EventLog(settings, tmp_path / "spool")
    await log.start()
    response = make_response("late")
    thumb = make_feedback(str(uuid.uuid4()), [response])
    await emit_feedback(log, thumb)
    store = PreferenceStore(tmp_path / "store")
    with joining(settings, store):
        await asyncio.to_thread(until, lambda: store.funnel()["waiting"] == 1, 10.0)
        store.expire_waiting(0.0, now=time.time() + 10)
        await asyncio.to_thread(until, lambda: len(list(read_letters(settings))) == 1, 10.0)
        assert store.funnel()["dead_feedback"] == 1
        await emit_response(log, response)
        [letter] = read_letters(settings)
        assert letter.reason == "RESPONSE_MISSING"
        assert summary(letter)["replayable"] is True
        assert newest_letters(settings, 1) == ([letter], 1)
        admin = admin_client(settings)
        producer = Producer(settings, read_cluster_id(admin))
        admin.close()
        for _ in range(2):
            assert await asyncio.to_thread(replay, producer, [letter]) == {"replayed": 1}
        producer.close()
        await asyncio.to_thread(until, lambda: store.judgement_count() == 1, 10.0)
    funnel = store.funnel()
    assert (funnel["accepted"], funnel["joined"], funnel["dead_lettered"]) == (1, 1, 0)
    store.close()
    await log.stop()


@pytest.mark.slow
async def test_a_rater_is_forgotten_and_that_is_confirmed(settings: FeedbackSettings, tmp_path: Path) -> None:
    log = EventLog(settings, tmp_path / "spool")
    await log.start()
    response = make_response("r")
    await emit_response(log, response)
    await emit_feedback(log, make_feedback(str(uuid.uuid4()), [response], rater_id="leaves"))
    await emit_feedback(log, make_feedback(str(uuid.uuid4()), [response], rater_id="stays"))
    assert not (await asyncio.to_thread(forget, settings, TENANT, "nobody", 0.0)).confirmed  # no trainer yet
    store = PreferenceStore(tmp_path / "store")
    with joining(settings, store):
        await asyncio.to_thread(until, lambda: store.judgement_count() == 2, 10.0)
        assert [row.rater_id for row in report_raters(tmp_path / "store", 5).heaviest] == ["leaves", "stays"]
        assert report_raters(tmp_path / "store", 1).heaviest[0].share == 0.5
        assert (await asyncio.to_thread(forget, settings, TENANT, "leaves", 10.0)).confirmed
        left = holdings(tmp_path / "store", TENANT, "leaves")
        assert left is not None
        assert left.feedback == 0
        assert [judgement.rater_id for judgement in store.judgements()] == ["stays"]
    store.close()
    await log.stop()


def test_a_replay_of_what_lives_changes_nothing(tmp_path: Path) -> None:
    store = PreferenceStore(tmp_path / "store")
    response = make_response("r")
    thumb = make_feedback("f", [response])
    record = as_record(thumb)
    store.ingest([as_record(response), record], "c", {})
    sequence = store.judgements()[0].sequence
    replayed = Record(record.topic, 0, 9, record.key, record.value, record.type, replayed=True)
    store.ingest([replayed, as_record(make_retraction("x", thumb)), replayed], "c", {})
    assert store.judgements() == []
    assert store.funnel()["retracted"] == 1
    assert sequence == 1
    store.close()


def test_a_retracted_dead_feedback_stays_retracted_when_replayed(tmp_path: Path) -> None:
    store = PreferenceStore(tmp_path / "store")
    response = make_response("r")
    thumb = make_feedback("f", [response])
    record = as_record(thumb)
    store.ingest([record], "c", {}, now=0.0)
    store.expire_waiting(0.0, now=1.0)
    store.ingest([as_record(make_retraction("x", thumb)), as_record(response)], "c", {})
    store.ingest([Record(record.topic, 0, 9, record.key, record.value, record.type, replayed=True)], "c", {})
    assert store.judgements() == []
    assert store.funnel()["retracted"] == 1
    store.close()


def test_letters_without_their_event_say_so() -> None:
    from feedback.dlq import StoredLetter

    empty = events_pb2.DeadLetter(topic="foldback.feedback.v1", reason=events_pb2.DEAD_LETTER_REASON_NO_CONSENT)
    with pytest.raises(NotReplayable, match="NO_CONSENT"):
        event_of(StoredLetter(0, 3, empty))
    said = summary(StoredLetter(0, 3, empty))
    assert (said["reference"], said["reason"], said["replayable"]) == ("0:3", "NO_CONSENT", False)


def test_times_are_ages_or_moments() -> None:
    assert parse_time("2h", 10_000.0) == 2800.0
    assert parse_time("1970-01-01T00:01", 0) == 60.0
    with pytest.raises(ValueError, match="yesterday"):
        parse_time("yesterday", 0)


@pytest.mark.slow
def test_the_commands_speak_to_a_broker(settings: FeedbackSettings, tmp_path: Path) -> None:
    """As an operator types them, through the console."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FOLDBACK_")} | {
        "FOLDBACK_DATA_DIR": str(tmp_path),
        "FOLDBACK_FEEDBACK__BOOTSTRAP_SERVERS": settings.bootstrap_servers,
    }

    def foldback(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "console.cli", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    missing = foldback("topics", "check")
    assert (missing.returncode, missing.stdout.count("is missing")) == (1, 6)
    assert "created" in foldback("topics", "apply").stdout
    assert [topic["differences"] for topic in json.loads(foldback("topics", "check", "--json").stdout)] == [[]] * 6
    environment["FOLDBACK_FEEDBACK__PARTITIONS"] = "7"
    assert "foldback.feedback.v1: it has 6 partitions, not 7" in foldback("topics", "check").stdout
    audited = foldback("audit", "--since", "1h", "--json")
    assert json.loads(audited.stdout)["adds_up"] is True, audited.stderr
    assert "sent again" in foldback("audit").stdout
    assert json.loads(foldback("dlq", "ls", "--json").stdout) == {"total": 0, "letters": []}
    assert foldback("dlq", "replay", "--reason", "RESPONSE_MISSING").stdout.startswith("0 sent again")
    unconfirmed = foldback("erase", "somebody", "--timeout", "0")
    assert unconfirmed.returncode == 1
    assert "not confirmed" in unconfirmed.stdout
    assert "no preference store" in foldback("raters").stderr


def test_new_brokers_are_told_again_what_became_of_feedback(tmp_path: Path) -> None:
    store = PreferenceStore(tmp_path / "store")
    response, closed = make_response("r"), make_response("no", consent=False)
    given = [
        make_feedback("f0", [response]),
        make_feedback("f1", [response], time=3.0),
        make_feedback("f2", [closed]),
        make_feedback("f3", [response], rater_id="other"),
    ]
    events: list[Loggable] = [response, closed, *given]
    store.ingest([as_record(event) for event in events], "c1", {("t", 0): 6})
    assert not store.meet_cluster("c1")
    store.mark_learned(["f3"], "p000002-0")
    told = latest_outcomes(store)
    store.clear_outbox(store.outbox(1000)[-1].id)
    assert store.meet_cluster("c2")
    again = latest_outcomes(store)
    assert {name: state for name, (state, _) in again.items()} == {name: state for name, (state, _) in told.items()}
    assert not store.meet_cluster("c2")
    assert again["f3"][1] == "p000002-0"
    store.close()


def latest_outcomes(store: PreferenceStore) -> dict[str, tuple[int, str]]:
    entries = [e for e in store.outbox(1000) if e.topic == OUTCOMES]
    news = [events_pb2.FeedbackOutcome.FromString(entry.value) for entry in entries]
    return {each.feedback_id: (each.state, each.policy_version) for each in news}
