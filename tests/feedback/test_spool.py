"""The spool: fsynced, ordered, bounded; whole after kill -9 and after a torn write."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from feedback.event import Event, Position
from feedback.spool import Spool, SpoolFull


def event(number: int) -> Event:
    return Event("topic", b"key", f"value {number}".encode(), (("ce_id", str(number).encode()),))


def numbers(spool: Spool) -> list[int]:
    return [int(item.event.headers[0][1]) for item in spool.next_unsent(1000)]


def test_keeps_order_and_content_over_a_restart(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 1 << 20)
    assert spool.append([(event(number), None) for number in range(5)]) == [None] * 5
    spool.close()
    again = Spool(tmp_path / "spool", 1 << 20)
    assert [item.event for item in again.next_unsent(100)] == [event(number) for number in range(5)]
    assert again.unsent == 5
    again.close()


def test_full_refuses_and_has_room_again_once_drained(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 3 * event(0).size)
    outcomes = spool.append([(event(number), None) for number in range(4)])
    assert outcomes[:3] == [None] * 3
    assert isinstance(outcomes[3], SpoolFull)
    assert not spool.has_room(event(4))
    sent = [(item.sequence, Position(0, place)) for place, item in enumerate(spool.next_unsent(2))]
    spool.mark_sent("c1", sent, keep=False)
    assert spool.append([(event(4), None)]) == [None]
    assert numbers(spool) == [2, 4]
    spool.close()


def test_what_a_forgetful_cluster_got_is_sent_again_unless_read(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 1 << 20)
    spool.append([(event(number), ("c1", Position(0, number))) for number in range(4)])
    assert spool.unsent == 0
    spool.forget_read("c2", {("topic", 0): 4})  # offsets of another cluster say nothing
    spool.forget_read("c1", {("topic", 0): 1, ("other", 0): 9})
    assert spool.state().kept == 3
    assert spool.unsend_elsewhere("c1") == 0
    assert spool.unsend_elsewhere("c2") == 3
    assert numbers(spool) == [1, 2, 3]
    spool.close()


def test_a_refused_event_is_kept_aside(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 1 << 20)
    spool.append([(event(0), None), (event(1), None)])
    spool.mark_refused(spool.next_unsent(1)[0].sequence, "too large")
    assert numbers(spool) == [1]
    assert spool.state().refused == 1
    spool.close()


WRITER = """
import sys
from pathlib import Path
from tests.feedback.test_spool import event
from feedback.spool import Spool
spool = Spool(Path(sys.argv[1]), 1 << 30)
for number in range(100_000):
    spool.append([(event(number), None)])
    print(number, flush=True)
"""


def test_kill_9_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    answered = [int(writer.stdout.readline()) for _ in range(50)]
    os.kill(writer.pid, signal.SIGKILL)
    answered += [int(line) for line in writer.stdout]
    writer.wait()
    spool = Spool(path, 1 << 30)
    kept = numbers(spool)
    assert kept[: len(answered)] == answered
    assert len(kept) <= len(answered) + 1  # at most the one whose answer was cut off
    spool.close()


@pytest.mark.parametrize("cut", [1, 700, 4000])
def test_a_torn_write_costs_only_what_was_torn(tmp_path: Path, cut: int) -> None:
    source = Spool(tmp_path / "spool", 1 << 20)
    for number in range(20):
        source.append([(event(number), None)])
    wal = (tmp_path / "spool-wal").read_bytes()
    torn = tmp_path / "torn"
    torn.write_bytes((tmp_path / "spool").read_bytes())
    (tmp_path / "torn-wal").write_bytes(wal[:-cut])
    source.close()
    spool = Spool(torn, 1 << 20)
    kept = numbers(spool)
    assert kept == list(range(len(kept)))
    assert len(kept) >= 18
    spool.close()
