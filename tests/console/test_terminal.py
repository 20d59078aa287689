"""`foldback chat` on a terminal: one key rates, without Enter."""

import os
import pty
import select
import subprocess
import sys
import termios
import time
from pathlib import Path

from foldback.v1 import feedback_pb2
from tests.console.fake_server import FakeFoldback

ROOT = Path(__file__).parents[2]


class Terminal:
    """`foldback chat` behind a pseudo-terminal: what it shows, and a keyboard."""

    def __init__(self) -> None:
        self._screen, inside = pty.openpty()
        command = [sys.executable, "-m", "console.cli", "chat"]
        self.process = subprocess.Popen(
            command, stdin=inside, stdout=inside, stderr=inside, cwd=ROOT, start_new_session=True
        )
        os.close(inside)
        self.shown = ""

    def press(self, keys: str) -> None:
        os.write(self._screen, keys.encode())

    def wait_for_single_keys(self, within_s: float = 30) -> None:
        """Until keys are read one by one; what is pressed while the terminal still waits for lines is dropped."""
        deadline = time.monotonic() + within_s
        while termios.tcgetattr(self._screen)[3] & termios.ICANON:
            assert time.monotonic() < deadline, self.shown
            time.sleep(0.05)

    def wait_for(self, text: str, within_s: float = 30) -> None:
        """Until `text` is shown after what was waited for before."""
        deadline = time.monotonic() + within_s
        while text not in self.shown:
            assert time.monotonic() < deadline, self.shown
            if select.select([self._screen], [], [], 0.1)[0]:
                self.shown += os.read(self._screen, 4096).decode(errors="replace")
        self.shown = self.shown.partition(text)[2]


def test_one_key_rates_and_control_d_leaves(fake_server: FakeFoldback) -> None:
    terminal = Terminal()
    terminal.wait_for("you ▸")
    terminal.press("tea?\r")
    terminal.wait_for("uit ▸")
    terminal.wait_for_single_keys()
    terminal.press("u")
    terminal.wait_for("in the event log")
    terminal.wait_for("you ▸")
    terminal.press("\x04")
    terminal.wait_for("foldback status")
    assert terminal.process.wait(30) == 0
    (feedback,) = fake_server.feedback.values()
    assert feedback.thumbs == feedback_pb2.THUMBS_UP
