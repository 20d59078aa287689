"""A server in each swap mode, and versions of the tiny model in the form that the trainer publishes."""

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from registry import Manifest, PolicyState, Registry
from server.engines.base import Engine, Weights
from tests.server.conftest import Client, connect, server_settings
from tests.server.engine_reference import canary_prompt
from tests.tiny_adapter import make_tiny_adapter


class Borrowed:
    """An engine that outlives the server. It starts, as every engine does, with the base model; it does not stop."""

    def __init__(self, engine: Engine, base: Weights) -> None:
        self._engine = engine
        self._base = base

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def start(self) -> None:
        await self._engine.swap(self._base)

    async def stop(self) -> None:
        return


@asynccontextmanager
async def deployment(engine: Engine | None, folder: Path, model: Path, broker: str) -> AsyncIterator[Client]:
    """A server on `engine`, which is only borrowed, or on one of its own."""
    lent: Any = Borrowed(engine, Weights("lent", model)) if engine else None
    async with connect(server_settings(folder / "data", model, broker), lent) as client:
        yield client
        canary = client.server.swap.canary_version
    if engine and canary and canary != engine.version:
        await engine.unload(canary)


@cache
def policy(base: Path, folder: Path, seed: int, rank: int = 8) -> Path:
    """`adapter/` and `weights/` of one policy, made once."""
    return make_tiny_adapter(base, folder / f"policy-{seed}-{rank}", seed=seed, rank=rank)


@dataclass
class Trainer:
    """Publishes policies with both halves of the artifact, in state candidate."""

    registry: Registry
    base: Path
    folder: Path
    step: int = 0

    def publish(
        self,
        seed: int = 1,
        *,
        rank: int = 8,
        edit: Callable[[Path], None] = lambda draft: None,
        base_digest: str = "",
        canary_off_by: float = 0.0,
    ) -> str:
        """`edit` changes the draft before it is published."""
        self.step += 1
        active = self.registry.manifest(self.registry.state().active or "")
        source, draft = policy(self.base, self.folder, seed, rank), self.folder / f"draft-{self.step}"
        shutil.copytree(source, draft)
        (draft / "step.txt").write_text(f"{self.folder} {self.step}")  # the same policy again is another version
        edit(draft)
        manifest = self.registry.publish(
            draft,
            step=self.step,
            parent=active.version,
            base=active.base,
            base_digest=base_digest or active.base_digest,
            figures={},
            canary=[canary_prompt(source / "weights", canary_off_by)],
        )
        self.registry.transition(manifest.version, PolicyState.CANDIDATE, reason="test", actor="trainer")
        return manifest.version

    def published(self, version: str) -> Path:
        return self.registry.fetch(version, self.folder)

    def forge(self, version: str, **fields: object) -> None:
        """Rewrite the manifest, as whoever can write to the registry's storage could."""
        manifest = self.registry.manifest(version)
        path = self.published(version) / "manifest.json"
        path.write_bytes(Manifest.model_validate(manifest.model_dump() | fields).to_json())


def edit_tensors(change: Callable[[dict[str, torch.Tensor], str], None]) -> Callable[[Path], None]:
    """An `edit` that applies `change(tensors, name of the last layer's tensor)` to both halves of the artifact."""

    def edit(draft: Path) -> None:
        for file in draft.glob("*/*.safetensors"):
            tensors = load_file(file)
            change(tensors, next(name for name in sorted(tensors) if "3.mlp.down_proj" in name))
            save_file(tensors, file)

    return edit
