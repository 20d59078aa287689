"""What Foldback asks of a broker: one suite for every broker there is, so that nothing is built on one's quirk."""

import asyncio
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from feedback.connection import admin_client, read_cluster_id
from feedback.event import Event
from feedback.eventlog import Durability, EventLog
from feedback.joiner import Joiner
from feedback.outcomes import Outcomes
from feedback.response import RESPONSE_TYPE, response_event
from feedback.store import PreferenceStore
from feedback.submission import FEEDBACK_TYPE, feedback_event
from feedback.topics import FEEDBACK, RESPONSES, all_topics, ensure_topics, joiner_group
from foldback.v1 import events_pb2, feedback_pb2
from settings.feedback import FeedbackSettings
from tests.feedback.events import emit, make_feedback, make_response


def until(condition: Callable[[], bool], within_s: float) -> float:
    """Seconds it took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < within_s, f"not within {within_s} s"
        time.sleep(0.01)
    return time.monotonic() - start


@contextmanager
def joining(settings: FeedbackSettings, store: PreferenceStore) -> Iterator[Joiner]:
    joiner, stop = Joiner(settings, store), threading.Event()
    thread = threading.Thread(target=joiner.run, args=(stop,))
    thread.start()
    try:
        yield joiner
    finally:
        stop.set()
        thread.join()


async def emit_response(log: EventLog, response: events_pb2.ResponseRecorded) -> Durability:
    return await emit(log, response_event(response))


async def emit_feedback(log: EventLog, record: events_pb2.FeedbackRecorded) -> Durability:
    return await emit(log, feedback_event(record))


async def told_of_an_answer(settings: FeedbackSettings, spool: Path) -> EventLog:
    """Connected; an answer and a thumb on it are at the broker."""
    log = EventLog(settings, spool)
    await log.start()
    await asyncio.to_thread(until, lambda: log.state().connected, 20.0)
    response = make_response("r")
    assert await emit_response(log, response) is Durability.BROKER
    assert await emit_feedback(log, make_feedback("f", [response])) is Durability.BROKER
    return log


class BrokerSuite:
    """Subclasses give a `brokers` fixture: bootstrap servers of a running broker."""

    @pytest.fixture
    def settings(self, brokers: str) -> FeedbackSettings:
        return FeedbackSettings(bootstrap_servers=brokers)

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[PreferenceStore]:
        store = PreferenceStore(tmp_path / "preferences")
        yield store
        store.close()

    def test_topics_are_created_once(self, settings: FeedbackSettings) -> None:
        ensure_topics(settings)
        assert ensure_topics(settings) == []
        admin = admin_client(settings)
        described = {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics()}
        admin.close()
        assert {topic.name: topic.partitions for topic in all_topics(settings)}.items() <= described.items()

    async def test_from_answer_to_judgement_to_outcome(
        self, settings: FeedbackSettings, store: PreferenceStore, tmp_path: Path
    ) -> None:
        """A thumb is in the preference store well within two seconds, and the server learns what became of it."""
        log, outcomes = EventLog(settings, tmp_path / "spool"), Outcomes(settings)
        await log.start()
        await outcomes.start()
        response = make_response(str(uuid.uuid4()))
        thumb = make_feedback(str(uuid.uuid4()), [response], thumbs=feedback_pb2.THUMBS_DOWN)
        with joining(settings, store):
            assert await emit_response(log, response) is Durability.BROKER
            assert await emit_feedback(log, thumb) is Durability.BROKER
            mine = lambda: [j for j in store.judgements() if j.feedback_id == thumb.feedback_id]  # noqa: E731
            assert await asyncio.to_thread(until, lambda: bool(mine()), 5.0) < 2.0
            store.mark_learned([thumb.feedback_id], "p000002-0")

            def learned() -> bool:
                outcome = outcomes.lookup(thumb.tenant, thumb.feedback_id)
                return outcome is not None and outcome.state == feedback_pb2.FEEDBACK_STATE_LEARNED

            await asyncio.to_thread(until, learned, 5.0)
            outcome = outcomes.lookup(thumb.tenant, thumb.feedback_id)
            assert outcome is not None
            assert outcomes.lookup("another", thumb.feedback_id) is None
            assert outcome.policy_version == "p000002-0"
        assert mine()[0].score == 0.0
        assert mine()[0].messages == (("user", "Why is the sky blue?"),)
        await log.stop()
        await outcomes.stop()

    async def test_a_restarted_joiner_reads_on_where_the_store_is(
        self, settings: FeedbackSettings, store: PreferenceStore, tmp_path: Path
    ) -> None:
        log = EventLog(settings, tmp_path / "spool")
        await log.start()
        response = make_response(str(uuid.uuid4()), candidates=1)
        await emit_response(log, response)
        records = [make_feedback(str(uuid.uuid4()), [response], rater_id=f"rater {n}") for n in range(60)]
        ids = {record.feedback_id for record in records}

        def arrived(count: int) -> bool:
            return len(ids & {judgement.feedback_id for judgement in store.judgements()}) == count

        for start in (0, 20, 40):
            await asyncio.gather(*(emit_feedback(log, record) for record in records[start : start + 20]))
            with joining(settings, store):
                await asyncio.to_thread(until, partial(arrived, start + 20), 10.0)
        funnel = store.funnel()
        assert funnel["accepted"] == funnel["joined"] + funnel["superseded"]
        await log.stop()

    async def test_read_receipts_and_lag(
        self, settings: FeedbackSettings, store: PreferenceStore, tmp_path: Path
    ) -> None:
        """What a spool keeps until it is read goes once the joiner has committed past it."""
        keeping = settings.model_copy(update={"keep_until_read": "always"})
        log = EventLog(keeping, tmp_path / "spool")
        await log.start()
        await asyncio.gather(*(emit_response(log, make_response(str(uuid.uuid4()))) for _ in range(20)))
        kept = lambda: log.state().spool.kept  # type: ignore[union-attr] # noqa: E731
        assert kept() == 20
        with joining(settings, store) as joiner:
            await asyncio.to_thread(until, lambda: kept() == 0, 10.0)
            await asyncio.to_thread(until, lambda: joiner.state.lag_records.get(RESPONSES) == 0, 5.0)
        await log.stop()
        admin = admin_client(settings)
        cluster_id = read_cluster_id(admin)
        read = admin.list_group_offsets({joiner_group(cluster_id): None})[joiner_group(cluster_id)]
        admin.close()
        stored = store.offsets(cluster_id)
        assert {(part.topic, part.partition): place.offset for part, place in read.items()} == stored

    async def test_poison_is_dead_lettered_and_its_partition_moves_on(
        self, settings: FeedbackSettings, store: PreferenceStore
    ) -> None:
        from feedback.dlq import read_letters
        from feedback.event import envelope
        from feedback.producer import Producer

        response = make_response(str(uuid.uuid4()), conversation_id="poisoned")
        thumb = make_feedback(str(uuid.uuid4()), [response])
        poison = uuid.uuid4().bytes + b"\xff"
        admin = admin_client(settings)
        ensure_topics(settings)
        producer = Producer(settings, read_cluster_id(admin))
        admin.close()

        def event(topic: str, kind: str, value: bytes) -> Event:
            return Event(topic, b"poisoned", value, envelope(event_id="e", type=kind, tenant="acme"))

        producer.send_all(
            [
                event(FEEDBACK, FEEDBACK_TYPE, poison),
                event(FEEDBACK, "foldback.v9.FeedbackRecorded", poison),
                Event(FEEDBACK, b"poisoned", poison, ()),
                event(RESPONSES, RESPONSE_TYPE, response.SerializeToString()),
                event(FEEDBACK, FEEDBACK_TYPE, thumb.SerializeToString()),
            ],
            10.0,
        )
        producer.close()
        with joining(settings, store):
            until(lambda: thumb.feedback_id in {j.feedback_id for j in store.judgements()}, 10.0)
            letters = lambda: [x.reason for x in read_letters(settings) if x.letter.value == poison]  # noqa: E731
            until(lambda: len(letters()) == 3, 10.0)
        assert sorted(letters()) == ["UNDECODABLE", "UNDECODABLE", "UNKNOWN_SCHEMA"]
