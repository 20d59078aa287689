"""The preference store, case by case; the orders they may come in are test_store_machine's."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from feedback.store import PreferenceStore
from feedback.topics import DLQ, FEEDBACK, OUTCOMES
from foldback.v1 import events_pb2, feedback_pb2
from tests.feedback.events import (
    Loggable,
    as_record,
    make_erasure,
    make_feedback,
    make_response,
    make_retraction,
    ranking,
)

UP, DOWN = feedback_pb2.THUMBS_UP, feedback_pb2.THUMBS_DOWN
RESPONSE = make_response("r", candidates=3)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PreferenceStore]:
    store = PreferenceStore(tmp_path / "store")
    yield store
    store.close()


def ingest(store: PreferenceStore, *events: Loggable, now: float = 0.0) -> None:
    store.ingest([as_record(event, place) for place, event in enumerate(events)], "c1", {}, now=now)


def letters(store: PreferenceStore) -> list[events_pb2.DeadLetter]:
    return [events_pb2.DeadLetter.FromString(entry.value) for entry in store.outbox(1000) if entry.topic == DLQ]


def reasons(store: PreferenceStore) -> list[str]:
    return [events_pb2.DeadLetterReason.Name(x.reason).removeprefix("DEAD_LETTER_REASON_") for x in letters(store)]


def states(store: PreferenceStore) -> list[tuple[str, str]]:
    """(feedback id, state) of every outcome, as servers are told."""
    outcomes = [events_pb2.FeedbackOutcome.FromString(x.value) for x in store.outbox(1000) if x.topic == OUTCOMES]
    return [(x.feedback_id, feedback_pb2.FeedbackState.Name(x.state).removeprefix("FEEDBACK_STATE_")) for x in outcomes]


def test_ranking_with_ties_speaks_of_the_ranked_alone(store: PreferenceStore) -> None:
    four = make_response("r4", candidates=4)
    ingest(store, four, make_feedback("f", [four], ranking=ranking(["r4-3", "r4-1"], ["r4-0"])))
    (judgement,) = store.judgements()
    assert [answer.candidate_id for answer in judgement.answers] == ["r4-0", "r4-1", "r4-3"]
    assert judgement.tiers == ((2, 1), (0,))
    assert judgement.answers[0].text == "answer 0"
    assert judgement.answers[2].token_ids == (4, 8)
    assert judgement.prompt_token_ids == (1, 2, 3)


def test_rejected_all_speaks_of_all(store: PreferenceStore) -> None:
    ingest(store, RESPONSE, make_feedback("f", [RESPONSE], ranking=ranking(rejected_all=True)))
    (judgement,) = store.judgements()
    assert judgement.rejected_all
    assert len(judgement.answers) == 3
    assert judgement.tiers == ()


def test_a_regenerated_response_is_compared_with_the_first(store: PreferenceStore) -> None:
    again = make_response("again", candidates=1)
    comparison = make_feedback("f", [RESPONSE, again], ranking=ranking(["again-0"], ["r-0"]))
    ingest(store, comparison, again)
    assert store.funnel()["waiting"] == 1
    ingest(store, RESPONSE)
    (judgement,) = store.judgements()
    assert judgement.response_id == "r"
    assert [answer.candidate_id for answer in judgement.answers] == ["r-0", "again-0"]
    assert judgement.tiers == ((1,), (0,))


def test_answers_to_different_prompts_are_not_compared(store: PreferenceStore) -> None:
    other = make_response("other", prompt="And the sea?")
    ingest(store, RESPONSE, other, make_feedback("f", [RESPONSE, other], ranking=ranking(["r-0"], ["other-0"])))
    assert reasons(store) == ["INVALID"]


@pytest.mark.parametrize(("value", "score"), [(1, 0.0), (2, 0.25), (5, 1.0)])
def test_ratings_are_scaled(store: PreferenceStore, value: float, score: float) -> None:
    ingest(store, RESPONSE, make_feedback("f", [RESPONSE], rating=feedback_pb2.Rating(value=value, min=1, max=5)))
    assert store.judgements()[0].score == score


def test_demonstration_and_comment_carry_their_text(store: PreferenceStore) -> None:
    edit = feedback_pb2.Demonstration(candidate_id="r-1", text="Rayleigh scattering.")
    ingest(
        store,
        RESPONSE,
        make_feedback("f1", [RESPONSE], demonstration=edit),
        make_feedback("f2", [RESPONSE], comment=feedback_pb2.Comment(text="too long")),
    )
    demonstration, comment = store.judgements()
    assert store.judgements(kind="demonstration") == [demonstration]
    assert (demonstration.text, [a.candidate_id for a in demonstration.answers]) == ("Rayleigh scattering.", ["r-1"])
    assert (comment.text, len(comment.answers), comment.score) == ("too long", 3, None)


def test_thumbs_on_two_candidates_are_two_opinions(store: PreferenceStore) -> None:
    ingest(
        store,
        RESPONSE,
        make_feedback("f1", [RESPONSE], thumbs=UP, candidate_id="r-0"),
        make_feedback("f2", [RESPONSE], thumbs=DOWN, candidate_id="r-1"),
        make_feedback("f3", [RESPONSE], thumbs=DOWN, candidate_id="r-0", time=9.0),
    )
    assert [(j.feedback_id, j.sequence) for j in store.judgements()] == [("f2", 2), ("f3", 3)]
    assert [j.feedback_id for j in store.judgements(after=2)] == ["f3"]
    assert states(store)[-2:] == [("f1", "SUPERSEDED"), ("f3", "JOINED")]


def test_same_id_other_content_is_a_conflict_and_changes_nothing(store: PreferenceStore) -> None:
    first, second = make_feedback("f", [RESPONSE], thumbs=UP), make_feedback("f", [RESPONSE], thumbs=DOWN)
    ingest(store, RESPONSE, first, second, second, first)
    assert reasons(store) == ["ID_CONFLICT"]
    assert store.judgements()[0].score == 1.0
    assert states(store) == [("f", "JOINED")]


def test_claims_that_differ_from_the_response(store: PreferenceStore) -> None:
    forged = make_feedback("f1", [RESPONSE])
    forged.claims[0].candidate_ids.append("r-9")
    foreign = make_feedback("f2", [RESPONSE])
    foreign.claims[0].tenant = "other"
    ingest(store, RESPONSE, forged, foreign)
    assert reasons(store) == ["CLAIMS_MISMATCH"] * 2
    assert store.judgements() == []
    assert states(store) == [("f1", "DEAD_LETTERED"), ("f2", "DEAD_LETTERED")]


def test_without_consent_nothing_is_learned_and_no_text_goes_further(store: PreferenceStore) -> None:
    private = make_response("private", consent=False)
    edit = feedback_pb2.Demonstration(candidate_id="private-0", text="my secret")
    ingest(store, private, make_feedback("f", [private], demonstration=edit))
    assert reasons(store) == ["NO_CONSENT"]
    assert letters(store)[0].value == b""
    assert store.judgements() == []
    assert store.recent_prompts(10) == []


def test_feedback_whose_response_never_comes(store: PreferenceStore) -> None:
    ingest(store, make_feedback("f1", [RESPONSE]), now=100.0)
    ingest(store, make_feedback("f2", [RESPONSE], rater_id="late"), now=150.0)
    assert store.expire_waiting(60.0, now=159.0) == 0
    assert store.expire_waiting(60.0, now=161.0) == 1
    assert store.expire_waiting(60.0, now=161.0) == 0
    (letter,) = letters(store)
    assert (reasons(store), letter.feedback_id, letter.topic) == (["RESPONSE_MISSING"], "f1", FEEDBACK)
    ingest(store, RESPONSE, now=162.0)
    assert [j.feedback_id for j in store.judgements()] == ["f2"]


def test_only_the_rater_retracts(store: PreferenceStore) -> None:
    thumb = make_feedback("f", [RESPONSE])
    ingest(store, RESPONSE, thumb, make_retraction("x1", thumb, rater_id="stranger"))
    assert reasons(store) == ["CLAIMS_MISMATCH"]
    assert len(store.judgements()) == 1
    ingest(store, make_retraction("x2", thumb))
    assert store.judgements() == []
    assert store.funnel()["retracted"] == 1


def test_a_retraction_of_nothing_is_dead_lettered_at_its_horizon(store: PreferenceStore) -> None:
    ingest(store, make_retraction("x", make_feedback("never", [RESPONSE])), now=0.0)
    assert store.expire_waiting(60.0, now=61.0) == 1
    assert reasons(store) == ["RESPONSE_MISSING"]


@pytest.mark.parametrize("erased_first", [True, False])
def test_what_an_erased_reader_was_served_is_gone_for_every_judge(store: PreferenceStore, erased_first: bool) -> None:
    events: list[Loggable] = [make_feedback("f", [RESPONSE], rater_id="annotator"), make_erasure("reader", 5.0)]
    ingest(store, RESPONSE, *(reversed(events) if erased_first else events))
    assert store.judgements() == []
    assert store.recent_prompts(10) == []
    assert store.funnel()["erased"] == 1


def test_erasure_leaves_no_text_in_the_files(store: PreferenceStore, tmp_path: Path) -> None:
    edit = feedback_pb2.Demonstration(candidate_id="r-1", text="remember-me-not")
    ingest(store, RESPONSE, make_feedback("f", [RESPONSE], rater_id="gone", demonstration=edit))
    assert b"remember-me-not" in everything(tmp_path)
    ingest(store, make_erasure("gone", 5.0))
    assert b"remember-me-not" not in everything(tmp_path)
    ingest(store, make_feedback("f", [RESPONSE], rater_id="gone", demonstration=edit))
    assert b"remember-me-not" not in everything(tmp_path)


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


def test_the_first_version_that_learned_stays_on_record(store: PreferenceStore) -> None:
    ingest(store, RESPONSE, make_feedback("f", [RESPONSE]))
    store.mark_learned(["f", "unknown"], "p000002-0")
    store.mark_learned(["f"], "p000003-0")
    outcome = events_pb2.FeedbackOutcome.FromString(store.outbox(10)[-1].value)
    assert (outcome.state, outcome.policy_version) == (feedback_pb2.FEEDBACK_STATE_LEARNED, "p000002-0")
    assert store.funnel()["learned"] == 1


def test_prompts_are_recent_first_and_distinct(store: PreferenceStore) -> None:
    served = [
        make_response("a", prompt="one", serve_time=1.0),
        make_response("b", prompt="two", serve_time=3.0),
        make_response("c", prompt="one", serve_time=2.0),
    ]
    ingest(store, *served)
    assert [(p.messages[0][1], p.serve_time) for p in store.recent_prompts(5)] == [("two", 3.0), ("one", 2.0)]
    assert len(store.recent_prompts(1)) == 1


def test_offsets_belong_to_a_cluster(store: PreferenceStore) -> None:
    store.ingest([], "c1", {(FEEDBACK, 0): 7})
    store.ingest([], "c2", {(FEEDBACK, 0): 2})
    assert store.offsets("c1") == {(FEEDBACK, 0): 7}
    assert store.offsets("c2") == {(FEEDBACK, 0): 2}
    assert store.offsets("c3") == {}


def test_the_outbox_is_cleared_up_to_what_was_acknowledged(store: PreferenceStore) -> None:
    ingest(store, RESPONSE, *(make_feedback(f"f{n}", [RESPONSE], rater_id=str(n)) for n in range(3)))
    first, second, _ = store.outbox(10)
    store.clear_outbox(second.id)
    assert first.id not in [entry.id for entry in store.outbox(10)]
    assert len(store.outbox(10)) == 1


def test_unknown_enum_values_are_dead_lettered(store: PreferenceStore) -> None:
    strange: Sequence[Loggable] = [
        make_feedback("f1", [RESPONSE], thumbs=9),
        make_feedback("f2", [RESPONSE], candidate_id="r-9", thumbs=UP),
    ]
    ingest(store, RESPONSE, *strange)
    assert reasons(store) == ["INVALID"] * 2
    assert store.funnel()["dead_feedback"] == 2


def test_dead_letters_are_counted_by_reason(store: PreferenceStore) -> None:
    assert store.dead_letters() == {}
    ingest(store, RESPONSE, make_feedback("f", [RESPONSE], thumbs=9), make_feedback("g", [make_response("late")]))
    store.expire_waiting(0.0, now=1.0)
    assert store.dead_letters() == {
        events_pb2.DEAD_LETTER_REASON_INVALID: 1,
        events_pb2.DEAD_LETTER_REASON_RESPONSE_MISSING: 1,
    }


def test_the_weight_of_raters_is_over_the_latest_judgements(store: PreferenceStore) -> None:
    assert store.raters(10) == []
    responses = [make_response(f"r{number}") for number in range(6)]
    votes = [make_feedback(f"f{n}", [response], rater_id=f"rater-{n // 2}") for n, response in enumerate(responses)]
    ingest(store, *responses, *votes)
    assert sorted(store.raters(10)) == [2, 2, 2]
    assert store.raters(2) == [2]
