"""Which processes `foldback up` starts, on which ports."""

import os
import socket
from pathlib import Path

import pytest

from console.client import NO_CREDENTIALS
from console.credentials import check_credentials
from console.endpoints import reachable
from console.errors import CommandError
from console.stack import accepts, measured, services, serving, settle_ports
from console.up import scratch_environment
from settings import load
from settings.ports import SAFE
from tests.console.fake_server import FakeFoldback


@pytest.fixture(autouse=True)
def own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`settle_ports` writes variables for the children; they end with the test."""
    for name in [name for name in os.environ if name.startswith("FOLDBACK_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    scratch_environment(tmp_path)


def test_a_scratch_run_gets_ports_of_its_own() -> None:
    settings = settle_ports(load())
    ports = [
        settings.server.port,
        settings.server.admin_port,
        settings.server.metrics_port,
        settings.trainer.metrics_port,
        settings.console.broker_port,
        settings.console.web_port,
    ]
    assert 0 not in ports
    assert len(set(ports)) == 6
    assert set(ports) < set(SAFE), "others are given to whoever asks for any before our server starts"


def test_a_taken_port_is_refused_with_a_way_out() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        os.environ["FOLDBACK_SERVER__PORT"] = str(holder.getsockname()[1])
        with pytest.raises(CommandError, match=r"server\.port=\d+ is taken.*FOLDBACK_SERVER__PORT=0"):
            settle_ports(load())


def test_broker_server_trainer_web_in_this_order() -> None:
    settings = settle_ports(load())
    broker, server, trainer, web = services(settings)
    assert [broker.name, server.name, trainer.name, web.name] == ["broker", "server", "trainer", "web"]
    bootstrap = f"127.0.0.1:{settings.console.broker_port}"
    for child in (server, trainer):
        assert child.environment["FOLDBACK_FEEDBACK__BOOTSTRAP_SERVERS"] == bootstrap
    assert trainer.environment["FOLDBACK_TRAINER__SERVER_ADMIN_ADDRESS"] == f"127.0.0.1:{settings.server.admin_port}"
    assert str(settings.server.port) in server.where


def test_a_configured_kafka_replaces_the_broker() -> None:
    os.environ["FOLDBACK_FEEDBACK__BOOTSTRAP_SERVERS"] = "kafka:9092"
    children = services(settle_ports(load()))
    assert [child.name for child in children] == ["server", "trainer", "web"]
    assert children[0].environment["FOLDBACK_FEEDBACK__BOOTSTRAP_SERVERS"] == "kafka:9092"


async def test_health_checks_tell_up_from_down() -> None:
    async with FakeFoldback() as fake:
        assert await serving(fake.chat_address, NO_CREDENTIALS)()
        assert await accepts(fake.admin_address)()
        assert not await measured(f"http://{fake.admin_address}/metrics")(), "somebody is there, but no trainer"
    assert not await serving("127.0.0.1:9", NO_CREDENTIALS)()
    assert not await accepts("127.0.0.1:9")()


def test_any_address_is_dialled_as_this_machine() -> None:
    assert reachable("0.0.0.0") == "127.0.0.1"
    assert reachable("10.0.0.7") == "10.0.0.7"


def test_the_trainer_needs_the_servers_key_only_for_rollouts_of_the_fleet() -> None:
    os.environ["FOLDBACK_SERVER__ACCESS__ADMIN_KEYS"] = f'[{{"sha256": "{"0" * 64}"}}]'
    os.environ["FOLDBACK_CONSOLE__ADMIN_ACCESS__API_KEY"] = "an operator's key"
    check_credentials(load())
    os.environ["FOLDBACK_TRAINER__ROLLOUTS_FROM"] = "fleet"
    with pytest.raises(CommandError, match="FOLDBACK_TRAINER__SERVER_ACCESS__API_KEY"):
        check_credentials(load())
