"""Fixtures that every folder shares; slow ones live as long as the session."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# Before torch is loaded: idle threads sleep, where by default they would spin and slow the processes under test.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest

from tests.tiny_model import make_tiny_model

if TYPE_CHECKING:
    from tests.integration.stack import Stack

REAL_MODEL = Path(__file__).parents[1] / ".foldback/models/SmolLM2-135M-Instruct"
OASST = Path(__file__).parents[2] / "shared/data/oasst_en_100_trees.jsonl"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a random-weights model that every engine and trainer loads in a moment."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


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
