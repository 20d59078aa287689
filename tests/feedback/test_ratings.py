"""What the canary is judged by: opinions of versions, out of the judgements that count."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from feedback.ratings import Rating
from feedback.store import PreferenceStore
from foldback.v1 import events_pb2, feedback_pb2
from tests.feedback.events import Loggable, as_record, make_feedback, make_response, make_retraction, ranking

OLD, NEW = "p000001-aaaaaaaa", "p000002-bbbbbbbb"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PreferenceStore]:
    store = PreferenceStore(tmp_path / "store")
    yield store
    store.close()


def ingest(store: PreferenceStore, *events: Loggable) -> None:
    store.ingest([as_record(event, place) for place, event in enumerate(events)], "c1", {})


def served(response_id: str, version: str) -> events_pb2.ResponseRecorded:
    response = make_response(response_id)
    response.policy_version = version
    return response


def opinions(ratings: list[Rating]) -> list[tuple[str, float, str]]:
    return [(rating.version, rating.value, rating.rival) for rating in ratings]


def test_thumbs_ratings_and_rejections_have_a_value(store: PreferenceStore) -> None:
    old, new = served("old", OLD), served("new", NEW)
    ingest(
        store,
        old,
        new,
        make_feedback("f1", [old], rater_id="ann", thumbs=feedback_pb2.THUMBS_DOWN, time=5.0),
        make_feedback("f2", [new], rater_id="bob", rating=feedback_pb2.Rating(value=4, min=1, max=5)),
        make_feedback("f3", [new], rater_id="cem", ranking=feedback_pb2.Ranking(rejected_all=True)),
    )
    ratings = store.ratings((OLD, NEW))
    assert opinions(ratings) == [(OLD, 0.0, ""), (NEW, 0.75, ""), (NEW, 0.0, "")]
    assert (ratings[0].rater, ratings[0].receive_time) == ("acme/ann", 5.0)
    assert ratings[0].source == feedback_pb2.FEEDBACK_SOURCE_END_USER
    assert opinions(store.ratings((NEW,))) == opinions(ratings)[1:]
    assert opinions(store.ratings((OLD, NEW), after=ratings[1].sequence)) == [(NEW, 0.0, "")]
    assert store.last_sequence() == ratings[2].sequence


def test_what_says_nothing_of_a_version_is_left_out(store: PreferenceStore) -> None:
    new = served("new", NEW)
    ingest(
        store,
        new,
        make_feedback("f1", [new], ranking=ranking(["new-0"], ["new-1"])),
        make_feedback("f2", [new], comment=feedback_pb2.Comment(text="well")),
        make_feedback("f3", [new], demonstration=feedback_pb2.Demonstration(candidate_id="new-0", text="better")),
    )
    assert store.ratings((OLD, NEW)) == []


def test_a_ranking_across_versions_says_who_won(store: PreferenceStore) -> None:
    old, new = served("old", OLD), served("new", NEW)
    order = ranking(["new-1"], ["old-0", "new-0"], ["old-1"])
    ingest(store, old, new, make_feedback("f", [old, new], ranking=order))
    # Of four pairs the new version wins three and ties one.
    assert sorted(opinions(store.ratings((OLD, NEW)))) == [(OLD, 0.125, NEW), (NEW, 0.875, OLD)]


def test_what_was_taken_back_does_not_count(store: PreferenceStore) -> None:
    new = served("new", NEW)
    first = make_feedback("f1", [new], rater_id="ann", thumbs=feedback_pb2.THUMBS_UP)
    changed = make_feedback("f2", [new], rater_id="ann", thumbs=feedback_pb2.THUMBS_DOWN, time=3.0)
    ingest(store, new, first)
    ingest(store, changed)
    assert opinions(store.ratings((NEW,))) == [(NEW, 0.0, "")]
    ingest(store, make_retraction("x", changed, rater_id="ann", time=4.0))
    assert store.ratings((NEW,)) == []
