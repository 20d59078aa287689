"""The joiner's pace into the preference store, and how it resumes: bench/event_log.py's second half."""

import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path

from feedback.connection import admin_client, read_cluster_id
from feedback.consumer import open_consumer
from feedback.embedded_broker import EmbeddedBroker
from feedback.event import Event, envelope
from feedback.joiner import Joiner
from feedback.producer import Producer
from feedback.record import Record
from feedback.response import RESPONSE_TYPE
from feedback.store import PreferenceStore
from feedback.submission import FEEDBACK_TYPE, build_record
from feedback.topics import ERASURES, FEEDBACK, RESPONSES, ensure_topics
from foldback.v1 import chat_pb2, events_pb2, feedback_pb2
from harness.processes import BENCH, ROOT
from harness.report import Report
from settings.feedback import FeedbackSettings

_RESUMES = 5
_TYPES = {RESPONSES: RESPONSE_TYPE, FEEDBACK: FEEDBACK_TYPE}


def measure_joining(result: Report, events: int) -> None:
    """Events a second from the brokers into the store, what became of them told."""
    with EmbeddedBroker() as broker, tempfile.TemporaryDirectory() as folder:
        settings = FeedbackSettings(bootstrap_servers=broker.bootstrap_servers)
        producer = producer_of(settings)
        produce(producer, 0, events)
        producer.close()
        rate = _join(settings, Path(folder) / "store", events)
    result.rows.append({"what": "joiner", "load": f"{events} events", "events/s": rate})
    result.target("joiner: events/s into the store", rate, at_least=5000)


def measure_resuming(result: Report, lengths: tuple[int, int]) -> None:
    """Seconds from a joiner's start to the first new event in the store, and its memory, behind histories of different
    length. The log itself is as long each time: how quickly brokers seek is theirs."""
    found = [_resume(result, length) for length in lengths]
    (short_s, short_mb), (long_s, long_mb) = found
    grown = f"{lengths[1] // lengths[0]} times the history"
    result.target(f"resume: seconds behind {grown}, of the shorter", long_s / short_s, at_most=1.5)
    result.target(f"resume: memory behind {grown}, of the shorter", long_mb / short_mb, at_most=1.2)


def _resume(result: Report, known: int) -> tuple[float, float]:
    with EmbeddedBroker() as broker, tempfile.TemporaryDirectory() as folder:
        settings, path = FeedbackSettings(bootstrap_servers=broker.bootstrap_servers), Path(folder) / "store"
        producer = producer_of(settings)
        produce(producer, 0, 2000)
        fill(settings, path, producer.cluster_id, known)
        measured = []
        for turn in range(_RESUMES):
            produce(producer, 10**7 + turn, 10**7 + turn + 2)
            command = [sys.executable, "-m", "harness.resume", str(path), broker.bootstrap_servers]
            environment = {"PYTHONPATH": f"{BENCH}:{ROOT}"}
            said = subprocess.run(command, env=environment, capture_output=True, check=True).stdout
            measured.append(tuple(map(float, said.split()[1:])))
        producer.close()
    # The quickest: what else runs on the machine only ever adds.
    seconds, memory_mb = min(each[0] for each in measured), min(each[1] for each in measured)
    result.rows.append({"what": "resume", "load": f"{known} events known", "seconds": seconds, "memory MiB": memory_mb})
    return seconds, memory_mb


def fill(settings: FeedbackSettings, path: Path, cluster_id: str, events: int) -> None:
    """A store that has joined `events`, and all that is on the brokers now."""
    consumer = open_consumer(settings, (ERASURES, RESPONSES, FEEDBACK), {})
    ends = {
        (part.topic, part.partition): end for part, end in consumer.end_offsets(sorted(consumer.assignment())).items()
    }
    consumer.close()
    store = PreferenceStore(path)
    for start in range(0, events, 20_000):
        numbers = range(start // 2, min(start + 20_000, events) // 2)
        records = [
            Record(event.topic, 0, 0, event.key, event.value, _TYPES[event.topic])
            for number in numbers
            for event in pair(number)
        ]
        store.ingest(records, cluster_id, ends)
        store.clear_outbox(store.outbox(1)[0].id + 2 * len(records))  # as the joiner does once it has told
    store.close()


def producer_of(settings: FeedbackSettings) -> Producer:
    ensure_topics(settings)
    admin = admin_client(settings)
    cluster_id = read_cluster_id(admin)
    admin.close()
    return Producer(settings, cluster_id)


def pair(number: int) -> tuple[Event, Event]:
    """An answer and a thumb on it."""
    name, conversation = str(uuid.uuid4()), f"conversation-{number}"
    response = events_pb2.ResponseRecorded(
        tenant="default",
        response_id=name,
        conversation_id=conversation,
        policy_version="p000001-0",
        messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, content=f"Why is the sky blue? ({number})")],
        prompt_token_ids=range(30),
        candidates=[events_pb2.CandidateRecord(candidate_id=f"{name}-0", text="Light scatters.", token_ids=range(60))],
        training_consent=True,
    )
    claims = events_pb2.TokenClaims(
        tenant="default",
        conversation_id=conversation,
        response_id=name,
        candidate_ids=[f"{name}-0"],
        policy_version="p000001-0",
    )
    feedback = feedback_pb2.Feedback(
        rater_id=f"rater-{number % 1000}",
        source=feedback_pb2.FEEDBACK_SOURCE_END_USER,
        thumbs=feedback_pb2.THUMBS_UP,
    )
    record = build_record(str(uuid.uuid4()), "default", feedback, [claims])
    key = conversation.encode()
    return (
        Event(RESPONSES, key, response.SerializeToString(), envelope(event_id=name, type=RESPONSE_TYPE, tenant="d")),
        Event(FEEDBACK, key, record.SerializeToString(), envelope(event_id=name, type=FEEDBACK_TYPE, tenant="d")),
    )


def produce(producer: Producer, first: int, last: int) -> None:
    """Events `first` to `last`, two a pair."""
    for start in range(first, last, 2000):
        numbers = range(start // 2, min(start + 2000, last) // 2)
        producer.send_all([event for number in numbers for event in pair(number)], 60)


def _join(settings: FeedbackSettings, path: Path, events: int) -> float:
    store, stop = PreferenceStore(path), threading.Event()
    joiner = Joiner(settings, store)
    thread = threading.Thread(target=joiner.run, args=(stop,))
    begun = time.perf_counter()
    thread.start()
    while joiner.state.consumed.total() < events or store.outbox(1):
        time.sleep(0.01)
    rate = events / (time.perf_counter() - begun)
    stop.set()
    thread.join()
    store.close()
    return rate
