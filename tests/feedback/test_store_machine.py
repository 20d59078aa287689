"""The preference store against a model in a few lines, under every order, repetition and crash hypothesis thinks of.

The model: what became of each feedback is a function of the *set* of events delivered.
"""

import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from feedback.record import Record
from feedback.store import PreferenceStore
from feedback.topics import DLQ, FEEDBACK, OUTCOMES
from foldback.v1 import events_pb2, feedback_pb2
from tests.feedback.events import Loggable, as_record, make_erasure, make_feedback, make_response, make_retraction
from tests.feedback.events import ranking as tiers

RESPONSES = [
    make_response("r0", rater_id="carol", serve_time=1.5),
    make_response("r1", candidates=1, rater_id="bob", serve_time=2.5),
    make_response("r2", consent=False, rater_id="alice", serve_time=3.5),
]
UP, DOWN = {"thumbs": feedback_pb2.THUMBS_UP}, {"thumbs": feedback_pb2.THUMBS_DOWN}
RATING = {"rating": feedback_pb2.Rating(value=3, min=1, max=5)}
COMPARISON = {"ranking": tiers(["r1-0"], ["r0-0", "r0-1"])}


def pool() -> tuple[list[events_pb2.FeedbackRecorded], list[events_pb2.FeedbackRecorded]]:
    """Few feedbacks, so that they meet: same rater, same response, same kind, other times."""
    given: list[tuple[str, list[int], float, dict[str, Any]]] = [
        *((rater, [0], time, UP) for rater in ("alice", "bob") for time in (1.0, 2.0, 3.0)),
        ("alice", [0], 2.0, DOWN),
        ("alice", [0], 2.0, UP | {"candidate_id": "r0-1"}),
        ("alice", [1], 1.0, RATING),
        ("alice", [1], 3.0, RATING),
        ("bob", [2], 2.0, UP),
        ("alice", [0, 1], 2.0, COMPARISON),
        ("alice", [1, 0], 3.0, COMPARISON),
        ("bob", [0, 2], 3.0, {"ranking": tiers(["r2-0"], ["r0-0"])}),
        ("bob", [0], 2.0, {"ranking": tiers(["r0-0", "r0-1"])}),
        ("bob", [0], 3.0, {"ranking": tiers(rejected_all=True)}),
        *(("alice", [0], time, {"comment": feedback_pb2.Comment(text="too long")}) for time in (1.0, 3.0)),
        *(
            ("bob", [0], 2.0, {"demonstration": feedback_pb2.Demonstration(candidate_id=f"r0-{n}", text="better")})
            for n in (0, 1)
        ),
    ]
    feedback = [
        make_feedback(f"f{number}", [RESPONSES[index] for index in about], rater_id=rater, time=time, **content)
        for number, (rater, about, time, content) in enumerate(given)
    ]
    return feedback, [make_retraction(f"x{number}", feedback[number]) for number in (0, 1, 2, 5, 9, 12, 15, 18)]


FINAL = {
    "current": feedback_pb2.FEEDBACK_STATE_JOINED,
    "superseded": feedback_pb2.FEEDBACK_STATE_SUPERSEDED,
    "dead": feedback_pb2.FEEDBACK_STATE_DEAD_LETTERED,
}
FEEDBACK_POOL, RETRACTION_POOL = pool()
MOSTLY_FEEDBACK = st.one_of(
    *[st.sampled_from(FEEDBACK_POOL)] * 3, *[st.sampled_from(RESPONSES)] * 2, *[st.sampled_from(RETRACTION_POOL)] * 2
)


