"""The server, put together: what it is made of, in which order it starts and stops."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from prometheus_client import REGISTRY, CollectorRegistry, start_http_server

from feedback.disk import DiskCollector
from feedback.eventlog import EventLog
from feedback.outcomes import Outcomes
from feedback.tokens import TokenSigner, load_or_create_keys
from feedback.transition import transition_event
from foldback.v1 import (
    chat_pb2,
    chat_pb2_grpc,
    feedback_pb2,
    feedback_pb2_grpc,
    policy_pb2,
    policy_pb2_grpc,
    rollout_pb2,
    rollout_pb2_grpc,
)
from registry import IllegalTransition, PolicyState, Registry, Transition
from registry.message import transition_message
from registry.metrics import RegistryCollector
from server.access import Access
from server.admission import Admission
from server.canary import base_canary
from server.certificates import credentials
from server.chat import ChatService
from server.engines import create_engine
from server.engines.base import Engine
from server.events import ResponseLog
from server.feedback_service import FeedbackService
from server.health import Health
from server.interceptor import CallInterceptor
from server.key_files import KeyFile, follow
from server.log_metrics import EventLogCollector, observe_ack
from server.policy_service import PolicyService
from server.ports import listen, options, warn_if_open
from server.prompt import PromptBuilder
from server.replicas import Replica
from server.rollout_service import RolloutService
from server.swap import ACTOR, SwapController
from server.traffic import Traffic
from server.versions import Versions
from settings import Settings, SettingsError
from settings.access import ApiKey

log = logging.getLogger(__name__)
CHAT = chat_pb2.DESCRIPTOR.services_by_name["ChatService"].full_name
FEEDBACK = feedback_pb2.DESCRIPTOR.services_by_name["FeedbackService"].full_name
POLICY = policy_pb2.DESCRIPTOR.services_by_name["PolicyService"].full_name
ROLLOUT = rollout_pb2.DESCRIPTOR.services_by_name["RolloutService"].full_name
NOTICE_S = 0.3
"""After the last answer: a client that asks again at once is told UNAVAILABLE and when to retry, not cut off."""
GRACE_S = 1.0
"""What a drain leaves to calls that last as long as their client wants (watches, rollouts): they can be asked again."""


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    chat_address: str
    admin_address: str
    metrics_address: str
    engine: Engine
    registry: Registry
    swap: SwapController
    event_log: EventLog

    def announce(self) -> str:
        return (
            f"chat {self.chat_address}\nadmin {self.admin_address}\nmetrics {self.metrics_address}\n"
            f"serving {self.swap.serving_version} ({self.engine.name}, {self.engine.swap_mode})"
        )


@asynccontextmanager
async def running(settings: Settings, engine: Engine | None = None) -> AsyncIterator[Running]:
    """A server while the context is open; leaving it drains. `engine` instead of the one that the settings name.

    Raises:
        EngineDead: the model cannot be loaded, or no version can be served.
        SettingsError: the settings do not fit what is in the registry, or a file of keys cannot be used.
        OSError: a port is taken.
    """
    async with AsyncExitStack() as stack:
        server, access = settings.server, settings.server.access
        callers = [
            await _access("api_keys", access.api_keys, access.api_keys_file, stack),
            await _access("admin_keys", access.admin_keys, access.admin_keys_file, stack),
        ]
        registry = await asyncio.to_thread(Registry, settings.registry_url)
        engine = engine or create_engine(settings)
        stack.push_async_callback(engine.stop)
        await engine.start()
        event_log = await _event_log(settings, stack)
        _publish_transitions(registry, event_log)
        prompts = await asyncio.to_thread(PromptBuilder, settings.model.path, settings.server, engine.max_model_len)
        rank = settings.server.vllm.max_adapter_rank
        versions = Versions(registry, settings.model.path, settings.data_dir / "versions", engine.swap_mode, rank)
        await _ensure_active(registry, versions, settings, engine, prompts)

        health = Health([CHAT, ROLLOUT], [FEEDBACK, POLICY])
        broken = _in_background(health.engine_broken)
        poll_interval_s = settings.registry.poll_interval_s
        traffic = Traffic(engine, settings.server.canary_share)
        replica = await asyncio.to_thread(Replica, settings.registry_url, settings.server.canary_share)
        swap = SwapController(engine, registry, versions, traffic, replica, settings.server, poll_interval_s, broken)
        await swap.start()
        _in_parallel(swap.run(), "swap", stack)

        outcomes = Outcomes(settings.feedback)
        await outcomes.start()
        stack.push_async_callback(outcomes.stop)
        signer = await asyncio.to_thread(_signer, settings)
        responses = ResponseLog(event_log)
        stack.callback(responses.flush)
        admission = Admission(settings.server.max_in_flight)
        warn_if_open(server)
        interceptors = [
            CallInterceptor(server.default_deadline_s, lambda: broken("the engine died; its log says why"), each)
            for each in callers
        ]
        public, admin = (grpc.aio.server(interceptors=[each], options=options(server)) for each in interceptors)
        chat_pb2_grpc.add_ChatServiceServicer_to_server(
            ChatService(engine, traffic, prompts, signer, responses, admission), public
        )
        feedback_pb2_grpc.add_FeedbackServiceServicer_to_server(
            FeedbackService(event_log, responses, outcomes, signer, admission, settings.feedback), public
        )
        policy_pb2_grpc.add_PolicyServiceServicer_to_server(
            PolicyService(registry, swap, admission, poll_interval_s), admin
        )
        rollout_pb2_grpc.add_RolloutServiceServicer_to_server(
            RolloutService(engine, traffic, prompts, admission, settings.server.max_rollouts_in_flight), admin
        )
        chat_address = await listen(
            public, health, [CHAT, FEEDBACK], f"{server.host}:{server.port}", credentials(access, access.client_ca)
        )
        admin_address = await listen(
            admin,
            health,
            [POLICY, ROLLOUT],
            f"{server.host}:{server.admin_port}",
            credentials(access, access.admin_client_ca),
        )
        metrics_address = _metrics(settings, event_log, registry, stack)
        stack.push_async_callback(_drain, (public, admin), health, admission, interceptors, server.drain_timeout_s)
        await health.serving()
        yield Running(chat_address, admin_address, metrics_address, engine, registry, swap, event_log)


async def _event_log(settings: Settings, stack: AsyncExitStack) -> EventLog:
    event_log = EventLog(settings.feedback, settings.data_dir / "spool.sqlite", observe_ack=observe_ack)
    await event_log.start()
    stack.push_async_callback(event_log.stop)
    return event_log


def _publish_transitions(registry: Registry, event_log: EventLog) -> None:
    """Every move that this server writes goes onto the policies topic; registry threads hand over to the loop."""
    loop = asyncio.get_running_loop()

    def tell(transition: Transition) -> None:
        event = transition_event(transition_message(transition))
        loop.call_soon_threadsafe(event_log.emit_soon, [event])

    registry.listen(tell)


async def _ensure_active(
    registry: Registry, versions: Versions, settings: Settings, engine: Engine, prompts: PromptBuilder
) -> None:
    """An empty registry gets the base policy; where replicas start together, one of them writes it.

    Raises:
        SettingsError: the registry belongs to another base model.
    """
    digest = await asyncio.to_thread(lambda: versions.base_digest)
    if active := (await asyncio.to_thread(registry.state)).active:
        manifest = await asyncio.to_thread(registry.manifest, active)
        if manifest.base_digest != digest:
            raise SettingsError(
                f"model.name={settings.model.name}: the registry {settings.registry_url} holds versions of"
                f" {manifest.base} with other weights; name that model, or another registry.url or data_dir"
            )
        return
    canary = await base_canary(engine, prompts)
    manifest = await asyncio.to_thread(registry.publish_base, settings.model.name, digest, canary)
    with suppress(IllegalTransition):
        await asyncio.to_thread(
            registry.transition, manifest.version, PolicyState.ACTIVE, reason="the base model", actor=ACTOR
        )


async def _access(name: str, keys: Sequence[ApiKey], file: Path | None, stack: AsyncExitStack) -> Access:
    """Of one port: the keys stand in the settings, or in a file that is followed. Raises SettingsError."""
    if file is None:
        return Access(keys)
    key_file = KeyFile(f"server.access.{name}_file", file)
    access = Access(await asyncio.to_thread(key_file.read))
    _in_parallel(follow(key_file, access.replace), name, stack)
    return access


def _in_parallel(job: Coroutine[Any, Any, None], name: str, stack: AsyncExitStack) -> None:
    """Until the stack unwinds."""
    running = asyncio.create_task(job, name=name)

    async def stop() -> None:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    stack.push_async_callback(stop)


def _signer(settings: Settings) -> TokenSigner:
    keys = load_or_create_keys(settings.data_dir / "token_keys.json")
    return TokenSigner(keys.keys, keys.current, settings.feedback.token_lifetime_s, settings.feedback.token_tolerance_s)


def _metrics(settings: Settings, event_log: EventLog, registry: Registry, stack: AsyncExitStack) -> str:
    metrics = CollectorRegistry()
    metrics.register(REGISTRY)
    metrics.register(EventLogCollector(event_log, settings.feedback.spool_max_bytes))
    metrics.register(RegistryCollector(registry))
    metrics.register(DiskCollector(settings.data_dir))
    server, thread = start_http_server(settings.server.metrics_port, settings.server.host, metrics)

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    stack.callback(stop)
    return f"{settings.server.host}:{server.server_port}"


async def _drain(
    servers: Sequence[grpc.aio.Server],
    health: Health,
    admission: Admission,
    interceptors: Sequence[CallInterceptor],
    timeout_s: float,
) -> None:
    """Say so, take nothing new, finish what is in flight."""
    await health.draining()
    admission.draining.set()
    with suppress(TimeoutError):
        await asyncio.wait_for(asyncio.gather(*(each.idle() for each in interceptors)), timeout_s)
    await asyncio.sleep(NOTICE_S)
    await asyncio.gather(*(server.stop(GRACE_S) for server in servers))


def _in_background(job: Callable[[str], Coroutine[Any, Any, None]]) -> Callable[[str], None]:
    """`job` as a plain callable for whoever cannot wait."""
    tasks: set[asyncio.Task[None]] = set()

    def start(reason: str) -> None:
        task = asyncio.create_task(job(reason))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    return start
