"""One holder at a time, whatever clocks do and whoever crashes."""

import tempfile
import threading
from itertools import count
from pathlib import Path

import fsspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from registry import Lease

TTL_S = 10.0
_names = count()


class Replica:
    """A process with a clock of its own: some offset, and running while the others' do."""

    def __init__(self, url: str, name: str, offset: float) -> None:
        self.offset, self.now = offset, 0.0
        self.lease = Lease(url, "swap", name, TTL_S, clock=lambda: self.offset + self.now)


class LeaseMachine(RuleBasedStateMachine):
    """Replicas take, keep, give back, crash and come back, at any times; the filesystem is in memory."""

    @initialize(offsets=st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=4))
    def start(self, offsets: list[float]) -> None:
        self.url = f"memory://lease-{next(_names)}"
        self.replicas = [Replica(self.url, f"r{i}", offset) for i, offset in enumerate(offsets)]
        self.now = 0.0

    @rule(which=st.integers(0, 3))
    def acquire(self, which: int) -> None:
        replica = self.replicas[which % len(self.replicas)]
        others = [each for each in self.replicas if each is not replica and each.lease.held]
        got = replica.lease.acquire()
        assert got == replica.lease.held
        assert not (got and others), "two holders"

    @rule(which=st.integers(0, 3))
    def release(self, which: int) -> None:
        replica = self.replicas[which % len(self.replicas)]
        was_held = replica.lease.held
        replica.lease.release()
        assert not replica.lease.held
        if was_held:  # at once for whoever asks next
            other = self.replicas[(which + 1) % len(self.replicas)]
            assert other.lease.acquire()

    @rule(which=st.integers(0, 3))
    def crash(self, which: int) -> None:
        """It comes back as another process: without memory, under another name."""
        index = which % len(self.replicas)
        again = Replica(self.url, f"r{index}-{next(_names)}", self.replicas[index].offset + 12345)
        again.now = self.now
        self.replicas[index] = again

    @rule(seconds=st.floats(0, 3 * TTL_S))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        for replica in self.replicas:
            replica.now = self.now

    @rule(which=st.integers(0, 3))
    def nobody_blocks_for_ever(self, which: int) -> None:
        """All others fall silent: who asks, waits a TTL and asks again, has it."""
        replica = self.replicas[which % len(self.replicas)]
        replica.lease.acquire()
        self.wait(TTL_S + 0.001)
        assert replica.lease.acquire()

    @invariant()
    def one_holder(self) -> None:
        assert sum(replica.lease.held for replica in getattr(self, "replicas", [])) <= 1

    @invariant()
    def old_records_are_tidied_away(self) -> None:
        if hasattr(self, "url"):
            filesystem, root = fsspec.core.url_to_fs(self.url)
            assert len(filesystem.ls(f"{root}/leases/swap", detail=False)) <= 1


TestLease = LeaseMachine.TestCase
TestLease.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_of_many_who_ask_at_once_one_gets_it(scheme: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        url = Path(folder).as_uri() if scheme == "file" else f"memory://race-{next(_names)}"
        for _ in range(10):
            name = f"swap-{next(_names)}"
            leases = [Lease(url, name, f"r{i}", TTL_S) for i in range(8)]
            gate = threading.Barrier(len(leases))
            got: list[Lease] = []

            def ask(lease: Lease, gate: threading.Barrier = gate, got: list[Lease] = got) -> None:
                gate.wait()
                if lease.acquire():
                    got.append(lease)

            threads = [threading.Thread(target=ask, args=(lease,)) for lease in leases]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert [lease.held for lease in got] == [True]


def test_who_slept_over_its_turn_does_not_hold_what_it_writes_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica finds number 1 free and is suspended; others write on and tidy up; then it goes on."""
    url = f"memory://slept-{next(_names)}"
    sleeper, other = (Replica(url, name, 0.0) for name in ("sleeper", "other"))
    newest = sleeper.lease._newest

    def suspended() -> object:
        found = newest()
        for _ in range(3):
            assert other.lease.acquire()
        return found

    monkeypatch.setattr(sleeper.lease, "_newest", suspended)
    assert not sleeper.lease.acquire()
    assert (other.lease.held, sleeper.lease.held) == (True, False)
    monkeypatch.undo()
    assert not sleeper.lease.acquire()
    assert other.lease.acquire()
