"""`foldback up` as a user starts it: broker, server and trainer in processes of their own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from console.client import Client
from settings.ports import PortPicker

PORTS = (
    *("SERVER__PORT", "SERVER__ADMIN_PORT", "SERVER__METRICS_PORT"),
    *("TRAINER__METRICS_PORT", "CONSOLE__BROKER_PORT", "CONSOLE__WEB_PORT"),
)

# What makes learning quick on a model of four layers; everything else is as shipped.
QUICK = {
    "FOLDBACK_SERVER__MAX_MODEL_LEN": "1024",
    "FOLDBACK_TRAINER__JUDGEMENTS_TO_START": "24",
    "FOLDBACK_TRAINER__MAX_NEW_TOKENS": "16",
    "FOLDBACK_TRAINER__PPO__LEARNING_RATE": "3e-3",
    "FOLDBACK_TRAINER__GATE__PROMPTS": "16",
    "FOLDBACK_TRAINER__GATE__MAX_NEW_TOKENS": "16",
    # Its answers are noise, of which it has little to forget, and which keeps rules by chance.
    "FOLDBACK_TRAINER__GATE__MAX_BASE_PERPLEXITY": "100",
    "FOLDBACK_TRAINER__GATE__MAX_RULE_GROWTH": "0.99",
    "FOLDBACK_TRAINER__CANARY__ENABLED": "false",  # a trial waits for more raters than these tests have
}


class Stack:
    """Start with `start`, stop with `stop`; the data directory outlives both."""

    def __init__(self, data_dir: Path, model: Path, engine: str, **settings: str) -> None:
        with PortPicker() as picker:
            self.ports = {name: picker.pick() for name in PORTS}
        self.data_dir = data_dir
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("FOLDBACK_")},
            **{f"FOLDBACK_{name}": str(port) for name, port in self.ports.items()},
            "FOLDBACK_DATA_DIR": str(data_dir),
            "FOLDBACK_MODEL__NAME": str(model),
            "FOLDBACK_SERVER__ENGINE": engine,
            **QUICK,
            **settings,
        }

    def client(self) -> Client:
        """Every failure shows: nothing is tried again."""
        chat, admin = (f"127.0.0.1:{self.ports[name]}" for name in ("SERVER__PORT", "SERVER__ADMIN_PORT"))
        return Client(chat, admin, attempts=1)

    def start(self, timeout_s: float = 200) -> None:
        """Returns when `foldback up` says what to do next: everything is healthy then."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        said = self.data_dir / "up.txt"
        with said.open("w") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "console.cli", "up"], env=self.environment, stdout=output, stderr=output
            )
        deadline = time.monotonic() + timeout_s
        while "Next" not in said.read_text():
            if self._process.poll() is not None:
                raise RuntimeError(f"'foldback up' ended: {said.read_text()}")
            if time.monotonic() > deadline:
                self.stop()
                raise TimeoutError(f"not up after {timeout_s} s: {said.read_text()} {self.logs()}")
            time.sleep(0.1)

    def stop(self) -> int:
        """Ctrl-C. Returns the exit code."""
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(timeout=60)

    def command(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run `foldback …` against this stack."""
        return subprocess.run(
            [sys.executable, "-m", "console.cli", *arguments],
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def logs(self) -> str:
        return "\n".join(
            f"== {path.name}\n{path.read_text()[-2000:]}" for path in sorted((self.data_dir / "logs").glob("*.log"))
        )
