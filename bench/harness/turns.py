"""Two processes that take turns: each works only when it is told to, and says how long it took."""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class Contestant:
    """A child that answers each line "go" with a line of JSON. Its other output goes to `log`."""

    def __init__(self, command: Sequence[str | Path], environment: dict[str, str], log: Path) -> None:
        self._log = log.open("w")
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, env=environment
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def go(self) -> dict[str, Any]:
        """Let it do one piece of work. Raises RuntimeError with the end of its log if it died."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("{"):
                return dict(json.loads(line))
        self._log.flush()
        raise RuntimeError(f"{self._log.name} ends with:\n{Path(self._log.name).read_text()[-2000:]}")


class Turn:
    """The child's side."""

    def __init__(self) -> None:
        self._began = time.perf_counter(), time.process_time()
        # Whatever else prints, progress bars and logs, must not end up between the answers.
        self._answers, sys.stdout = sys.stdout, sys.stderr

    def await_go(self) -> bool:
        """False when there is no more to do."""
        told = sys.stdin.readline()
        self._began = time.perf_counter(), time.process_time()
        return bool(told)

    def done(self, **figures: float) -> None:
        seconds, cpu_seconds = time.perf_counter() - self._began[0], time.process_time() - self._began[1]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        answer = {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_gib": peak, **figures}
        print(json.dumps(answer), file=self._answers, flush=True)
