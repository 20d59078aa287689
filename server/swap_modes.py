"""How a version comes to serve: checked by its canary prompts, and undone if they are off. One class a swap mode."""

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Protocol

from registry import Manifest
from server.canary import deviation
from server.engines.base import Engine, EngineDead, SwapFailed, Weights
from server.metrics import ENGINE_PAUSED, SWAP_DURATION, SWAPS
from server.traffic import Slot, Traffic
from server.versions import Refusal
from settings.server import ServerSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A version that is on local disk and verified."""

    manifest: Manifest
    weights: Weights

    @property
    def version(self) -> str:
        return self.weights.version


class Swapping(Protocol):
    """Fills slots. `served` says with what; one method runs at a time."""

    served: dict[Slot, Prepared]

    async def serve(self, slot: Slot, prepared: Prepared) -> None:
        """On return users of `slot` get this version.

        Raises:
            Refusal, SwapFailed: they get what they got before.
            EngineDead: nothing can be served any more.
        """
        ...

    async def end_canary(self) -> None:
        """The canary slot is no more; a version that is only there is let go."""
        ...


def swapping(engine: Engine, traffic: Traffic, settings: ServerSettings) -> Swapping:
    return Beside(engine, traffic, settings) if engine.swap_mode == "adapter" else InPlace(engine, traffic, settings)


class InPlace:
    """Mode `weights`: one version, in one slot, at a time."""

    def __init__(self, engine: Engine, traffic: Traffic, settings: ServerSettings) -> None:
        self._engine = engine
        self._traffic = traffic
        self._settings = settings
        self.served: dict[Slot, Prepared] = {}

    async def serve(self, slot: Slot, prepared: Prepared) -> None:
        [good] = self.served.values() or [None]
        if not good or good.version != prepared.version:
            before = self._traffic.canary
            # Known before the swap: what is answered right after it is the canary's already.
            self._traffic.canary = prepared.version if slot == "canary" else before
            try:
                await self._replace(good, prepared)
            except (Refusal, SwapFailed):
                self._traffic.canary = before
                raise
        self._traffic.canary = prepared.version if slot == "canary" else ""
        self.served = {slot: prepared}

    async def end_canary(self) -> None:
        return

    async def _replace(self, good: Prepared | None, prepared: Prepared) -> None:
        begun = time.monotonic()
        try:
            await self._swap(prepared.weights)
            await check(self._engine, prepared.manifest, self._settings)
        except SwapFailed:
            SWAPS.labels("refused").inc()
            raise
        except (Refusal, TimeoutError) as error:
            await self._restore(good, f"{prepared.version}: {error}")
            raise Refusal(str(error) or f"not swapped within {self._settings.swap_timeout_s:g} s") from error
        _count_served("weights", prepared.version, begun)

    async def _swap(self, weights: Weights) -> None:
        ENGINE_PAUSED.set(1)
        try:
            await asyncio.wait_for(self._engine.swap(weights), self._settings.swap_timeout_s)
        finally:
            ENGINE_PAUSED.set(0)

    async def _restore(self, good: Prepared | None, why: str) -> None:
        """Back to the last good version, if any was served yet. Raises EngineDead when it cannot be had."""
        if good is None:
            SWAPS.labels("refused").inc()
            return
        log.error("%s; returning to %s", why, good.version)
        try:
            await self._swap(good.weights)
            await check(self._engine, good.manifest, self._settings)
        except (SwapFailed, Refusal, TimeoutError) as error:
            SWAPS.labels("failed").inc()
            raise EngineDead(f"{good.version} could not be restored after {why}: {error}") from error
        SWAPS.labels("restored").inc()


class Beside:
    """Mode `adapter`: both slots at once; a version is checked before any user gets it, so nothing is ever undone."""

    def __init__(self, engine: Engine, traffic: Traffic, settings: ServerSettings) -> None:
        self._engine = engine
        self._traffic = traffic
        self._settings = settings
        self.served: dict[Slot, Prepared] = {}

    async def serve(self, slot: Slot, prepared: Prepared) -> None:
        if prepared.version not in [served.version for served in self.served.values()]:
            await self._load(prepared)
        if slot == "active":
            await self._engine.swap(prepared.weights)
        else:
            await self.end_canary()
            self._traffic.canary = prepared.version
        self.served[slot] = prepared

    async def end_canary(self) -> None:
        if canary := self.served.pop("canary", None):
            self._traffic.canary = ""
            if canary.version != self._engine.version:
                await self._engine.unload(canary.version)

    async def _load(self, prepared: Prepared) -> None:
        begun = time.monotonic()
        try:
            await self._engine.load(prepared.weights)
            await check(self._engine, prepared.manifest, self._settings)
        except (Refusal, SwapFailed):
            SWAPS.labels("refused").inc()
            await self._engine.unload(prepared.version)
            raise
        _count_served("adapter", prepared.version, begun)


async def check(engine: Engine, manifest: Manifest, settings: ServerSettings) -> None:
    """The engine's logprobs of the version's canary prompts are the trainer's. Raises Refusal."""
    off, tolerance = await deviation(engine, manifest.canary, manifest.version), settings.canary_tolerance_nats
    # Written so that NaN is refused too.
    if not off <= tolerance:
        raise Refusal(f"canary logprobs are off by {off:.3f} nats a token, server.canary_tolerance_nats={tolerance:g}")


def _count_served(mode: str, version: str, begun: float) -> None:
    SWAPS.labels("served").inc()
    SWAP_DURATION.labels(mode).observe(time.monotonic() - begun)
    log.info("serving %s after %.2f s", version, time.monotonic() - begun)
