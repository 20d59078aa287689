"""Swap mode `adapter`: every version is a LoRA adapter of its own beside the others, and nothing ever pauses.

A version keeps the name, number and path that it was loaded with, and vLLM's prefix cache tells adapters apart by name
and path: what is cached is one version's alone.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from vllm.lora.request import LoRARequest
from vllm.platforms import current_platform

from server.engines.adapter_files import adaptable, check_adapter
from server.engines.base import EngineDead, SwapFailed, SwapMode, Weights
from server.engines.vllm_core import CommandFailed, Core
from server.engines.vllm_policies import Draw, to_the_end
from server.engines.weights import BadWeights, Shapes, shapes
from settings.engine import EngineSettings


@dataclass(eq=False)
class Held:
    """A version in the engine. The base model has no adapter."""

    version: str
    adapter: LoRARequest | None
    wanted: bool = True
    """false: goes when its last request has ended."""
    requests: int = 0


class Adapters:
    """See server.engines.vllm_policies.Policies."""

    swap_mode: SwapMode = "adapter"

    def __init__(self, core: Core, base: Weights, settings: EngineSettings) -> None:
        self._core = core
        self._base_directory = base.directory
        self._base_shapes: Shapes = shapes(base.directory)
        self._settings = settings
        self._numbers = count(1)
        self._current = Held(base.version, None)
        self._held = {base.version: self._current}
        self._changing = asyncio.Lock()
        self._let_go = asyncio.Condition()
        self._removals: set[asyncio.Task[None]] = set()

    def arguments(self) -> dict[str, Any]:
        places = self._settings.max_adapters
        # By name: imported where the model runs, not here.
        ours = {"worker_extension_cls": "server.engines.vllm_lora.WorkerExtension"}
        return {
            **(ours if current_platform.is_cpu() else {}),
            "enable_lora": True,
            "max_loras": places,
            "max_cpu_loras": places,
            "max_lora_rank": self._settings.max_adapter_rank,
            # By default vLLM adapts the language model's head too, and then prompt logprobs (our canary checks) end its
            # process as soon as another request runs beside them: it adapts more rows than it has sampled.
            "lora_target_modules": adaptable(self._base_shapes),
        }

    async def start(self) -> None:
        return

    @property
    def version(self) -> str:
        return self._current.version

    @asynccontextmanager
    async def drawing(self, version: str) -> AsyncGenerator[Draw, None]:
        held = self._held.get(version, self._current)
        held.requests += 1
        try:
            yield Draw(adapter=held.adapter, version=held.version)
        finally:
            held.requests -= 1
            self._remove_if_idle(held)

    scoring = drawing

    async def swap(self, weights: Weights) -> None:
        # Otherwise a caller who gives up could leave an adapter in vLLM that nobody here knows of.
        await to_the_end(self._swap(weights))

    async def load(self, weights: Weights) -> None:
        await to_the_end(self._load(weights))

    async def _swap(self, weights: Weights) -> None:
        async with self._changing:
            held = await self._have(weights)
            before, self._current = self._current, held
            if before is not held:
                self._drop(before)

    async def _load(self, weights: Weights) -> None:
        async with self._changing:
            await self._have(weights)

    async def unload(self, version: str) -> None:
        async with self._changing:
            held = self._held.get(version)
            if held and held is not self._current:
                self._drop(held)

    async def _have(self, weights: Weights) -> Held:
        """Loaded, if it is not yet. Raises SwapFailed, EngineDead."""
        self._core.alive()
        if held := self._held.get(weights.version):
            held.wanted = True
            return held
        try:
            await asyncio.to_thread(self._check, weights)
        except BadWeights as error:
            raise SwapFailed(f"{weights.version}: {error}") from error
        adapter = await self._add(weights) if weights.adapter else None
        held = self._held[weights.version] = Held(weights.version, adapter)
        return held

    def _check(self, weights: Weights) -> None:
        if weights.adapter:
            check_adapter(weights.directory, self._base_shapes, self._settings.max_adapter_rank)
        elif weights.directory != self._base_directory:
            raise BadWeights("merged weights; server.swap_mode=adapter takes adapters on the base model")

    async def _add(self, weights: Weights) -> LoRARequest:
        """Waits for a place: versions that are no longer wanted have one until their last request has ended."""
        async with self._let_go:
            await self._let_go.wait_for(lambda: self._places_taken() < self._settings.max_adapters)
        directory: Path = weights.directory.absolute()
        adapter = LoRARequest(weights.version, next(self._numbers), str(directory))
        try:
            await self._core.command("add_lora", self._core.alive().add_lora(adapter))
        except CommandFailed as error:
            raise SwapFailed(f"{weights.version} could not be loaded: {error}") from error
        return adapter

    def _places_taken(self) -> int:
        return sum(held.adapter is not None for held in self._held.values()) + len(self._removals)

    def _drop(self, held: Held) -> None:
        held.wanted = False
        self._remove_if_idle(held)

    def _remove_if_idle(self, held: Held) -> None:
        if held.wanted or held.requests or self._held.get(held.version) is not held:
            return
        del self._held[held.version]
        if held.adapter:
            removal = asyncio.create_task(self._remove(held.adapter), name=f"unload {held.version}")
            self._removals.add(removal)
            removal.add_done_callback(self._removals.discard)

    async def _remove(self, adapter: LoRARequest) -> None:
        with suppress(EngineDead, CommandFailed):  # it is gone then, or its place is; vLLM's log says why
            await self._core.command("remove_lora", self._core.alive().remove_lora(adapter.lora_int_id))
        self._removals.discard(asyncio.current_task())
        async with self._let_go:
            self._let_go.notify_all()
