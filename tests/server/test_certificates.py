"""A certificate that is renewed under a server that runs."""

import logging
import shutil
from pathlib import Path

import grpc
import pytest
import trustme

from foldback.credentials import channel_credentials
from server.app import running
from server.certificates import credentials
from settings.access import AccessSettings
from tests.server.calls import health
from tests.server.conftest import server_settings
from tests.server.test_access import Pems, pems


async def healthy(channel: grpc.aio.Channel) -> bool:
    try:
        await health(channel)
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            return False
        raise
    return True


def trusting(address: str, files: Pems) -> grpc.aio.Channel:
    # A pool of its own: else gRPC answers with a connection that another channel has open.
    own_pool = [("grpc.use_local_subchannel_pool", 1)]
    secure = channel_credentials(str(files.ca))
    assert secure
    return grpc.aio.secure_channel(address, secure, own_pool)


async def reached(address: str, files: Pems) -> bool:
    async with trusting(address, files) as channel:
        return await healthy(channel)


async def test_a_renewed_certificate_is_shown_without_a_restart(
    tmp_path: Path, tiny_model: Path, broker: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = (pems(tmp_path / name, trustme.CA(), "127.0.0.1") for name in ("first", "second"))
    shown = AccessSettings(tls_certificate=tmp_path / "tls.crt", tls_key=tmp_path / "tls.key")

    def show(certificate: Path, key: Path) -> None:
        shutil.copy(certificate, tmp_path / "tls.crt")
        shutil.copy(key, tmp_path / "tls.key")

    show(first.certificate, first.key)
    async with running(server_settings(tmp_path, tiny_model, broker, access=shown)) as server:
        address = server.chat_address
        async with trusting(address, first) as early:
            assert await healthy(early)
            with caplog.at_level(logging.ERROR):
                show(second.certificate, first.key)
                assert await reached(address, first), "half a renewal leaves the old pair in place"
            assert "the last one still is" in caplog.text
            show(second.certificate, second.key)
            assert await reached(address, second)
            assert not await reached(address, first)
            assert await healthy(early), "connections that are open go on"


def test_a_key_that_is_another_certificates_is_refused_at_the_start(tmp_path: Path) -> None:
    first, second = (pems(tmp_path / name, trustme.CA(), "127.0.0.1") for name in ("first", "second"))
    with pytest.raises(OSError, match="mismatch"):
        credentials(AccessSettings(tls_certificate=first.certificate, tls_key=second.key), None)
