"""Keys that are rotated in a file under a server that runs."""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from foldback.credentials import call_metadata
from foldback.v1 import chat_pb2, chat_pb2_grpc
from server.access import Access
from server.app import running
from server.key_files import KeyFile
from server.keys import digest, new_key
from settings import SettingsError
from settings.access import AccessSettings, ApiKey
from tests.server.conftest import asking, server_settings

OLD, NEW = new_key(), new_key()


def entry(key: str, tenant: str = "acme", more: str = "") -> str:
    return f"- tenant: {tenant}\n  sha256: {digest(key)}\n{more}"


async def accepted(address: str, key: str) -> bool:
    async with grpc.aio.insecure_channel(address) as channel:
        call = chat_pb2_grpc.ChatServiceStub(channel).CreateChat(asking(), metadata=call_metadata(key), timeout=60)
        code = await call.code()
        assert code in (grpc.StatusCode.OK, grpc.StatusCode.UNAUTHENTICATED)
        return code is grpc.StatusCode.OK


def put(file: Path, text: str) -> None:
    """At once, as the kubelet does."""
    aside = file.with_suffix(".new")
    aside.write_text(text)
    aside.replace(file)


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_rotated_keys_are_taken_without_a_restart(
    tmp_path: Path, tiny_model: Path, broker: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "keys.yaml"
    put(file, entry(OLD))
    settings = server_settings(tmp_path, tiny_model, broker, access=AccessSettings(api_keys_file=file))
    with caplog.at_level(logging.INFO, "server.key_files"):
        async with running(settings) as server, grpc.aio.insecure_channel(server.chat_address) as channel:
            address = server.chat_address
            assert await accepted(address, OLD)
            assert not await accepted(address, NEW)

            put(file, entry(OLD) + entry(NEW))
            await until(lambda: "keys read anew: 2" in caplog.text)
            assert await accepted(address, OLD)
            assert await accepted(address, NEW)

            put(file, entry(OLD) + f"- tenant: acme\n  sha256: {NEW}\n")
            await until(lambda: "still hold" in caplog.text)
            assert await accepted(address, NEW), "a file that cannot be used changes nothing"
            assert f"server.access.api_keys_file={file}: line 4: sha256" in caplog.text
            assert "`python -m server.keys`" in caplog.text

            long = chat_pb2.StreamChatRequest(chat=asking(sampling=chat_pb2.Sampling(max_tokens=300)))
            stream = chat_pb2_grpc.ChatServiceStub(channel).StreamChat(long, metadata=call_metadata(OLD))
            answered = await anext(events := aiter(stream))
            assert answered.HasField("started")
            put(file, entry(NEW))
            await until(lambda: "keys read anew: 1" in caplog.text)
            assert not await accepted(address, OLD)
            assert await accepted(address, NEW)
            assert [event async for event in events][-1].HasField("finished"), "an open call is finished"

            file.unlink()
            await until(lambda: "No such file" in caplog.text)
            assert await accepted(address, NEW)
    assert OLD not in caplog.text
    assert NEW not in caplog.text


SECRET = "fb_do-not-tell"


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("", 1, "holds no key"),
        ("[]", 1, "holds no key"),
        (SECRET, 1, "is not a list"),
        (f"{SECRET}: {SECRET}", 1, "is not a list"),
        (f"{entry(OLD)}- {SECRET}\n", 3, "is not a key"),
        (f"{entry(OLD)}- tenant: acme\n", 3, "sha256 is not the 64"),
        (f"- tenant: acme\n  sha256: {SECRET}\n", 2, "sha256 is not the 64"),
        (f"- tenant: {SECRET}!\n  sha256: {digest(OLD)}\n", 1, "is no tenant's name"),
        (entry(OLD, more="  calls_per_minute: -1\n"), 3, "is not a whole number"),
        (entry(OLD, more=f"  max_in_flight: {SECRET}\n"), 3, "is not a whole number"),
        (entry(OLD, more=f"  {SECRET}: 1\n"), 3, "is no field of a key"),
        (entry(OLD, more=f"  tenant: [{SECRET}\n"), 4, "is not YAML"),
        (entry(OLD, more=f"\t{SECRET}\n"), 3, "is not YAML"),
        (f"- *{SECRET}\n", 1, "is not YAML"),
        (f"- ? [{SECRET}]\n  : 1\n", 1, "is not YAML"),
    ],
)
def test_a_fault_is_named_by_line_and_quotes_nothing(tmp_path: Path, text: str, line: int, says: str) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=f"line {line}: ") as caught:
        KeyFile("server.access.api_keys_file", file).read()
    assert says in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_fault_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(entry(OLD))
    file = KeyFile("server.access.api_keys_file", path)
    file.read()
    path.write_text("")
    assert file.renewed() is file.renewed() is None
    assert len(caplog.records) == 1
    path.write_text(entry(NEW))
    assert file.renewed() == (ApiKey(tenant="acme", sha256=digest(NEW)),)


def test_keys_that_stay_keep_count_of_their_quotas() -> None:
    stays, changes = (ApiKey(sha256=digest(key), calls_per_minute=1) for key in (OLD, NEW))
    access = Access([stays, changes])
    metadata = [call_metadata(key) for key in (OLD, NEW)]
    before = [access.caller("/x", each) for each in metadata]
    access.replace([stays, changes.model_copy(update={"calls_per_minute": 2})])
    after = [access.caller("/x", each) for each in metadata]
    assert after[0] is before[0]
    assert after[1] is not before[1]


def test_keys_stand_in_one_place(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keep the keys in one of them"):
        AccessSettings(admin_keys=(ApiKey(sha256=digest(OLD)),), admin_keys_file=tmp_path / "keys.yaml")
