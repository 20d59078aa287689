"""Accepted means durable: with brokers, without, and with brokers that forget."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from feedback.connection import client_options
from feedback.consumer import open_consumer
from feedback.embedded_broker import BrokerFailed, EmbeddedBroker, _accepts
from feedback.event import build_event
from feedback.eventlog import Durability, EventLog, EventTooLarge, LogUnavailable, SpoolFull
from feedback.response import response_event
from feedback.store import PreferenceStore
from feedback.topics import FEEDBACK, RESPONSES
from foldback.v1 import feedback_pb2
from settings.feedback import FeedbackSettings
from tests.feedback.broker_suite import emit_feedback, emit_response, joining, until
from tests.feedback.events import emit, make_feedback, make_response

RESPONSE = make_response("r")


@pytest.fixture
def own_broker() -> Iterator[EmbeddedBroker]:
    """One that the test may stop and start; not started yet."""
    broker = EmbeddedBroker()
    broker.start()
    broker.stop()
    yield broker
    broker.stop()


def settings_for(broker: EmbeddedBroker, **changes: object) -> FeedbackSettings:
    quick = {"ack_timeout_s": 0.5, "reconnect_interval_s": 0.05}
    return FeedbackSettings(bootstrap_servers=broker.bootstrap_servers, **quick | changes)


def read_ids(settings: FeedbackSettings, topic: str, count: int) -> list[str]:
    """The event ids in one topic, in order."""
    consumer = open_consumer(settings, [topic], {})
    ids: list[str] = []
    while len(ids) < count:
        for batch in consumer.poll(timeout_ms=100).values():
            ids += [dict(record.headers)["ce_id"].decode() for record in batch]
    consumer.close()
    return ids


async def test_away_at_start_spools_then_drains_in_order(own_broker: EmbeddedBroker, tmp_path: Path) -> None:
    settings = settings_for(own_broker)
    log = EventLog(settings, tmp_path / "spool")
    await log.start()
    records = [make_feedback(f"f{number}", [RESPONSE]) for number in range(1200)]
    durabilities = await asyncio.gather(*(emit_feedback(log, record) for record in records))
    assert set(durabilities) == {Durability.SPOOL}
    own_broker.start()
    state = log.state()
    assert state.spool is not None
    await asyncio.to_thread(until, lambda: log.state().spool.unsent == 0, 10.0)  # type: ignore[union-attr]
    assert await asyncio.to_thread(read_ids, settings, FEEDBACK, 1200) == [f"f{number}" for number in range(1200)]
    assert await emit_feedback(log, make_feedback("last", [RESPONSE])) is Durability.BROKER
    await log.stop()


@pytest.mark.slow
async def test_broker_lost_midway_costs_one_timeout(own_broker: EmbeddedBroker, tmp_path: Path) -> None:
    own_broker.start()
    log = EventLog(settings_for(own_broker), tmp_path / "spool")
    await log.start()
    assert await emit_feedback(log, make_feedback("f0", [RESPONSE])) is Durability.BROKER
    own_broker.stop()
    loop = asyncio.get_running_loop()
    start = loop.time()
    assert await emit_feedback(log, make_feedback("f1", [RESPONSE])) is Durability.SPOOL
    assert loop.time() - start < 1.5
    start = loop.time()
    for number in range(20):
        assert await emit_feedback(log, make_feedback(f"g{number}", [RESPONSE])) is Durability.SPOOL
    assert loop.time() - start < 1.0
    await log.stop()


@pytest.mark.slow
async def test_a_restarted_embedded_broker_loses_nothing_unread(own_broker: EmbeddedBroker, tmp_path: Path) -> None:
    """As when `foldback up` is stopped before the trainer has read what the broker had acknowledged."""
    own_broker.start()
    settings = settings_for(own_broker)
    first = EventLog(settings, tmp_path / "spool")
    await first.start()
    assert await emit_response(first, RESPONSE) is Durability.BROKER
    assert await emit_feedback(first, make_feedback("f", [RESPONSE])) is Durability.BROKER
    await first.stop()
    own_broker.stop()
    own_broker.start()
    second = EventLog(settings, tmp_path / "spool")
    await second.start()
    store = PreferenceStore(tmp_path / "store")
    with joining(settings, store):
        await asyncio.to_thread(until, lambda: store.judgement_count() == 1, 10.0)
        await asyncio.to_thread(until, lambda: second.state().spool.kept == 0, 10.0)  # type: ignore[union-attr]
        own_broker.stop()  # and under a running joiner and log
        own_broker.start()
        await emit_feedback(second, make_feedback("g", [RESPONSE], rater_id="other"))
        await asyncio.to_thread(until, lambda: store.judgement_count() == 2, 15.0)
    await second.stop()
    store.close()


async def test_a_new_process_takes_the_spool_over(own_broker: EmbeddedBroker, tmp_path: Path) -> None:
    first = EventLog(settings_for(own_broker), tmp_path / "spool")
    await first.start()
    first.emit_soon([response_event(RESPONSE)])
    await first.stop()
    own_broker.start()
    second = EventLog(settings_for(own_broker), tmp_path / "spool")
    await second.start()
    assert await asyncio.to_thread(read_ids, settings_for(own_broker), RESPONSES, 1) == ["r"]
    await second.stop()


async def test_a_hanging_broker_holds_no_response_back_from_the_disk(
    own_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    """Feedback is accepted once the answer it is about is durable, and that takes no broker's time-out."""
    own_broker.start()
    log = EventLog(settings_for(own_broker, ack_timeout_s=30.0), tmp_path / "spool")
    await log.start()
    assert await emit_feedback(log, make_feedback("f", [RESPONSE])) is Durability.BROKER
    assert own_broker._process is not None
    os.kill(own_broker._process.pid, signal.SIGSTOP)
    log.emit_soon([response_event(RESPONSE), response_event(make_response("s"))])
    await asyncio.wait_for(log.settled(["r", "s", "unknown"]), 5.0)
    state = log.state().spool
    assert state is not None
    assert state.unsent == 2
    assert log.state().lost == {}
    os.kill(own_broker._process.pid, signal.SIGCONT)
    await asyncio.to_thread(until, lambda: log.state().spool.unsent == 0, 10.0)  # type: ignore[union-attr]
    assert set(await asyncio.to_thread(read_ids, settings_for(own_broker), RESPONSES, 2)) == {"r", "s"}
    await log.stop()


