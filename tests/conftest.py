"""Fixtures that every folder shares; slow ones live as long as the session."""

import os
from collections.abc import Iterator
from pathlib import Path

# Before torch is loaded: idle threads sleep, where by default they would spin and slow the processes under test.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest

from tests.tiny_model import make_tiny_model

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
def real_model() -> Path:
    """SmolLM2-135M-Instruct, which `make setup` puts in place."""
    assert REAL_MODEL.is_dir(), f"{REAL_MODEL} is missing; run 'make setup'"
    return REAL_MODEL


@pytest.fixture(scope="session")
def oasst_file() -> Path:
    if not OASST.is_file():
        pytest.skip("the OASST trees are not on this machine")
    return OASST
