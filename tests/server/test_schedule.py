"""Who gets a row: users before background work, whatever arrives when."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from server.engines.base import GenerationRequest, Sampling
from server.engines.batch import Sequence
from server.engines.detokenize import TextStream
from server.engines.schedule import Schedule


def sequence(background: bool) -> Sequence:
    sampling = Sampling(temperature=1, top_p=1, top_k=0, max_tokens=8)
    request = GenerationRequest("", (1, 2, 3), sampling, background=background)
    return Sequence(request, 0, TextStream(lambda ids: "", ()), Random(0))


@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.sampled_from(["user", "background", "finish", "step"]), st.integers(0, 99)), max_size=40),
)
def test_users_go_first_and_nobody_is_lost(max_batch: int, events: list[tuple[str, int]]) -> None:
    schedule = Schedule(max_batch)
    rows: list[Sequence] = []
    waiting: list[Sequence] = []
    for what, which in events:
        if what in ("user", "background"):
            waiting.append(sequence(what == "background"))
            schedule.add(waiting[-1:])
        elif what == "finish" and rows:
            rows[which % len(rows)].done = True
        elif what == "step":
            joining, leaving = schedule.pick(rows)
            assert all(s.request.background for s in leaving)
            rows = [s for s in rows if not s.done and s not in leaving] + joining
            waiting = [s for s in waiting if s not in joining] + leaving
            assert len(rows) <= max_batch
            assert len(set(rows)) == len(rows)
            if any(not s.request.background for s in waiting):
                assert len(rows) == max_batch, "a user waits beside a free row"
                assert not any(s.request.background for s in rows), "a user waits while background work decodes"
            elif waiting:
                assert len(rows) == max_batch, "background work waits beside a free row"


def test_what_gave_way_goes_on_first() -> None:
    schedule = Schedule(max_batch=1)
    first, second, user = sequence(True), sequence(True), sequence(False)
    schedule.add([first, second])
    assert schedule.pick([]) == ([first], [])
    schedule.add([user])
    assert schedule.pick([first]) == ([user], [first])
    user.done = True
    assert schedule.pick([user]) == ([first], [])
