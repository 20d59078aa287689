"""A whole server in this process, on free ports, with the tiny model and the real broker."""

import itertools
import shutil
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from foldback.v1 import chat_pb2, chat_pb2_grpc, feedback_pb2_grpc, policy_pb2_grpc, rollout_pb2_grpc
from registry import PolicyState, Registry
from server.app import Running, running
from server.engines.base import Engine, SwapMode
from settings.feedback import FeedbackSettings
from settings.load import Settings
from settings.model import ModelSettings
from settings.registry import RegistrySettings
from settings.server import ServerSettings
from tests.server.engine_reference import canary_prompt
from tests.tiny_model import make_tiny_model


def server_settings(data_dir: Path, model: Path, broker: str, **server: object) -> Settings:
    return Settings(
        data_dir=data_dir,
        model=ModelSettings(name=str(model)),
        feedback=FeedbackSettings(bootstrap_servers=broker),
        registry=RegistrySettings(poll_interval_s=0.05),
        server=ServerSettings(
            **{
                "port": 0,
                "admin_port": 0,
                "metrics_port": 0,
                "engine": "transformers",
                "dtype": "float32",
                "torch_threads": 1,
                "max_model_len": 512,
                "max_in_flight": 32,
                **server,
            }
        ),
    )


@dataclass(frozen=True)
class Client:
    """Stubs on real connections to one server."""

    server: Running
    public: grpc.aio.Channel
    admin: grpc.aio.Channel
    chat: "chat_pb2_grpc.ChatServiceAsyncStub"
    feedback: "feedback_pb2_grpc.FeedbackServiceAsyncStub"
    policies: "policy_pb2_grpc.PolicyServiceAsyncStub"
    rollouts: "rollout_pb2_grpc.RolloutServiceAsyncStub"


class connect(AbstractAsyncContextManager[Client]):  # noqa: N801
    def __init__(self, settings: Settings, engine: Engine | None = None) -> None:
        self._running = running(settings, engine)

    async def __aenter__(self) -> Client:
        server = await self._running.__aenter__()
        public, admin = (grpc.aio.insecure_channel(a) for a in (server.chat_address, server.admin_address))
        self._channels = public, admin
        return Client(
            server,
            public,
            admin,
            chat_pb2_grpc.ChatServiceStub(public),
            feedback_pb2_grpc.FeedbackServiceStub(public),
            policy_pb2_grpc.PolicyServiceStub(admin),
            rollout_pb2_grpc.RolloutServiceStub(admin),
        )

    async def __aexit__(self, *error: object) -> None:
        await self._running.__aexit__(None, None, None)
        for channel in self._channels:
            await channel.close()


@pytest.fixture(
    scope="module", params=["weights", pytest.param("adapter", marks=[pytest.mark.slow, pytest.mark.timeout(300)])]
)
def swap_mode(request: pytest.FixtureRequest) -> SwapMode:
    mode: SwapMode = request.param
    return mode


@pytest.fixture(scope="module")
def lent_engine(request: pytest.FixtureRequest, swap_mode: SwapMode) -> Engine | None:
    """vLLM for mode `adapter`; for `weights` a server's own, the portable one."""
    if swap_mode == "weights":
        return None
    pytest.importorskip("vllm")
    engine: Engine = request.getfixturevalue("vllm_adapters")
    return engine


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, broker: str) -> AsyncIterator[Client]:
    async with connect(server_settings(tmp_path_factory.mktemp("server"), tiny_model, broker)) as client:
        yield client


def asking(text: str = "tell me about the good they", **fields: object) -> chat_pb2.CreateChatRequest:
    fields.setdefault("sampling", chat_pb2.Sampling(max_tokens=12))
    return chat_pb2.CreateChatRequest(
        messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, content=text)],
        **fields,  # type: ignore[arg-type]
    )


_FIRST_STEPS = itertools.count(0, 10)


@dataclass
class Publisher:
    """Publishes versions of the tiny model with weights of their own, as the trainer would.

    No two in a session begin at the same step: a version is named after step, parent and files, and its moves are
    events under that name on a topic that all modules share.
    """

    registry: Registry
    folder: Path
    step: int = 0

    def publish(self, *, canary_off_by: float = 0.0, weights: Path | None = None) -> str:
        """A version in state candidate; `weights` instead of fresh random ones; a canary that lies on demand."""
        self.step += 1
        parent = self.registry.state().active
        assert parent
        source = weights or make_tiny_model(self.folder / f"model-{self.step}", seed=100 + self.step)
        draft = self.folder / f"draft-{self.step}"
        shutil.copytree(source, draft / "weights")
        manifest = self.registry.publish(
            draft,
            step=self.step,
            parent=parent,
            base=self.registry.manifest(parent).base,
            base_digest=self.registry.manifest(parent).base_digest,
            figures={"kl": 0.5},
            canary=[] if weights else [canary_prompt(source, canary_off_by)],
        )
        self.registry.transition(manifest.version, PolicyState.CANDIDATE, reason="test", actor="trainer")
        return manifest.version


@pytest.fixture
def publisher(client: Client, tmp_path: Path) -> Publisher:
    return Publisher(client.server.registry, tmp_path, next(_FIRST_STEPS))