async def test_a_full_spool_refuses(own_broker: EmbeddedBroker, tmp_path: Path) -> None:
    log = EventLog(settings_for(own_broker, spool_max_bytes=1 << 16), tmp_path / "spool")
    await log.start()
    text = feedback_pb2.Comment(text="x" * 30_000)
    for number in range(2):
        await emit_feedback(log, make_feedback(f"f{number}", [RESPONSE], comment=text))
    with pytest.raises(SpoolFull):
        await emit_feedback(log, make_feedback("f2", [RESPONSE], comment=text))
    log.emit_soon([response_event(make_response("r", prompt="x" * 30_000))])
    await asyncio.to_thread(until, lambda: log.state().lost == {"SpoolFull": 1}, 5.0)
    await log.stop()


async def test_no_broker_and_no_spool_is_unavailable(own_broker: EmbeddedBroker) -> None:
    log = EventLog(settings_for(own_broker), None)
    await log.start()
    with pytest.raises(LogUnavailable):
        await emit_feedback(log, make_feedback("f", [RESPONSE]))
    await log.stop()


async def test_oversized_is_refused_before_it_is_accepted(broker: str, tmp_path: Path) -> None:
    log = EventLog(FeedbackSettings(bootstrap_servers=broker, max_event_bytes=2048), tmp_path / "spool")
    await log.start()
    with pytest.raises(EventTooLarge):
        await emit_feedback(log, make_feedback("f", [RESPONSE], comment=feedback_pb2.Comment(text="x" * 3000)))
    await log.stop()


async def test_envelope_is_cloudevents_binary_mode(broker: str, tmp_path: Path) -> None:
    settings = FeedbackSettings(bootstrap_servers=broker)
    log = EventLog(settings, tmp_path / "spool")
    await log.start()
    event = build_event(
        "foldback.policies.v1",
        "p1",
        RESPONSE,
        event_id="envelope",
        type="foldback.v1.PolicyTransition",
        tenant="acme",
        extra_headers={"traceparent": "00-1"},
    )
    await emit(log, event)
    consumer = open_consumer(settings, ["foldback.policies.v1"], {})
    records = [record for batch in consumer.poll(timeout_ms=5000).values() for record in batch]
    consumer.close()
    await log.stop()
    record = next(record for record in records if dict(record.headers)["ce_id"] == b"envelope")
    headers = {name: value.decode() for name, value in record.headers}
    assert (record.key, headers.pop("ce_time")[:2]) == (b"p1", "20")
    assert headers == {
        "ce_specversion": "1.0",
        "ce_id": "envelope",
        "ce_source": "foldback",
        "ce_type": "foldback.v1.PolicyTransition",
        "ce_tenant": "acme",
        "content-type": "application/protobuf",
        "traceparent": "00-1",
    }


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_broker_outlives_its_parent(number: signal.Signals) -> None:
    parent = subprocess.Popen([sys.executable, "-m", "feedback", "broker"], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    port = int(parent.stdout.readline().rpartition(":")[2])
    assert _accepts(port)
    parent.send_signal(number)
    parent.wait(10)
    until(lambda: not _accepts(port), 5.0)
    parent.stdout.close()


def test_a_taken_port_is_named(broker: str) -> None:
    port = int(broker.rpartition(":")[2])
    with pytest.raises(BrokerFailed, match=str(port)):
        EmbeddedBroker(port).start()


def test_secured_brokers_get_their_options() -> None:
    options = client_options(
        FeedbackSettings(
            bootstrap_servers="a:1, b:2",
            security_protocol="SASL_SSL",
            sasl_username="foldback",
            sasl_password="secret",
            ssl_cafile="ca.pem",
        )
    )
    assert options["bootstrap_servers"] == ["a:1", "b:2"]
    assert options["sasl_plain_password"] == "secret"
    assert options["ssl_cafile"] == "ca.pem"
    assert options["ssl_certfile"] is None
