"""Prometheus itself, Debian's build: promtool for the rules, a server that scrapes what runs here for the dashboard."""

import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import yaml

from settings.ports import free_port

ROOT = Path(__file__).parents[2]
START_S = 30


def tool(name: str) -> str:
    """The path of `prometheus` or `promtool`; skips the test where neither it nor Debian's packages are here."""
    if not (shutil.which(name) or shutil.which("apt-get")):
        pytest.skip(f"neither {name} nor Debian's packages are on this machine")
    fetched = subprocess.run([ROOT / "scripts/fetch_prometheus.sh"], capture_output=True, text=True)
    assert fetched.returncode == 0, fetched.stderr
    return f"{fetched.stdout.strip()}/{name}"


class Prometheus:
    def __init__(self, address: str) -> None:
        self.url = f"http://{address}"

    def get(self, path: str, **parameters: str) -> Any:
        url = f"{self.url}{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as response:
            return json.loads(response.read())["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query. Raises HTTPError where Prometheus does not understand it."""
        return list(self.get("/api/v1/query", query=expression)["result"])

    def scrapes(self) -> int:
        """How often every target has been scraped by now, the rarest counting."""
        counts = self.query("count_over_time(up[10m])")
        return min((int(sample["value"][1]) for sample in counts), default=0)


@contextmanager
def prometheus(folder: Path, jobs: dict[str, str], rules: Sequence[Path] = ()) -> Iterator[Prometheus]:
    """A server that scrapes `jobs` (name to address) every second, and evaluates `rules` as often."""
    address = f"127.0.0.1:{free_port()}"
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rule) for rule in rules],
        "scrape_configs": [
            {"job_name": name, "static_configs": [{"targets": [target]}]} for name, target in jobs.items()
        ],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    command = [
        *(tool("prometheus"), f"--config.file={folder / 'prometheus.yaml'}", f"--web.listen-address={address}"),
        f"--storage.tsdb.path={folder / 'data'}",
    ]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        running = Prometheus(address)
        _until_ready(running, process, folder / "prometheus.log")
        yield running
    finally:
        process.terminate()
        process.wait(20)


def _until_ready(running: Prometheus, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(f"{running.url}/-/ready", timeout=1).close()
            return
        except (URLError, OSError):
            time.sleep(0.1)
    raise AssertionError(f"not ready after {START_S} s: {log.read_text()}")
