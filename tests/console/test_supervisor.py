"""Children are started in order, watched, and never outlive their parent."""

import asyncio
import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from console.errors import CommandError
from console.supervisor import Service, ServiceFailed, Supervisor

OBEDIENT = "import time, pathlib, sys; pathlib.Path(sys.argv[1]).touch(); time.sleep(600)"
STUBBORN = (
    "import signal, time, pathlib, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "pathlib.Path(sys.argv[1]).touch(); time.sleep(600)"
)
POLITE = (
    "import signal, time, pathlib, sys\n"
    "def stop(*_):\n"
    "    with open(sys.argv[2], 'a') as log: log.write(sys.argv[3] + '\\n')\n"
    "    sys.exit(0)\n"
    "signal.signal(signal.SIGTERM, stop)\n"
    "pathlib.Path(sys.argv[1]).touch()\n"
    "time.sleep(600)\n"
)
PARENT_OF_ONE = (
    "import subprocess, sys, time, pathlib;"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
    "pathlib.Path(sys.argv[1]).write_text(str(child.pid)); time.sleep(600)"
)


def service(name: str, code: str, ready: Path, *arguments: str) -> Service:
    """A dummy that is healthy once it has made the file `ready`."""

    async def healthy() -> bool:
        return await asyncio.to_thread(ready.exists)

    return Service(name, [sys.executable, "-c", code, str(ready), *arguments], healthy, "nowhere")


def supervisor(tmp_path: Path, start_timeout_s: float = 20, stop_timeout_s: float = 5) -> Supervisor:
    return Supervisor(tmp_path / "logs", start_timeout_s=start_timeout_s, stop_timeout_s=stop_timeout_s)


