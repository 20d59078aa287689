"""A canary gets its share, users keep to one version, and what is decided is followed; in both swap modes."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from prometheus_client import REGISTRY

from foldback.v1 import chat_pb2, policy_pb2, rollout_pb2
from registry import Lease, PolicyState
from server.engines.base import Engine, SwapMode
from server.replicas import Seat
from tests.server.calls import refused
from tests.server.conftest import Client, asking, connect, server_settings
from tests.server.deployments import Trainer, deployment
from tests.server.test_rollouts import rollouts

CONVERSATIONS = [f"conversation-{i}" for i in range(40)]
SHORT = chat_pb2.Sampling(max_tokens=2)


@pytest.fixture(scope="module")
async def client(
    lent_engine: Engine | None, tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, broker: str
) -> AsyncIterator[Client]:
    async with deployment(lent_engine, tmp_path_factory.mktemp("canary"), tiny_model, broker) as client:
        yield client


@pytest.fixture(scope="module")
def trainer(client: Client, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    return Trainer(client.server.registry, tiny_model, tmp_path_factory.mktemp("trainer"))


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "not within 30 s"
        await asyncio.sleep(0.02)


async def until_serving(client: Client, version: str | None, canary: str = "") -> None:
    swap = client.server.swap
    await until(lambda: (swap.serving_version, swap.canary_version) == (version, canary))


async def try_out(client: Client, trainer: Trainer, seed: int, **publishing: object) -> str:
    version = trainer.publish(seed, **publishing)  # type: ignore[arg-type]
    trainer.registry.transition(version, PolicyState.CANARY, reason="test", actor="trainer")
    return version


async def versions(client: Client) -> dict[str, str]:
    """By conversation, the version that answered it."""

    async def ask(conversation: str) -> str:
        answer = await client.chat.CreateChat(asking(conversation_id=conversation, sampling=SHORT))
        assert {span.policy_version for span in answer.candidates[0].policy_spans} == {answer.policy_version}
        return answer.policy_version

    gate = asyncio.Semaphore(8)

    async def in_turn(conversation: str) -> str:
        async with gate:
            return await ask(conversation)

    answered = await asyncio.gather(*map(in_turn, CONVERSATIONS))
    return dict(zip(CONVERSATIONS, answered, strict=True))


def slots() -> dict[str, str]:
    """What foldback_policy_info says: version by slot."""
    [metric] = [metric for metric in REGISTRY.collect() if metric.name == "foldback_policy_info"]
    return {sample.labels["slot"]: sample.labels["version"] for sample in metric.samples if sample.value == 1}


def answers_in(slot: str) -> float:
    return REGISTRY.get_sample_value("foldback_time_to_first_token_seconds_count", {"slot": slot}) or 0.0


@pytest.mark.slow
async def test_a_canary_gets_its_share_and_then_all_or_nothing(
    client: Client, trainer: Trainer, swap_mode: SwapMode
) -> None:
    active = client.server.registry.state().active
    for decision in (PolicyState.ACTIVE, PolicyState.ROLLED_BACK):
        canary = await try_out(client, trainer, seed=1 if decision is PolicyState.ACTIVE else 2)
        await until_serving(client, active if swap_mode == "adapter" else canary, canary)
        before = answers_in("canary")
        answered = await versions(client)
        listed = await client.policies.ListPolicies(policy_pb2.ListPoliciesRequest())
        assert listed.canary_version == canary
        if swap_mode == "adapter":
            assert slots() == {"active": active, "canary": canary}
            assert listed.serving_version == active
            tried = [conversation for conversation, version in answered.items() if version == canary]
            assert set(answered.values()) == {active, canary}
            assert 1 <= len(tried) <= 20  # 8 of 40 are expected; beyond 20 has odds of 1 in 100,000
            assert await versions(client) == answered
        else:
            assert slots() == {"canary": canary}
            assert listed.serving_version == canary
            assert set(answered.values()) == {canary}
        assert answers_in("canary") > before
        trainer.registry.transition(canary, decision, reason="decided", actor="trainer")
        active = canary if decision is PolicyState.ACTIVE else active
        await until_serving(client, active)
        assert slots() == {"active": active}
        assert set((await versions(client)).values()) == {active}


async def test_who_names_a_version_gets_it_or_is_refused(client: Client, trainer: Trainer, swap_mode: SwapMode) -> None:
    active = client.server.registry.state().active or ""
    canary = await try_out(client, trainer, seed=3)
    await until(lambda: client.server.swap.canary_version == canary)
    served = [active, canary] if swap_mode == "adapter" else [canary]
    for version in (active, canary):
        asked = asking(policy_version=version, sampling=SHORT)
        sampled = rollouts(1, 2)
        sampled.policy_version = version

        async def sample(request: rollout_pb2.GenerateRolloutsRequest = sampled) -> list[rollout_pb2.Rollout]:
            return [response.rollout async for response in client.rollouts.GenerateRollouts(request)]

        if version in served:
            assert (await client.chat.CreateChat(asked)).policy_version == version
            spans = [span for rollout in await sample() for span in rollout.policy_spans]
            assert {span.policy_version for span in spans} == {version}
            continue
        for call in (client.chat.CreateChat(asked), sample()):
            code, info = await refused(call, error_details_pb2.ErrorInfo)
            assert (code, info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "POLICY_NOT_SERVED")
    trainer.registry.transition(canary, PolicyState.ROLLED_BACK, reason="decided", actor="trainer")
    await until(lambda: not client.server.swap.canary_version)


async def test_a_canary_that_fails_its_checks_is_rejected_and_the_active_version_serves(
    client: Client, trainer: Trainer
) -> None:
    active = client.server.registry.state().active
    bad = await try_out(client, trainer, seed=4, canary_off_by=1.0)
    await until(lambda: client.server.registry.state().states[bad] is PolicyState.REJECTED)
    state = client.server.registry.state()
    assert "canary logprobs are off" in state.reasons[bad]
    assert state.canary is None
    assert state.active == active
    await until(lambda: slots() == {"active": active})
    assert set((await versions(client)).values()) == {active}


@pytest.mark.slow
async def test_of_two_replicas_one_tries_the_canary(tmp_path: Path, tiny_model: Path, broker: str) -> None:
    first = server_settings(tmp_path / "data", tiny_model, broker)
    second = first.model_copy(
        update={
            "data_dir": tmp_path / "other",
            "registry": first.registry.model_copy(update={"url": first.registry_url}),
        }
    )
    async with connect(first) as one, connect(second) as other:
        trainer = Trainer(one.server.registry, tiny_model, tmp_path / "trainer")
        active = trainer.registry.state().active
        for decision in (PolicyState.ROLLED_BACK, PolicyState.ACTIVE):
            canary = await try_out(one, trainer, seed=1)
            await until_serving(one, canary, canary)
            assert other.server.swap.serving_version == active
            answer = await other.chat.CreateChat(asking(sampling=SHORT))
            assert answer.policy_version == active
            trainer.registry.transition(canary, decision, reason="decided", actor="trainer")
            active = canary if decision is PolicyState.ACTIVE else active
            for replica in (one, other):
                await until_serving(replica, active)


@pytest.mark.slow
async def test_a_replica_waits_for_its_turn_to_swap(tmp_path: Path, tiny_model: Path, broker: str) -> None:
    settings = server_settings(tmp_path / "data", tiny_model, broker)
    async with connect(settings) as client:
        trainer = Trainer(client.server.registry, tiny_model, tmp_path / "trainer")
        before = client.server.swap.serving_version
        another = Lease(settings.registry_url, "swap", "another replica", ttl_s=3600)
        assert another.acquire()
        version = trainer.publish()
        promoting = asyncio.ensure_future(
            client.policies.PromotePolicy(policy_pb2.PromotePolicyRequest(version=version))
        )
        await until(lambda: trainer.registry.state().active == version)
        await asyncio.sleep(20 * settings.registry.poll_interval_s)
        assert client.server.swap.serving_version == before
        another.release()
        await promoting
        assert client.server.swap.serving_version == version


def test_seats_are_low_numbers_and_a_share_of_them_the_canarys(tmp_path: Path) -> None:
    def seat(name: str) -> Seat:
        return Seat(tmp_path.as_uri(), name, canary_share=0.3, ttl_s=0.5)

    alone = seat("alone")
    assert not alone.is_canary
    alone.keep()
    assert alone.is_canary
    others = [seat(f"other {i}") for i in range(9)]
    for each in others:
        each.keep()
    assert [each.number for each in (alone, *others)] == [*range(10)]
    assert sum(each.is_canary for each in (alone, *others)) == 3
    alone.leave()
    others[3].keep()
    assert (others[3].number, others[3].is_canary) == (0, True)
    # A replica that fell silent loses its seat; those that go on keep theirs.
    silent, *living = others
    deadline = time.monotonic() + 60
    while silent.number not in {each.number for each in living}:
        for each in living:
            each.keep()
        assert time.monotonic() < deadline
