"""Brokers that speak TLS and ask for a client's certificate: no test broker does, so a proxy before one does it."""

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme

from feedback.dlq import read_letters
from feedback.eventlog import Durability, EventLog
from feedback.store import PreferenceStore
from feedback.topics import ensure_topics
from settings.feedback import FeedbackSettings
from tests.feedback.broker_suite import emit_feedback, emit_response, joining, told_of_an_answer, until
from tests.feedback.events import make_feedback, make_response
from tests.feedback.proxied_broker import proxied_broker, server_context, trusting


def both_ways(ca: trustme.CA) -> ssl.SSLContext:
    """A certificate of `ca`, and one asked for."""
    context = server_context(ca)
    ca.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def settings_for(address: str, ca: trustme.CA, client: trustme.CA, folder: Path) -> FeedbackSettings:
    """Trusts `ca`, and shows a certificate of `client`."""
    trust = trusting(ca, folder)
    own = client.issue_cert("foldback@example.org")
    own.private_key_pem.write_to_path(folder / "key.pem")
    own.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    return FeedbackSettings(
        bootstrap_servers=address,
        security_protocol="SSL",
        **trust,
        ssl_certfile=str(folder / "cert.pem"),
        ssl_keyfile=str(folder / "key.pem"),
        reconnect_interval_s=0.05,
    )


async def test_from_answer_to_judgement_over_tls(tmp_path: Path) -> None:
    ca = trustme.CA()
    async with proxied_broker(both_ways(ca)) as address:
        settings = settings_for(address, ca, ca, tmp_path / "certificates")
        await asyncio.to_thread(ensure_topics, settings)
        log = await told_of_an_answer(settings, tmp_path / "spool")
        assert await emit_feedback(log, make_feedback("g", [make_response("no", consent=False)])) is Durability.BROKER
        await emit_response(log, make_response("no", consent=False))

        def join() -> list[str]:
            """In a thread: the proxy lives in the test's event loop."""
            store = PreferenceStore(tmp_path / "store")
            with joining(settings, store):
                until(lambda: store.funnel()["dead_lettered"] == store.judgement_count() == 1, 30.0)
                until(lambda: not store.outbox(1), 20.0)
            store.close()
            return [letter.reason for letter in read_letters(settings)]

        assert await asyncio.to_thread(join) == ["NO_CONSENT"]
        await log.stop()


@pytest.mark.parametrize(("wrong", "named"), [("broker", "feedback.ssl_cafile"), ("client", "feedback.ssl_certfile")])
async def test_a_certificate_of_another_authority_sends_feedback_to_the_spool(
    tmp_path: Path, wrong: str, named: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is sent to a broker that cannot prove who it is, and none that is refused there is lost."""
    ca, other = trustme.CA(), trustme.CA()
    async with proxied_broker(both_ways(ca)) as address:
        trusted, client = (other, ca) if wrong == "broker" else (ca, other)
        log = EventLog(settings_for(address, trusted, client, tmp_path / "certificates"), tmp_path / "spool")
        await log.start()
        assert await emit_feedback(log, make_feedback("f", [make_response("r")])) is Durability.SPOOL
        await asyncio.to_thread(until, lambda: named in caplog.text, 20.0)
        assert not log.state().connected
        await log.stop()
