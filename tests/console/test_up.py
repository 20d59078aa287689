"""`foldback up` with its real children: embedded broker, server (transformers on a tiny model), trainer."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from settings.ports import PortPicker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
ROOT = Path(__file__).parents[2]
START_S = 240


class Installation:
    """`foldback` on a data folder, a tiny model and ports of its own."""

    def __init__(self, folder: Path, model: Path) -> None:
        names = (
            "SERVER__PORT",
            "SERVER__ADMIN_PORT",
            "SERVER__METRICS_PORT",
            "TRAINER__METRICS_PORT",
            "CONSOLE__BROKER_PORT",
            "CONSOLE__WEB_PORT",
        )
        with PortPicker() as picker:
            ports = {name: picker.pick() for name in names}
        self.folder = folder
        self.environment = {
            **os.environ,
            **{f"FOLDBACK_{name}": str(port) for name, port in ports.items()},
            "FOLDBACK_DATA_DIR": str(folder / "data"),
            "FOLDBACK_MODEL__NAME": str(model),
            "FOLDBACK_SERVER__ENGINE": "transformers",
            "FOLDBACK_SERVER__MAX_MODEL_LEN": "256",
            "FOLDBACK_CONSOLE__STOP_TIMEOUT_S": "15",
        }

    def up(self) -> "subprocess.Popen[str]":
        """Started and healthy."""
        output = self.folder / "up.out"
        with output.open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "console.cli", "up"],
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=log,
                text=True,
            )
        deadline = time.monotonic() + START_S
        while "Next" not in output.read_text():
            assert process.poll() is None, output.read_text()
            assert time.monotonic() < deadline, output.read_text()
            time.sleep(0.2)
        return process

    def run(self, *arguments: str, typed: str = "") -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "console.cli", *arguments],
            cwd=ROOT,
            env=self.environment,
            input=typed,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def processes(self) -> list[int]:
        """Every living process that was started with this installation's environment."""
        mark = f"FOLDBACK_DATA_DIR={self.environment['FOLDBACK_DATA_DIR']}".encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def all_gone(self, within_s: float) -> bool:
        deadline = time.monotonic() + within_s
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.1)
        return not self.processes()


@pytest.fixture
def installation(tmp_path: Path, tiny_model: Path) -> Iterator[Installation]:
    made = Installation(tmp_path, tiny_model)
    yield made
    for pid in made.processes():
        os.kill(pid, signal.SIGKILL)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_up_serves_takes_feedback_and_stops_without_leaving_anything(installation: Installation) -> None:
    up = installation.up()
    chat = installation.run("chat", "--max-tokens", "8", typed="hello\nd\n")
    assert chat.returncode == 0, chat.stderr
    assert re.search(r"in the event log · feedback [0-9a-f-]{36}", chat.stdout), chat.stdout
    assert_joined(installation, 1)
    ranked = installation.run("rank", "tea?", "--max-tokens", "8", typed="3>1=2\n")
    assert ranked.returncode == 0, ranked.stderr
    assert_joined(installation, 2)

    second = installation.run("up")
    assert second.returncode == 1
    assert "server.port" in second.stderr
    assert "foldback status" in second.stderr

    up.send_signal(signal.SIGTERM)
    assert up.wait(60) == 0
    assert installation.all_gone(1)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_no_process_survives_an_up_that_is_killed(installation: Installation) -> None:
    up = installation.up()
    assert len(installation.processes()) >= 7, "up, leash, broker and its binary, server, trainer, web"
    up.kill()
    up.wait()
    assert installation.all_gone(30)


def test_a_dead_server_stops_the_rest_and_is_reported(installation: Installation) -> None:
    up = installation.up()
    (server,) = [
        pid
        for pid in installation.processes()
        if Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[1:3] == [b"-m", b"server"]
    ]
    os.kill(server, signal.SIGKILL)
    assert up.wait(60) == 1
    said = (installation.folder / "up.out").read_text()
    assert "server was killed by SIGKILL; the end of" in said
    assert said.index("✗ server was killed by SIGKILL\n") < said.index("stopping web page"), "told before the wait"
    assert installation.all_gone(10)


def assert_joined(installation: Installation, count: int) -> None:
    """The trainer's figures show that many ratings joined, within a generous moment."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        report = json.loads(installation.run("status", "--json").stdout)
        if report["funnel"].get("joined") == count:
            return
    raise AssertionError(report)
