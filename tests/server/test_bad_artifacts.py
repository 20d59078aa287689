"""What must not be served is refused with its own reason, in both swap modes, while the old version goes on serving."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import pytest
import torch
from google.rpc import error_details_pb2

from foldback.v1 import chat_pb2, policy_pb2
from registry import PolicyState
from registry.manifest import FileEntry
from server.engines.base import Engine
from tests.server.calls import refused
from tests.server.conftest import Client, asking
from tests.server.deployments import Trainer, deployment, edit_tensors

FILES = {"weights": "weights/model.safetensors", "adapter": "adapter/adapter_model.safetensors"}


@pytest.fixture(scope="module")
async def client(
    lent_engine: Engine | None, tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, broker: str
) -> AsyncIterator[Client]:
    async with deployment(lent_engine, tmp_path_factory.mktemp("artifacts"), tiny_model, broker) as client:
        yield client


@pytest.fixture(scope="module")
def trainer(client: Client, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    return Trainer(client.server.registry, tiny_model, tmp_path_factory.mktemp("trainer"))


def nan(tensors: dict[str, torch.Tensor], name: str) -> None:
    tensors[name][3, 3] = torch.nan


def infinite(tensors: dict[str, torch.Tensor], name: str) -> None:
    tensors[name][0, -1] = -torch.inf


def wrong_shape(tensors: dict[str, torch.Tensor], name: str) -> None:
    tensors[name] = tensors[name][:, :-4].contiguous()


def missing(tensors: dict[str, torch.Tensor], name: str) -> None:
    del tensors[name]


def change(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-10])


def escape(trainer: Trainer, version: str) -> None:
    entry = FileEntry(size=0, sha256="0" * 64)
    trainer.forge(version, files=trainer.registry.manifest(version).files | {"../../stolen.safetensors": entry})


def pickled(trainer: Trainer, version: str) -> None:
    entry = FileEntry(size=0, sha256="0" * 64)
    trainer.forge(version, files=trainer.registry.manifest(version).files | {"adapter/model.bin": entry})


BAD: dict[str, tuple[dict[str, object], Callable[[Trainer, str, str], None] | None, str]] = {
    "NaN": ({"edit": edit_tensors(nan)}, None, "not finite"),
    "infinite": ({"edit": edit_tensors(infinite)}, None, "not finite"),
    "wrong shape": ({"edit": edit_tensors(wrong_shape)}, None, "of the wrong shape"),
    "missing tensor": ({"edit": edit_tensors(missing)}, None, "1 tensors missing"),
    "wrong base": ({"base_digest": "0" * 64}, None, "not this server's base"),
    "lying canary": ({"canary_off_by": 1.0}, None, "canary logprobs are off"),
    "wrong hash": ({}, lambda t, v, file: change(t.published(v) / file), "hash: "),
    "truncated": ({}, lambda t, v, file: truncate(t.published(v) / file), "truncated: "),
    "no file": ({}, lambda t, v, file: (t.published(v) / file).unlink(), "absent: "),
    "path outside": ({}, lambda t, v, file: escape(t, v), "path: "),
    "pickle": ({}, lambda t, v, file: pickled(t, v), "format: "),
}
"""What publishing is told, what happens to the artifact afterwards, and what the reason says."""


async def answered_by(client: Client, stream: bool) -> set[str]:
    """The versions that a whole answer came from."""
    sampling = chat_pb2.Sampling(max_tokens=200 if stream else 4, temperature=1)
    events = client.chat.StreamChat(chat_pb2.StreamChatRequest(chat=asking(sampling=sampling)))
    finished = [event.candidate_finished async for event in events if event.HasField("candidate_finished")]
    assert len(finished) == 1
    return {span.policy_version for span in finished[0].policy_spans}


@pytest.mark.slow
@pytest.mark.parametrize("damage", BAD)
async def test_a_bad_version_is_refused_and_the_old_one_serves(client: Client, trainer: Trainer, damage: str) -> None:
    good = trainer.publish()
    await client.policies.PromotePolicy(policy_pb2.PromotePolicyRequest(version=good))
    published_with, spoil, says = BAD[damage]
    bad = trainer.publish(seed=2, **published_with)  # type: ignore[arg-type]
    if spoil:
        spoil(trainer, bad, FILES[client.server.engine.swap_mode])
    stream = asyncio.create_task(answered_by(client, stream=True))
    code, info = await refused(
        client.policies.PromotePolicy(policy_pb2.PromotePolicyRequest(version=bad)), error_details_pb2.ErrorInfo
    )
    assert (code, info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "POLICY_REFUSED")
    state = client.server.registry.state()
    assert state.states[bad] is PolicyState.REJECTED
    assert says in state.reasons[bad]
    assert client.server.swap.serving_version == client.server.engine.version == state.active == good
    seen = await stream
    # A canary that lies is noticed once it is loaded: in mode weights it was served until then.
    assert seen == {good} or (damage == "lying canary" and seen == {good, bad})
    assert await answered_by(client, stream=False) == {good}


async def test_an_adapter_larger_than_there_is_room_for_says_which_setting(client: Client, trainer: Trainer) -> None:
    big = trainer.publish(seed=3, rank=32)
    promote = client.policies.PromotePolicy(policy_pb2.PromotePolicyRequest(version=big))
    if client.server.engine.swap_mode == "weights":
        assert (await promote).policy.version == big
        return
    code, _ = await refused(promote, error_details_pb2.ErrorInfo)
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "server.vllm.max_adapter_rank=16" in client.server.registry.state().reasons[big]