class Model:
    """Events delivered so far, and what must follow."""

    def __init__(self) -> None:
        self.responses: dict[str, events_pb2.ResponseRecorded] = {}
        self.feedback: dict[str, events_pb2.FeedbackRecorded] = {}
        self.retracted: set[str] = set()
        self.erased: dict[str, float] = {}

    def deliver(self, event: Loggable) -> None:
        match event:
            case events_pb2.ResponseRecorded():
                self.responses.setdefault(event.response_id, event)
            case events_pb2.FeedbackRecorded() if event.retracts:
                self.retracted.add(event.retracts)
            case events_pb2.FeedbackRecorded():
                self.feedback.setdefault(event.feedback_id, event)
            case _:
                time = event.request_time.ToNanoseconds() / 1e9
                self.erased[event.rater_id] = max(time, self.erased.get(event.rater_id, 0.0))

    def states(self) -> dict[str, str]:
        states = {name: self.state_alone(event) for name, event in self.feedback.items()}
        latest: dict[tuple[object, ...], tuple[int, str]] = {}
        for name, event in self.feedback.items():
            if states[name] == "joined":
                rank = (event.receive_time.ToNanoseconds(), name)
                latest[opinion(event)] = max(rank, latest.get(opinion(event), rank))
        for name, event in self.feedback.items():
            if states[name] == "joined":
                states[name] = "current" if latest[opinion(event)][1] == name else "superseded"
        return states

    def state_alone(self, event: events_pb2.FeedbackRecorded) -> str:
        served = [self.responses.get(claim.response_id) for claim in event.claims]
        if self.is_erased(event.feedback.rater_id, event.receive_time):
            return "erased"
        if any(response and self.is_erased(response.rater_id, response.serve_time) for response in served):
            return "erased"
        if None in served:
            return "waiting"
        return "joined" if all(response and response.training_consent for response in served) else "dead"

    def is_erased(self, rater_id: str, time: Timestamp) -> bool:
        return time.ToNanoseconds() / 1e9 <= self.erased.get(rater_id, 0.0)


def opinion(event: events_pb2.FeedbackRecorded) -> tuple[object, ...]:
    feedback = event.feedback
    about = tuple(sorted(claim.response_id for claim in event.claims))
    candidate = feedback.candidate_id or feedback.demonstration.candidate_id
    return feedback.rater_id, feedback.WhichOneof("kind"), candidate, about


