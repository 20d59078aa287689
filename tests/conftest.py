"""Fixtures that every folder shares; slow ones live as long as the session."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

# Before torch is loaded: idle threads sleep, where by default they would spin and slow the processes under test.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest

from tests.tiny_model import make_tiny_model

if TYPE_CHECKING:
    from server.engines.base import Engine
    from tests.integration.stack import Stack

REAL_MODEL = Path(__file__).parents[1] / ".foldback/models/SmolLM2-135M-Instruct"
OASST = Path(__file__).parents[2] / "shared/data/oasst_en_100_trees.jsonl"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a random-weights model that every engine and trainer loads in a moment."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
async def vllm_in_place(tiny_model: Path) -> "AsyncIterator[Engine]":
    """A running vLLM on the tiny model, swap mode `weights`. One for all tests, which leave it working: a start takes
    half a minute."""
    async with _vllm(tiny_model, "weights") as engine:
        yield engine


@pytest.fixture(scope="session")
async def vllm_adapters(tiny_model: Path) -> "AsyncIterator[Engine]":
    """The same, swap mode `adapter`."""
    async with _vllm(tiny_model, "adapter") as engine:
        yield engine


@asynccontextmanager
async def _vllm(tiny_model: Path, swap_mode: Literal["weights", "adapter"]) -> "AsyncIterator[Engine]":
    from server.engines.vllm import VllmEngine
    from settings.engine import EngineSettings
    from settings.server import ServerSettings

    ours = EngineSettings(kv_cache_gib=0.25)
    engine = VllmEngine(str(tiny_model), ServerSettings(max_model_len=512, swap_mode=swap_mode, vllm=ours))
    await engine.start()
    yield engine
    await engine.stop()


@pytest.fixture(scope="session")
def broker() -> Iterator[str]:
    """Bootstrap servers of one fresh embedded broker; tests keep apart by topic keys and ids of their own."""
    from feedback.embedded_broker import EmbeddedBroker

    with EmbeddedBroker() as embedded:
        yield embedded.bootstrap_servers


@pytest.fixture(scope="session")
def live_stack(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> "Iterator[Stack]":
    """`foldback up` on the tiny model, taught until it serves a version of its own making."""
    from tests.integration.live import has_learned, until, users
    from tests.integration.stack import Stack

    stack = Stack(tmp_path_factory.mktemp("live"), tiny_model, "transformers")
    stack.start()
    try:
        with users(stack):
            until(lambda: has_learned(stack), 120, stack.logs())
        yield stack
    finally:
        assert stack.stop() == 0


@pytest.fixture(scope="session")
def real_model() -> Path:
    """SmolLM2-135M-Instruct, which `make setup` puts in place."""
    assert REAL_MODEL.is_dir(), f"{REAL_MODEL} is missing; run 'make setup'"
    return REAL_MODEL


@pytest.fixture(scope="session")
def oasst_file() -> Path:
    if not OASST.is_file():
        pytest.skip("the OASST trees are not on this machine")
    return OASST
