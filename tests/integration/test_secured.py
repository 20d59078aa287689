"""`foldback up` with TLS, operators' certificates, and keys on both ports: everybody still finds everybody."""

import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from pydantic import SecretStr

from console.client import Client
from console.web.observer import Observer
from server.keys import digest, new_key
from settings import load
from settings.client import ClientSettings
from tests.integration.live import has_learned, until, users
from tests.integration.stack import Stack
from tests.server.test_access import pems

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


class SecuredStack(Stack):
    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.key, self.operators_key = folder, new_key(), new_key()
        server = pems(folder / "server", trustme.CA(), "127.0.0.1")
        operator = pems(folder / "operator", trustme.CA(), "operator.example")
        self.access = ClientSettings(api_key=SecretStr(self.key), tls_ca=str(server.ca))
        self.admin_access = ClientSettings(
            api_key=SecretStr(self.operators_key),
            tls_ca=str(server.ca),
            tls_certificate=str(operator.certificate),
            tls_key=str(operator.key),
        )
        super().__init__(
            folder / "data",
            model,
            "transformers",
            FOLDBACK_SERVER__ACCESS__API_KEYS=json.dumps([{"tenant": "shop", "sha256": digest(self.key)}]),
            FOLDBACK_SERVER__ACCESS__ADMIN_KEYS=json.dumps([{"sha256": digest(self.operators_key)}]),
            FOLDBACK_SERVER__ACCESS__TLS_CERTIFICATE=str(server.certificate),
            FOLDBACK_SERVER__ACCESS__TLS_KEY=str(server.key),
            FOLDBACK_SERVER__ACCESS__ADMIN_CLIENT_CA=str(operator.ca),
            **as_variables("CONSOLE__ACCESS", self.access),
            **as_variables("CONSOLE__ADMIN_ACCESS", self.admin_access),
            FOLDBACK_TRAINER__ROLLOUTS_FROM="fleet",
            **as_variables("TRAINER__SERVER_ACCESS", self.admin_access),
        )

    def client(self) -> Client:
        chat, admin = (f"127.0.0.1:{self.ports[name]}" for name in ("SERVER__PORT", "SERVER__ADMIN_PORT"))
        return Client(chat, admin, attempts=1, access=self.access, admin_access=self.admin_access)


def as_variables(section: str, access: ClientSettings) -> dict[str, str]:
    fields = {**access.model_dump(), "api_key": access.api_key.get_secret_value()}
    return {f"FOLDBACK_{section}__{name.upper()}": value for name, value in fields.items() if value}


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[SecuredStack]:
    stack = SecuredStack(tmp_path_factory.mktemp("secured"), tiny_model)
    stack.start()
    yield stack
    assert stack.stop() == 0


def test_users_and_operators_reach_it_by_the_command(secured: SecuredStack) -> None:
    chat = secured.command("chat", "--max-tokens", "8", stdin="tell me about you\nd\n")
    assert "in the event log" in chat.stdout, chat.stdout + chat.stderr
    policies = secured.command("policies", "--json")
    assert policies.returncode == 0, policies.stderr
    keyless = dict(secured.environment)
    del secured.environment["FOLDBACK_CONSOLE__ACCESS__API_KEY"]
    try:
        refused = secured.command("chat", "--max-tokens", "8", stdin="hello\nd\n")
    finally:
        secured.environment = keyless
    assert "UNAUTHENTICATED" in refused.stdout + refused.stderr


async def test_the_web_page_sees_the_server(secured: SecuredStack, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in secured.environment.items():
        if name.startswith("FOLDBACK_"):
            monkeypatch.setenv(name, value)
    observer = Observer(load())
    await observer.start()
    try:
        await observer.refresh()
        assert observer.problem == ""
        assert observer.listed.policies
    finally:
        await observer.stop()
    page = f"http://127.0.0.1:{secured.ports['CONSOLE__WEB_PORT']}/"
    assert urllib.request.urlopen(page, timeout=20).status == 200  # noqa: ASYNC210


def test_the_trainer_gets_rollouts_and_a_version_of_its_own_takes_over(secured: SecuredStack) -> None:
    with users(secured) as tally:
        until(lambda: has_learned(secured), 240, secured.logs())
    assert tally.rated
    assert tally.failures == 0, tally.failed


def test_credentials_that_are_missing_are_said_before_anything_starts(tmp_path: Path, tiny_model: Path) -> None:
    stack = SecuredStack(tmp_path, tiny_model)
    for field in ("API_KEY", "TLS_CA", "TLS_CERTIFICATE", "TLS_KEY"):
        stack.environment.pop(f"FOLDBACK_TRAINER__SERVER_ACCESS__{field}")
    stack.environment["FOLDBACK_CONSOLE__ACCESS__TLS_CA"] = str(tmp_path / "nowhere.pem")
    begun = time.monotonic()
    said = stack.command("up")
    assert said.returncode == 1
    for problem in (
        "trainer.server_access.tls_ca",
        "FOLDBACK_TRAINER__SERVER_ACCESS__API_KEY",
        "trainer.server_access.tls_certificate",
        "nowhere.pem'",
    ):
        assert problem in said.stderr.replace("\n", ""), said.stderr
    assert time.monotonic() - begun < 60, "it waited for a health that could not come"
