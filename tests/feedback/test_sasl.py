"""Brokers that ask for a name and a password, over a real connection through our own settings."""

import asyncio
import base64
import logging
import os
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from kafka.errors import KafkaConfigurationError

from feedback.connection import require_brokers
from feedback.eventlog import Durability, EventLog
from feedback.handshake import NotAdmitted
from feedback.store import PreferenceStore
from feedback.topic_check import check_topics
from feedback.topics import all_topics, ensure_topics
from settings.feedback import FeedbackSettings
from tests.feedback.broker_suite import emit_feedback, joining, told_of_an_answer, until
from tests.feedback.events import make_feedback, make_response
from tests.feedback.proxied_broker import proxied_broker, server_context, trusting
from tests.feedback.sasl import SaslGate
from tests.feedback.scram import AuthenticationFailed, ScramServer, Secret

USER, PASSWORD, WRONG = "fold=back,1", "correct horse, battery=staple", "Tr0ub4dor&3"
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
QUICK = {"reconnect_interval_s": 0.05}


def settings_for(address: str, mechanism: str, **changes: Any) -> FeedbackSettings:
    return FeedbackSettings(
        **{
            "bootstrap_servers": address,
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": mechanism,
            "sasl_username": USER,
            "sasl_password": PASSWORD,
            **QUICK,
            **changes,
        }
    )


@pytest.fixture
async def scram() -> AsyncIterator[tuple[str, SaslGate]]:
    gate = SaslGate("SCRAM-SHA-512", {USER: PASSWORD})
    async with proxied_broker(admit=gate) as address:
        yield address, gate


