"""`foldback doctor` before what is whole, what is broken and what is not there."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from console.client import Client
from console.doctor import machine, services
from console.doctor.finding import Finding, Level
from server.app import Running, running
from server.keys import digest, new_key
from settings import Settings
from settings.access import AccessSettings, ApiKey
from settings.ports import PortPicker
from tests.console.fake_server import FakeFoldback
from tests.feedback.proxied_broker import proxied_broker
from tests.feedback.sasl import SaslGate
from tests.integration.stack import PORTS, Stack
from tests.server.conftest import server_settings

Report = dict[str, list[dict[str, str]]]


def examine(environment: Mapping[str, str]) -> tuple[int, Report]:
    """The exit code of `foldback doctor --json`, and its findings by area."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FOLDBACK_")}
    done = subprocess.run(
        [sys.executable, "-m", "console.cli", "doctor", "--json"],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.stdout, done.stderr
    told = json.loads(done.stdout)
    assert told["healthy"] is (done.returncode == 0)
    areas: Report = {}
    for finding in told["findings"]:
        areas.setdefault(finding["area"], []).append(finding)
        assert finding["remedy"] or finding["level"] == "ok", f"no remedy: {finding}"
    return done.returncode, areas


def levels(report: Report) -> dict[str, set[str]]:
    return {area: {finding["level"] for finding in found} for area, found in report.items()}


@pytest.fixture
def nowhere(tmp_path: Path, tiny_model: Path) -> Iterator[dict[str, str]]:
    """An installation of which nothing runs; its ports are held, so that nobody else comes to listen there."""
    with PortPicker() as picker:
        yield {f"FOLDBACK_{name}": str(picker.pick()) for name in PORTS} | {
            "FOLDBACK_DATA_DIR": str(tmp_path / "data"),
            "FOLDBACK_MODEL__NAME": str(tiny_model),
        }


@pytest.mark.slow
def test_where_nothing_runs_it_says_what_to_start(nowhere: dict[str, str]) -> None:
    code, report = examine(nowhere)
    assert code == 1
    seen = levels(report)
    assert {area for area, found in seen.items() if "failed" in found} == {"broker", "server", "admin", "trainer"}
    assert seen["registry"] == seen["web"] == {"note"}
    assert all(seen[area] == {"ok"} for area in ("config", "model", "packages", "disk", "ports"))
    assert "foldback up" in report["server"][0]["remedy"]
    assert "foldback up" in report["broker"][0]["remedy"]
    assert not Path(nowhere["FOLDBACK_DATA_DIR"]).exists(), "a doctor changes nothing"


@contextmanager
def stranger() -> Iterator[str]:
    """A program that answers whatever it is asked, and speaks neither HTTP nor Prometheus text. Yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection:
                        connection.recv(1024)
                        connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        Thread(target=answer, daemon=True).start()
        yield str(listening.getsockname()[1])
        listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.slow
def test_each_fault_of_the_machine_is_named(nowhere: dict[str, str], tmp_path: Path) -> None:
    """A full disk, a damaged registry, half a model, a port in strange hands: one run tells them all."""
    half = tmp_path / "half"
    half.mkdir()
    (half / "config.json").write_text("{}")
    (tmp_path / "file").write_text("no registry")
    with stranger() as metrics_port, stranger() as web_port:
        code, report = examine(
            nowhere
            | {
                "FOLDBACK_SERVER__METRICS_PORT": metrics_port,
                "FOLDBACK_CONSOLE__WEB_PORT": web_port,
                "FOLDBACK_CONSOLE__MIN_FREE_BYTES": str(1 << 60),
                "FOLDBACK_MODEL__NAME": str(half),
                "FOLDBACK_REGISTRY__URL": (tmp_path / "file").as_uri(),
            }
        )
    assert code == 1
    assert "less than console.min_free_bytes" in report["disk"][0]["said"]
    assert "lacks weights, a tokenizer, a chat template" in report["model"][0]["said"]
    [registry] = report["registry"]
    assert (registry["level"], "registry.url" in registry["remedy"]) == ("failed", True)
    metrics, web = report["ports"]
    assert "(server.metrics_port) is held by another program" in metrics["said"]
    assert "FOLDBACK_SERVER__METRICS_PORT=0" in metrics["remedy"]
    assert "(console.web_port) is held by another program" in web["said"]


def test_refused_settings_are_exit_code_2(nowhere: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "console.cli", "doctor"],
        env={**os.environ, **nowhere, "FOLDBACK_SERVER__PORT": "seven"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "server.port='seven'" in done.stderr


@contextmanager
def metrics_at(time: datetime) -> Iterator[str]:
    """A metrics port whose machine believes that it is `time`."""

    class Handler(BaseHTTPRequestHandler):
        def date_time_string(self, timestamp: float | None = None) -> str:
            return time.strftime("%a, %d %b %Y %H:%M:%S GMT")

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"foldback_spool_events 3.0\n")

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/metrics"
    server.shutdown()
    server.server_close()


@pytest.mark.slow
@pytest.mark.parametrize(("apart_s", "level"), [(0, Level.OK), (3600, Level.FAILED), (-3600, Level.FAILED)])
def test_clocks_that_differ_are_told(apart_s: float, level: Level) -> None:
    with metrics_at(datetime.now(UTC) - timedelta(seconds=apart_s)) as url:
        found = services.clock(url)
    assert found.level is level
    if apart_s:
        assert float(found.said.split()[0]) == pytest.approx(apart_s, abs=30)


@pytest.mark.parametrize(
    ("engine", "there", "level"),
    [("auto", False, Level.NOTE), ("vllm", False, Level.FAILED), ("auto", True, Level.OK)],
)
def test_the_engine_is_the_one_that_would_serve(
    engine: str, there: bool, level: Level, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "find_spec", lambda _: object() if there else None)
    assert machine.engine(Settings.model_validate({"server": {"engine": engine}})).level is level


@pytest.mark.slow
async def test_a_server_that_loads_and_a_program_that_is_none(nowhere: dict[str, str]) -> None:
    async with FakeFoldback() as fake:
        with socket.create_server(("127.0.0.1", 0)) as mute:
            told = nowhere | {
                "FOLDBACK_CONSOLE__ADDRESS": fake.chat_address,
                "FOLDBACK_CONSOLE__ADMIN_ADDRESS": f"127.0.0.1:{mute.getsockname()[1]}",
            }
            _, report = await asyncio.to_thread(examine, told)
    assert levels(report)["server"] == {"ok"}
    [admin] = report["admin"]
    assert admin["level"] == "failed"


async def test_a_key_that_the_server_does_not_know(tmp_path: Path, tiny_model: Path, broker: str) -> None:
    known, admin, wrong = new_key(), new_key(), new_key()
    access = AccessSettings(
        api_keys=(ApiKey(tenant="acme", sha256=digest(known)),), admin_keys=(ApiKey(sha256=digest(admin)),)
    )

    async def told(place: Running, public: str, steering: str) -> list[Finding]:
        keys = {"access": {"api_key": public}, "admin_access": {"api_key": steering}}
        settings = Settings.model_validate(
            {"console": {"address": place.chat_address, "admin_address": place.admin_address, **keys}}
        )
        async with Client.of(settings, attempts=1) as client:
            (chat, _), (steer, _) = await services.server(client, settings), await services.admin(client, settings)
            return [*chat, *steer]

    async with running(server_settings(tmp_path, tiny_model, broker, access=access)) as server:
        assert {finding.level for finding in await told(server, known, admin)} == {Level.OK}
        for finding in await told(server, wrong, known):
            assert finding.level is Level.FAILED
            assert "refuses our key" in finding.said
            assert "ACCESS__API_KEY" in finding.remedy


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"SASL_PASSWORD": "Tr0ub4dor&3"}, ("feedback.sasl_username='foldback'", "FOLDBACK_FEEDBACK__SASL_PASSWORD")),
        ({"SASL_MECHANISM": "PLAIN"}, ("feedback.sasl_mechanism=PLAIN",)),
        ({"SECURITY_PROTOCOL": "PLAINTEXT"}, ("feedback.security_protocol=PLAINTEXT",)),
    ],
    ids=["password", "mechanism", "protocol"],
)
async def test_a_broker_that_refuses_us(nowhere: dict[str, str], wrong: dict[str, str], named: tuple[str, ...]) -> None:
    """The setting to correct, and never the password."""
    gate = SaslGate("SCRAM-SHA-512", {"foldback": "correct horse"})
    async with proxied_broker(admit=gate) as address:
        right = {
            "BOOTSTRAP_SERVERS": address,
            "SECURITY_PROTOCOL": "SASL_PLAINTEXT",
            "SASL_MECHANISM": gate.mechanism,
            "SASL_USERNAME": "foldback",
            "SASL_PASSWORD": "correct horse",
        }
        told = {f"FOLDBACK_FEEDBACK__{name}": value for name, value in (right | wrong).items()}
        _, report = await asyncio.to_thread(examine, nowhere | told)
    [found] = report["broker"]
    assert found["level"] == "failed"
    for part in named:
        assert part in found["said"]
    assert found["remedy"].startswith("correct the setting that is named")
    assert not any(password in str(report) for password in ("correct horse", "Tr0ub4dor&3"))


@pytest.mark.slow
async def test_a_broker_that_lets_us_in(nowhere: dict[str, str]) -> None:
    gate = SaslGate("SCRAM-SHA-512", {"foldback": "correct horse"})
    async with proxied_broker(admit=gate) as address:
        told = {
            "FOLDBACK_FEEDBACK__BOOTSTRAP_SERVERS": address,
            "FOLDBACK_FEEDBACK__SECURITY_PROTOCOL": "SASL_PLAINTEXT",
            "FOLDBACK_FEEDBACK__SASL_MECHANISM": gate.mechanism,
            "FOLDBACK_FEEDBACK__SASL_USERNAME": "foldback",
            "FOLDBACK_FEEDBACK__SASL_PASSWORD": "correct horse",
        }
        _, report = await asyncio.to_thread(examine, nowhere | told)
    assert levels(report)["broker"] == {"ok"}


@pytest.mark.slow
@pytest.mark.timeout(300)
class TestLive:
    def test_all_is_well(self, live_stack: Stack) -> None:
        code, report = examine(live_stack.environment)
        assert code == 0, report
        assert not {area for area, found in levels(report).items() if "failed" in found}
        assert "hashes right of p0" in report["registry"][0]["said"]
        assert "as wanted" in report["topics"][0]["said"]
        assert report["ports"][0]["said"].endswith("ours")
        assert levels(report)["clock"] == levels(report)["web"] == {"ok"}

    def test_the_broker_is_away(self, live_stack: Stack, nowhere: dict[str, str]) -> None:
        broken = {"FOLDBACK_FEEDBACK__BOOTSTRAP_SERVERS": f"127.0.0.1:{nowhere['FOLDBACK_CONSOLE__BROKER_PORT']}"}
        code, report = examine(live_stack.environment | broken)
        assert code == 1
        assert {area for area, found in levels(report).items() if "failed" in found} == {"broker"}
        assert "FoldbackBrokerAway in docs/runbooks.md" in report["broker"][0]["remedy"]

    def test_a_version_that_was_changed_on_disk(self, live_stack: Stack, tmp_path: Path) -> None:
        copy = tmp_path / "registry"
        shutil.copytree(live_stack.data_dir / "registry", copy)
        for weights in copy.glob("versions/*/adapter/*.safetensors"):
            weights.write_bytes(weights.read_bytes()[:-1] + b"!")
        code, report = examine(live_stack.environment | {"FOLDBACK_REGISTRY__URL": copy.as_uri()})
        assert code == 1
        assert {finding["level"] for finding in report["registry"]} == {"failed"}
        assert "is not what was published" in report["registry"][0]["said"]