def gone(pid: int, within_s: float = 10) -> bool:
    """Whether no such process runs (a zombie does not run)."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "not within 20 s"
        await asyncio.sleep(0.05)


def take_id(path: Path) -> int:
    number = int(path.read_text())
    path.unlink()
    return number


async def test_children_stop_in_reverse_order(tmp_path: Path) -> None:
    order = tmp_path / "order"
    async with supervisor(tmp_path) as children:
        for name in ("broker", "server", "trainer"):
            await children.start(service(name, POLITE, tmp_path / f"{name}.up", str(order), name))
    assert order.read_text().split() == ["trainer", "server", "broker"]


async def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    async with supervisor(tmp_path, stop_timeout_s=0.3) as children:
        await children.start(service("stubborn", STUBBORN, tmp_path / "up"))
        process = children._children[0][1]
        began = time.monotonic()
    assert process.returncode == -signal.SIGKILL
    assert time.monotonic() - began < 5


async def test_grandchildren_go_too(tmp_path: Path) -> None:
    async with supervisor(tmp_path) as children:
        await children.start(service("parent", PARENT_OF_ONE, tmp_path / "up"))
        await asyncio.sleep(0.1)
        grandchild = int((tmp_path / "up").read_text())
    assert gone(grandchild)


async def test_a_child_that_dies_early_is_reported_with_its_last_words(tmp_path: Path) -> None:
    async with supervisor(tmp_path) as children:
        with pytest.raises(ServiceFailed, match="server ended with code 3") as death:
            await children.start(service("server", "print('no model'); raise SystemExit(3)", tmp_path / "up"))
    assert "no model" in str(death.value)
    assert "server.log" in str(death.value)


async def test_a_child_that_dies_later_ends_the_watch(tmp_path: Path) -> None:
    async with supervisor(tmp_path) as children:
        await children.start(service("broker", OBEDIENT, tmp_path / "broker.up"))
        await children.start(service("server", OBEDIENT, tmp_path / "server.up"))
        watch = asyncio.create_task(children.watch())
        await asyncio.sleep(0.1)
        assert not watch.done()
        children._children[1][1].kill()
        with pytest.raises(ServiceFailed, match="server was killed by SIGKILL"):
            await asyncio.wait_for(watch, 5)


def lines(told: list[str], count: int) -> bool:
    return len(told) == count


async def test_a_child_that_returns_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("console.supervisor.STEADY_S", 0)
    told: list[str] = []
    async with supervisor(tmp_path) as children:
        await children.start(service("server", OBEDIENT, tmp_path / "server.up"))
        code = "print('last words', flush=True);" + PARENT_OF_ONE
        await children.start(dataclasses.replace(service("trainer", code, tmp_path / "up"), returns=True))
        keep = asyncio.create_task(children.keep(told.append))
        for death in (1, 2):
            process = children._children[1][1]
            await until(lambda: (tmp_path / "up").exists() and (tmp_path / "up").read_text().isdigit())
            grandchild = take_id(tmp_path / "up")
            process.kill()
            await until(partial(lines, told, 2 * death))
            assert "trainer was killed by SIGKILL: it is started again, the others go on" in told[-2]
            assert re.fullmatch(r"trainer is back after \d+\.\d s", told[-1])
            assert gone(grandchild), "what the dead one started is ended"
        assert not keep.done()
        assert len(children._children) == 2
        children._children[0][1].kill()
        with pytest.raises(ServiceFailed, match="server was killed by SIGKILL"):
            await asyncio.wait_for(keep, 5)
    assert (tmp_path / "logs/trainer.log").read_text().count("last words") == 3


async def test_a_child_that_keeps_ending_waits_ever_longer_and_ends_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("console.supervisor.FIRST_PAUSE_S", 0.1)
    monkeypatch.setattr("console.supervisor.LONGEST_PAUSE_S", 0.4)
    told: list[str] = []
    ready, broken = tmp_path / "up", tmp_path / "broken"
    code = f"import pathlib; assert not pathlib.Path({str(broken)!r}).exists(); {PARENT_OF_ONE}"
    async with supervisor(tmp_path) as children:
        await children.start(service("server", OBEDIENT, tmp_path / "server.up"))
        await children.start(dataclasses.replace(service("trainer", code, ready), returns=True))
        server, process = (process for _, process in children._children)
        keep = asyncio.create_task(children.keep(told.append))
        broken.touch()
        ready.unlink()
        process.kill()
        await until(lambda: len(told) == 5)
        pauses = [re.findall(r"trainer (.*): it is started again in (.*) s, the others go on", news) for news in told]
        ended = "ended with code 1"
        assert pauses == [[("was killed by SIGKILL", "0.1")], *([(ended, pause)] for pause in ("0.2", *["0.4"] * 3))]
        broken.unlink()
        await until(lambda: "trainer is back after" in told[-1])
        assert not keep.done()
        assert server.returncode is None
        keep.cancel()


async def test_a_child_that_is_not_well_in_time_is_ended_and_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("console.supervisor.FIRST_PAUSE_S", 0.1)
    told: list[str] = []
    ready, slow = tmp_path / "up", tmp_path / "slow"
    code = f"import pathlib, time; pathlib.Path({str(slow)!r}).exists() and time.sleep(600); {OBEDIENT}"
    async with supervisor(tmp_path, start_timeout_s=2) as children:
        await children.start(dataclasses.replace(service("trainer", code, ready), returns=True))
        keep = asyncio.create_task(children.keep(told.append))
        slow.touch()
        ready.unlink()
        first = children._children[0][1]
        first.kill()
        await until(lambda: bool(children._children) and children._children[0][1] is not first)
        process = children._children[0][1]
        await until(lambda: len(told) == 2)
        assert "trainer is not healthy after 2 s: it is started again in 0.2 s" in told[-1]
        slow.unlink()
        await until(lambda: "trainer is back after" in told[-1])
        assert process.returncode is not None, "the slow one is ended"
        keep.cancel()


async def test_a_child_that_never_gets_well_is_given_up(tmp_path: Path) -> None:
    async with supervisor(tmp_path, start_timeout_s=0.5) as children:
        with pytest.raises(CommandError, match="not healthy after"):
            await children.start(service("slow", "import time; time.sleep(600)", tmp_path / "up"))


UP = """
import asyncio, sys
from pathlib import Path
from tests.console.test_supervisor import OBEDIENT, PARENT_OF_ONE, STUBBORN, service, supervisor
from console.up import run_until_stopped

async def main(folder):
    async with supervisor(folder, stop_timeout_s=1) as children:
        for name, code in (("obedient", OBEDIENT), ("stubborn", STUBBORN), ("parent", PARENT_OF_ONE)):
            await children.start(service(name, code, folder / f"{name}.up"))
        print(*(process.pid for _, process in children._children), flush=True)
        await children.watch()

run_until_stopped(main(Path(sys.argv[1])))
"""


def start_up(tmp_path: Path) -> tuple["subprocess.Popen[str]", list[int]]:
    """A parent with three children and a grandchild, as a process of its own; their ids."""
    parent = subprocess.Popen(
        [sys.executable, "-c", UP, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    assert parent.stdout is not None
    children = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(children) == 3
    time.sleep(0.2)
    return parent, [*children, int((tmp_path / "parent.up").read_text())]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_nothing_survives_a_parent_that_is_killed_outright(tmp_path: Path) -> None:
    parent, children = start_up(tmp_path)
    parent.kill()
    parent.wait()
    try:
        assert all(gone(pid, within_s=15) for pid in children)
    finally:
        kill(children)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_stop_all_of_it(tmp_path: Path, number: signal.Signals) -> None:
    parent, children = start_up(tmp_path)
    parent.send_signal(number)
    try:
        assert parent.wait(20) == 0
        assert all(gone(pid) for pid in children)
    finally:
        kill([parent.pid, *children])


def kill(pids: Sequence[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