def test_the_servers_side_is_rfc_7677s() -> None:
    """The exchange printed there, section 3."""
    secret = Secret.of("pencil", "sha256", base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="))
    server = ScramServer("SCRAM-SHA-256", {"user": secret}, nonce="%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")
    nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    assert server.first(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO") == f"r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".encode()
    proof = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    said = server.final(f"c=biws,r={nonce},p={proof}".encode())
    assert said == b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    with pytest.raises(AuthenticationFailed):
        server.final(f"c=biws,r={nonce},p=e{proof[1:]}".encode())


def join_one(settings: FeedbackSettings, path: Path) -> None:
    """For a thread: the proxy lives in the test's event loop."""
    store = PreferenceStore(path)
    with joining(settings, store):
        until(lambda: store.judgement_count() == 1 and not store.outbox(1), 30.0)
    store.close()


@pytest.mark.slow
@pytest.mark.parametrize("tls", [False, True], ids=["plaintext", "tls"])
@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_from_answer_to_judgement_with_a_password(mechanism: str, tls: bool, tmp_path: Path) -> None:
    """Topics, the server's link, the joiner's consumer, producer and admin client: all of them get in."""
    ca, gate = trustme.CA(), SaslGate(mechanism, {USER: PASSWORD})
    async with proxied_broker(server_context(ca) if tls else None, gate) as address:
        secured = {"security_protocol": "SASL_SSL", **trusting(ca, tmp_path)} if tls else {}
        settings = settings_for(address, mechanism, **secured)
        created = await asyncio.to_thread(ensure_topics, settings)
        assert created == [topic.name for topic in all_topics(settings)]
        assert not any(check.faults for check in await asyncio.to_thread(check_topics, settings))
        log = await told_of_an_answer(settings, tmp_path / "spool")
        await asyncio.to_thread(join_one, settings, tmp_path / "store")
        await log.stop()
    assert gate.refused == 0


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("wrong", [{"sasl_password": WRONG}, {"sasl_username": "nobody"}], ids=["password", "name"])
async def test_wrong_credentials_are_named_and_never_shown(
    mechanism: str, wrong: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    async with proxied_broker(admit=SaslGate(mechanism, {USER: PASSWORD})) as address:
        settings = settings_for(address, mechanism, **wrong)
        with caplog.at_level(logging.DEBUG), pytest.raises(NotAdmitted) as refused:
            await asyncio.to_thread(require_brokers, settings)
    said = str(refused.value)
    for part in (
        address,
        f"feedback.sasl_username={settings.sasl_username!r}",
        mechanism,
        "FOLDBACK_FEEDBACK__SASL_PASSWORD",
    ):
        assert part in said
    assert not any(password in said + caplog.text for password in (PASSWORD, WRONG))


async def test_feedback_waits_in_the_spool_until_the_password_is_right(
    scram: tuple[str, SaslGate], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a rotation at the brokers alone: nothing is refused, it is said once, and no attempt leaves a thread."""
    address, gate = scram
    settings = settings_for(address, gate.mechanism, sasl_password=WRONG)
    log = EventLog(settings, tmp_path / "spool")
    with caplog.at_level(logging.INFO):
        await log.start()
        assert await emit_feedback(log, make_feedback("f", [make_response("r")])) is Durability.SPOOL
        before, attempts = threading.active_count(), gate.refused
        await asyncio.to_thread(until, lambda: gate.refused > attempts + 10, 30.0)
        assert threading.active_count() <= before
        assert not log.state().connected
        gate.passwords[USER] = WRONG
        await asyncio.to_thread(until, lambda: log.state().connected and not log.state().spool.unsent, 30.0)  # type: ignore[union-attr]
    await log.stop()
    said = [record.getMessage() for record in caplog.records if "SASL_PASSWORD" in record.getMessage()]
    assert len(said) == 1
    assert not any(password in caplog.text for password in (PASSWORD, WRONG))


async def test_the_joiner_says_it_once_and_goes_on_when_it_can(
    scram: tuple[str, SaslGate], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    address, gate = scram
    settings = settings_for(address, gate.mechanism, sasl_password=WRONG)

    def join() -> None:
        store = PreferenceStore(tmp_path / "store")
        with joining(settings, store) as joiner:
            until(lambda: gate.refused > 3, 30.0)
            gate.passwords[USER] = WRONG
            until(lambda: joiner.state.connected, 30.0)
        store.close()

    with caplog.at_level(logging.INFO):
        await asyncio.to_thread(join)
    assert caplog.text.count("FOLDBACK_FEEDBACK__SASL_PASSWORD") == 1
    assert not any(password in caplog.text for password in (PASSWORD, WRONG))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"sasl_mechanism": "PLAIN"}, "feedback.sasl_mechanism=PLAIN"),
        ({"security_protocol": "PLAINTEXT"}, "feedback.security_protocol=PLAINTEXT"),
        ({"security_protocol": "SASL_SSL"}, "feedback.security_protocol=SASL_SSL"),
    ],
)
async def test_what_does_not_fit_the_broker_is_named(
    scram: tuple[str, SaslGate], changes: dict[str, str], named: str
) -> None:
    address, gate = scram
    before = threading.active_count()
    with pytest.raises(NotAdmitted, match=named):
        await asyncio.to_thread(require_brokers, settings_for(address, gate.mechanism, **changes))
    assert threading.active_count() <= before + 1  # the worker of to_thread


async def test_a_broker_that_asks_for_no_password(broker: str) -> None:
    with pytest.raises(
        NotAdmitted, match=r"feedback\.sasl_mechanism=SCRAM-SHA-512|feedback\.security_protocol=SASL_PLAINTEXT"
    ):
        await asyncio.to_thread(require_brokers, settings_for(broker, "SCRAM-SHA-512"))


@pytest.mark.parametrize("missing", ["sasl_username", "sasl_password"])
def test_a_missing_name_or_password_is_said_before_anything_is_sent(broker: str, missing: str) -> None:
    with pytest.raises(KafkaConfigurationError, match=f"FOLDBACK_FEEDBACK__{missing.upper()}"):
        require_brokers(settings_for(broker, "PLAIN", **{missing: ""}))


@pytest.mark.slow
async def test_the_command_sets_topics_up_or_says_what_to_correct(scram: tuple[str, SaslGate], tmp_path: Path) -> None:
    address, gate = scram

    async def apply(password: str) -> tuple[int | None, str]:
        settings = {
            "BOOTSTRAP_SERVERS": address,
            "SECURITY_PROTOCOL": "SASL_PLAINTEXT",
            "SASL_MECHANISM": gate.mechanism,
            "SASL_USERNAME": USER,
            "SASL_PASSWORD": password,
        }
        variables = {f"FOLDBACK_FEEDBACK__{name}": value for name, value in settings.items()}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "feedback", "topics", "apply"),
            env={**os.environ, **variables, "FOLDBACK_DATA_DIR": str(tmp_path)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        return process.returncode, said.decode()

    code, said = await apply(WRONG)
    assert code == 2
    assert "FOLDBACK_FEEDBACK__SASL_PASSWORD" in said
    assert WRONG not in said
    assert "Is it running?" not in said
    code, said = await apply(PASSWORD)
    assert (code, said.count("created")) == (0, 6), said
