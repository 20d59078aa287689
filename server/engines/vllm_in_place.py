"""Swap mode `weights`: merged weights take the place of those in the running model.

A swap runs pause → start → update → finish → resume. Requests in flight stay where they are and go on with the keys
and values that they have; what asks during a swap waits and then begins under the new version.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest

from server.engines.aside import aside
from server.engines.base import SwapFailed, SwapMode, Weights
from server.engines.vllm_core import CommandFailed, Core
from server.engines.vllm_policies import Draw, to_the_end
from server.engines.weights import BadWeights, Shapes, check_shapes, difference, shapes


class InPlace:
    """See server.engines.vllm_policies.Policies."""

    swap_mode: SwapMode = "weights"

    def __init__(self, core: Core, base: Weights, tied: bool) -> None:
        self._core = core
        self._expected: Shapes = shapes(base.directory)
        self._tied = frozenset({"lm_head.weight"} if tied else ())
        self._serving = base
        self._swapping = asyncio.Lock()
        self._resumed = asyncio.Event()
        self._resumed.set()
        self._salt = 0

    def arguments(self) -> dict[str, Any]:
        return {
            # By name: imported where the model runs, not here.
            "worker_extension_cls": "server.engines.vllm_transfer.WorkerExtension",
            "weight_transfer_config": {"backend": "foldback-files"},
        }

    async def start(self) -> None:
        await self._core.alive().update_weight_version(self.version)

    @property
    def version(self) -> str:
        return self._serving.version

    @asynccontextmanager
    async def drawing(self, version: str) -> AsyncGenerator[Draw, None]:
        await self._resumed.wait()
        yield self._draw()

    @asynccontextmanager
    async def scoring(self, version: str) -> AsyncGenerator[Draw, None]:
        async with self._swapping:
            yield self._draw()

    def _draw(self) -> Draw:
        # The salt counts swaps rather than name the version: requests that straddle a swap leave keys of both policies
        # under the salt they began with, and a later return to that version must not find them.
        return Draw(salt=str(self._salt))

    async def load(self, weights: Weights) -> None:
        raise SwapFailed(f"{weights.version}: server.swap_mode=weights serves one version at a time; use adapter")

    async def unload(self, version: str) -> None:
        return

    async def swap(self, weights: Weights) -> None:
        # Otherwise a caller who gives up would leave the engine paused.
        await to_the_end(self._swap(weights))

    async def _swap(self, weights: Weights) -> None:
        async with self._swapping:
            llm = self._core.alive()
            try:
                changed = await aside(self._check, weights)
            except BadWeights as error:
                raise SwapFailed(f"{weights.version}: {error}") from error
            self._resumed.clear()
            try:
                pausing = llm.pause_generation(mode="keep", clear_cache=False)
                await self._core.command("pause", pausing, fatal=True)
                failure = await self._put(weights, changed)
                if failure and (again := await self._put(self._serving, None)):
                    raise self._core.die(f"{failure}; and {again}")
                await self._core.command("resume", llm.resume_generation(), fatal=True)
            finally:
                self._resumed.set()
            if failure:
                raise SwapFailed(failure)

    def _check(self, weights: Weights) -> list[str]:
        """Which tensors differ from those served: the others need not be loaded. Raises BadWeights."""
        if weights.adapter:
            raise BadWeights("an adapter alone; server.swap_mode=weights takes merged weights")
        check_shapes(shapes(weights.directory), self._expected, self._tied)
        return difference(self._serving.directory, weights.directory)

    async def _put(self, weights: Weights, names: list[str] | None) -> str:
        """Load tensors into the paused engine, all without `names`.

        Returns why they could not be loaded, or nothing. Raises EngineDead.
        """
        llm = self._core.alive()
        update = WeightTransferUpdateRequest({"directory": str(weights.directory.absolute()), "names": names})
        try:
            await self._core.command("start", llm.start_weight_update())
            await self._core.command("update", llm.update_weights(update))
            await self._core.command("finish", llm.finish_weight_update(weights.version))
        except CommandFailed as error:
            return f"{weights.version} could not be loaded: {error}"
        self._serving = weights
        self._salt += 1
        return ""
