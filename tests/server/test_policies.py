"""PolicyService and the swap controller: what is promoted is served, what is broken never is."""

import asyncio
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2

from foldback.v1 import chat_pb2, policy_pb2
from server.engines.base import SwapFailed, Weights
from settings import SettingsError
from tests.server.calls import following, health, health_watch, refused
from tests.server.conftest import Client, Publisher, asking, connect, server_settings
from tests.tiny_model import make_tiny_model

ACTIVE, RETIRED, REJECTED = (
    policy_pb2.POLICY_STATE_ACTIVE,
    policy_pb2.POLICY_STATE_RETIRED,
    policy_pb2.POLICY_STATE_REJECTED,
)


async def promote(client: Client, version: str) -> policy_pb2.Policy:
    response = await client.policies.PromotePolicy(policy_pb2.PromotePolicyRequest(version=version))
    return response.policy


async def state_of(client: Client, version: str) -> policy_pb2.Policy:
    return (await client.policies.GetPolicy(policy_pb2.GetPolicyRequest(version=version))).policy


async def test_promote_returns_when_the_version_is_served(client: Client, publisher: Publisher) -> None:
    before = client.server.swap.serving_version
    version = publisher.publish()
    policy = await promote(client, version)
    assert policy.state == ACTIVE
    assert policy.parent == before
    assert policy.figures["kl"] == 0.5
    assert (await client.chat.CreateChat(asking())).policy_version == version
    assert (await state_of(client, before)).state == RETIRED


@pytest.mark.slow
async def test_no_stream_fails_and_spans_name_both_versions(client: Client, publisher: Publisher) -> None:
    before, version = client.server.swap.serving_version, publisher.publish()
    request = chat_pb2.StreamChatRequest(
        chat=asking(candidate_count=4, sampling=chat_pb2.Sampling(max_tokens=300, temperature=1))
    )

    async def stream(started: asyncio.Event) -> set[str]:
        versions: set[str] = set()
        async for event in client.chat.StreamChat(request):
            started.set()
            if event.WhichOneof("event") == "candidate_finished":
                finished = event.candidate_finished
                covered = [i for span in finished.policy_spans for i in range(span.start, span.end)]
                assert covered == list(range(finished.usage.completion_tokens))
                versions |= {span.policy_version for span in finished.policy_spans}
        return versions

    begun = [asyncio.Event() for _ in range(4)]
    streams = [asyncio.create_task(stream(event)) for event in begun]
    await asyncio.gather(*(event.wait() for event in begun))
    await promote(client, version)
    assert set().union(*await asyncio.gather(*streams)) == {before, version}


async def test_rollback_serves_the_version_before(client: Client, publisher: Publisher) -> None:
    before, version = client.server.swap.serving_version, publisher.publish()
    await promote(client, version)
    rolled = await client.policies.RollbackPolicy(policy_pb2.RollbackPolicyRequest(reason="worse"))
    assert rolled.policy.version == client.server.swap.serving_version == before
    assert (await state_of(client, version)).state == policy_pb2.POLICY_STATE_ROLLED_BACK


@pytest.mark.slow
async def test_not_serving_when_even_the_last_good_version_cannot_be_restored(
    tmp_path: Path, tiny_model: Path, broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connect(server_settings(tmp_path / "data", tiny_model, broker)) as client:
        chat = "foldback.v1.ChatService"
        assert await health(client.public, chat) == health_pb2.HealthCheckResponse.SERVING
        good = client.server.swap.serving_version
        swap = client.server.engine.swap

        async def refuses_to_go_back(weights: Weights) -> None:
            if weights.version == good:
                raise SwapFailed("the disk is gone")
            await swap(weights)

        monkeypatch.setattr(client.server.engine, "swap", refuses_to_go_back)
        version = Publisher(client.server.registry, tmp_path).publish(canary_off_by=1.0)
        client.server.registry.transition(version, "active", reason="test", actor="test")  # type: ignore[arg-type]
        async for update in health_watch(client.public, chat, timeout_s=10):
            if update.status == health_pb2.HealthCheckResponse.NOT_SERVING:
                break
        assert await health(client.public) == health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.mark.slow
async def test_a_registry_of_another_base_model_is_refused_at_start(
    tmp_path: Path, tiny_model: Path, broker: str
) -> None:
    async with connect(server_settings(tmp_path / "data", tiny_model, broker)):
        pass
    stranger = make_tiny_model(tmp_path / "stranger", seed=5)
    with pytest.raises(SettingsError, match=r"model\.name"):
        async with connect(server_settings(tmp_path / "data", stranger, broker)):
            pass


@pytest.mark.slow
async def test_a_restarted_server_serves_what_was_active(tmp_path: Path, tiny_model: Path, broker: str) -> None:
    settings = server_settings(tmp_path / "data", tiny_model, broker)
    async with connect(settings) as client:
        version = Publisher(client.server.registry, tmp_path).publish()
        await promote(client, version)
    async with connect(settings) as client:
        assert client.server.swap.serving_version == version
        assert (await client.chat.CreateChat(asking())).policy_version == version


async def test_policies_are_listed_newest_first_in_pages(client: Client, publisher: Publisher) -> None:
    versions = [publisher.publish() for _ in range(3)]
    listed: list[str] = []
    token = ""
    while True:
        page = await client.policies.ListPolicies(policy_pb2.ListPoliciesRequest(page_size=2, page_token=token))
        assert len(page.policies) <= 2
        listed += [policy.version for policy in page.policies]
        token = page.next_page_token
        if not token:
            break
    assert listed[:3] == versions[::-1]
    assert listed == list(client.server.registry.state().states)[::-1]
    assert page.serving_version == client.server.swap.serving_version


async def test_watch_tells_what_was_and_what_comes(client: Client, publisher: Publisher) -> None:
    watch = client.policies.WatchPolicies(policy_pb2.WatchPoliciesRequest())
    first = (await following(watch)).transition
    assert (first.sequence, first.to, first.actor) == (1, ACTIVE, "server")
    version = publisher.publish()
    await promote(client, version)
    while True:
        transition = (await following(watch)).transition
        assert transition.sequence >= first.sequence
        if (transition.version, transition.to) == (version, ACTIVE):
            break
    assert transition.actor == "operator"
    watch.cancel()


async def test_an_unknown_or_illegal_version_is_refused(client: Client) -> None:
    code, _ = await refused(promote(client, "p000999-00000000"), error_details_pb2.ErrorInfo)
    assert code is grpc.StatusCode.NOT_FOUND
    active = client.server.swap.serving_version
    code, info = await refused(promote(client, active), error_details_pb2.ErrorInfo)
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert info.reason == "ILLEGAL_TRANSITION"


async def test_training_can_be_paused_and_resumed(client: Client) -> None:
    for state in (policy_pb2.TRAINING_STATE_PAUSED, policy_pb2.TRAINING_STATE_RUNNING):
        await client.policies.SetTrainingState(policy_pb2.SetTrainingStateRequest(state=state))
        listed = await client.policies.ListPolicies(policy_pb2.ListPoliciesRequest())
        assert listed.training_state == state
    code, _ = await refused(
        client.policies.SetTrainingState(policy_pb2.SetTrainingStateRequest()), error_details_pb2.BadRequest
    )
    assert code is grpc.StatusCode.INVALID_ARGUMENT