class StoreMachine(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.store = PreferenceStore(self.folder / "store")
        self.model = Model()
        self.offset = 0
        self.delivered: list[Loggable] = []
        self.clusters = 1
        self.sequences: dict[str, int] = {}
        self.highest = 0

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.folder)

    @rule(batch=st.lists(MOSTLY_FEEDBACK, min_size=1, max_size=8))
    def deliver_in_any_order(self, batch: list[Loggable]) -> None:
        self.deliver(batch)

    def deliver(self, batch: list[Loggable]) -> None:
        self.store.ingest(self.records(batch), "c1", {(FEEDBACK, 0): self.offset + len(batch)}, now=0.0)
        self.offset += len(batch)
        self.delivered += batch
        for event in batch:
            self.model.deliver(event)

    @precondition(lambda self: self.offset > 5)
    @rule(rater=st.sampled_from(["alice", "bob", "carol"]), time=st.sampled_from([1.5, 2.0, 2.5]))
    def erase(self, rater: str, time: float) -> None:
        self.deliver([make_erasure(rater, time)])

    @rule(batch=st.lists(MOSTLY_FEEDBACK, max_size=4))
    def crash_before_commit(self, batch: list[Loggable]) -> None:
        """Whatever ends a batch half-way leaves neither rows nor offsets of it."""
        broken = [*self.records(batch), Record("no.such.topic", 0, 0, b"", b"", "")]
        with pytest.raises(ValueError, match="no topic"):
            self.store.ingest(broken, "c1", {(FEEDBACK, 0): 10**6}, now=0.0)

    @rule()
    def kill(self) -> None:
        """Reopened beside the old connections, as after kill -9."""
        abandoned, self.store = self.store, PreferenceStore(self.folder / "store")
        abandoned.close()

    @precondition(lambda self: self.delivered)
    @rule(data=st.data())
    def rebalance(self, data: st.DataObject) -> None:
        """Another joiner takes the partition over from an older offset, and reads again what was read since."""
        behind = self.delivered[-data.draw(st.integers(1, len(self.delivered))) :]
        self.store.ingest(self.records(behind), "c1", {(FEEDBACK, 0): self.offset}, now=0.0)

    @precondition(lambda self: self.delivered)
    @rule()
    def other_brokers(self) -> None:
        """The brokers have forgotten everything; the spools send all of it again, to offsets that begin anew."""
        self.clusters += 1
        cluster = f"c{self.clusters}"
        assert self.store.meet_cluster(cluster)
        assert self.store.offsets(cluster).get((FEEDBACK, 0), 0) == 0
        self.store.ingest(self.records(self.delivered), cluster, {(FEEDBACK, 0): len(self.delivered)}, now=0.0)
        assert not self.store.meet_cluster(cluster)

    @precondition(lambda self: self.model.feedback)
    @rule(data=st.data())
    def learn(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.model.feedback)))
        self.store.mark_learned([name], "p000002-0")

    @invariant()
    def the_store_agrees_with_the_model(self) -> None:
        expected = self.model.states()
        with sqlite3.connect(self.folder / "store") as db:
            rows = db.execute("SELECT feedback_id, state, retracted, learned_version FROM feedback").fetchall()
        assert {name: state for name, state, _, _ in rows} == expected
        assert {name for name, _, retracted, _ in rows if retracted} == self.model.retracted & expected.keys()
        assert self.store.offsets("c1").get((FEEDBACK, 0), 0) == self.offset
        self.check_judgements({n for n, s in expected.items() if s == "current"} - self.model.retracted)
        self.check_funnel(expected)
        self.check_news(rows)

    def check_judgements(self, expected: set[str]) -> None:
        judgements = self.store.judgements()
        assert {judgement.feedback_id for judgement in judgements} == expected
        assert self.store.judgement_count() == len(judgements)
        assert [j.sequence for j in judgements] == sorted({j.sequence for j in judgements})
        for judgement in judgements:
            known = self.sequences.setdefault(judgement.feedback_id, judgement.sequence)
            assert known == judgement.sequence
        fresh = [j.sequence for j in judgements if j.sequence > self.highest]
        assert [j.sequence for j in self.store.judgements(after=self.highest)] == fresh
        self.highest = max([self.highest, *fresh])

    def check_funnel(self, expected: dict[str, str]) -> None:
        funnel = self.store.funnel()
        parts = ("joined", "waiting", "superseded", "retracted", "erased", "dead_feedback")
        assert funnel["accepted"] == len(expected) == sum(funnel[part] for part in parts)

    def check_news(self, rows: list[tuple[str, str, int, str | None]]) -> None:
        """The last that servers were told of each feedback is what holds; what died was dead-lettered once."""
        letters = [entry.event_id for entry in self.store.outbox(10**6) if entry.topic == DLQ]
        assert len(letters) == len(set(letters))
        last: dict[str, events_pb2.FeedbackOutcome] = {}
        for entry in self.store.outbox(10**6):
            if entry.topic == OUTCOMES:
                outcome = events_pb2.FeedbackOutcome.FromString(entry.value)
                last[outcome.feedback_id] = outcome
        for name, state, retracted, learned_version in rows:
            if state in FINAL:
                expected = FINAL[state]
                if retracted and state != "dead":
                    expected = feedback_pb2.FEEDBACK_STATE_RETRACTED
                elif state == "current" and learned_version:
                    expected = feedback_pb2.FEEDBACK_STATE_LEARNED
                assert last[name].state == expected
                assert last[name].policy_version == (learned_version or "")

    def records(self, batch: list[Loggable]) -> list[Record]:
        return [as_record(event, self.offset + place) for place, event in enumerate(batch)]


StoreMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
TestStore = StoreMachine.TestCase
