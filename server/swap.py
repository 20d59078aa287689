"""The swap controller: makes the engine serve what the registry says is active, or the last good version."""

import asyncio
import logging
import time
from collections.abc import Callable

from registry import (
    ArtifactError,
    IllegalTransition,
    Manifest,
    PolicyState,
    Registry,
    RegistryAway,
    RegistryState,
)
from server.canary import deviation
from server.engines.base import Engine, EngineDead, SwapFailed, Weights
from server.metrics import ENGINE_PAUSED, POLICY_AGE, POLICY_INFO, POLICY_SKEW, SWAP_DURATION, SWAPS
from server.versions import Refusal, Versions
from settings.server import ServerSettings

log = logging.getLogger(__name__)
ACTOR = "server"
SLOT = "active"
MODE = "weights"


class SwapController:
    """Polls the registry. Only this task swaps, so swaps never overlap.

    `engine_broken` is called once when neither the new nor the last good version can be served.
    """

    def __init__(
        self,
        engine: Engine,
        registry: Registry,
        versions: Versions,
        settings: ServerSettings,
        poll_interval_s: float,
        engine_broken: Callable[[str], None],
    ) -> None:
        self._engine = engine
        self._registry = registry
        self._versions = versions
        self._settings = settings
        self._poll_interval_s = poll_interval_s
        self._engine_broken = engine_broken
        self._serving: tuple[Manifest, Weights] | None = None
        self._refused: dict[str, str] = {}
        self._broken = ""
        self._away = False
        self._changed = asyncio.Condition()

    @property
    def serving_version(self) -> str:
        """Empty until the first version is served."""
        return self._serving[1].version if self._serving else ""

    async def start(self) -> None:
        """Returns when a version is served. Raises EngineDead when none can be, OSError."""
        while not self._serving:
            await self.follow()
            if not self._serving and (await asyncio.to_thread(self._registry.state)).active in (None, *self._refused):
                reasons = "; ".join(f"{version}: {why}" for version, why in self._refused.items())
                raise EngineDead(f"no version in the registry can be served; {reasons or 'none is active'}")

    async def run(self) -> None:
        """Follow the registry until cancelled."""
        while True:
            try:
                await self.follow()
                self._away = False
            except EngineDead as error:
                self._engine_broken(str(error))
                async with self._changed:
                    self._broken = str(error)
                    self._changed.notify_all()
                return
            except RegistryAway as error:
                # What is served goes on, and the next poll tries again.
                if not self._away:
                    log.error("could not follow the registry: %s", error)
                self._away = True
            except Exception:
                log.exception("could not follow the registry")
            await asyncio.sleep(self._poll_interval_s)

    async def follow(self) -> None:
        """One look at the registry, and what follows from it. Raises OSError, EngineDead."""
        state = await asyncio.to_thread(self._registry.state)
        POLICY_SKEW.set(_promotions_behind(state, self.serving_version))
        target = state.active
        if target is None or target == self.serving_version or target in self._refused:
            return
        try:
            manifest, weights = await asyncio.to_thread(self._versions.prepare, target)
        except Refusal as error:
            SWAPS.labels("refused").inc()
            await self._refuse(target, str(error))
            return
        try:
            await self._serve(manifest, weights)
        except (Refusal, SwapFailed) as error:
            await self._refuse(target, str(error))

    async def until_served(self, version: str) -> None:
        """Returns when `version` is served here.

        Raises:
            Refusal: it was refused, or another took its place.
            EngineDead: nothing can be served any more.
        """
        async with self._changed:
            while self.serving_version != version:
                if self._broken:
                    raise EngineDead(self._broken)
                if reason := self._refused.get(version):
                    raise Refusal(reason)
                active = (await asyncio.to_thread(self._registry.state)).active
                if active != version:
                    raise Refusal(f"{active} was made active instead")
                await self._changed.wait()

    async def _serve(self, manifest: Manifest, weights: Weights) -> None:
        """Swap and check; on failure bring the last good version back. Raises Refusal, SwapFailed, EngineDead."""
        begun = time.monotonic()
        try:
            await self._swap(weights)
            await self._check(manifest)
        except SwapFailed:
            SWAPS.labels("refused").inc()
            raise
        except (Refusal, TimeoutError) as error:
            await self._restore(f"{weights.version}: {error}")
            raise Refusal(str(error) or f"not swapped within {self._settings.swap_timeout_s:g} s") from error
        SWAPS.labels("served").inc()
        SWAP_DURATION.labels(MODE).observe(time.monotonic() - begun)
        log.info("serving %s after %.2f s", weights.version, time.monotonic() - begun)
        self._tell(manifest)
        async with self._changed:
            self._serving = manifest, weights
            self._changed.notify_all()

    async def _swap(self, weights: Weights) -> None:
        ENGINE_PAUSED.set(1)
        try:
            await asyncio.wait_for(self._engine.swap(weights), self._settings.swap_timeout_s)
        finally:
            ENGINE_PAUSED.set(0)

    async def _check(self, manifest: Manifest) -> None:
        off, tolerance = await deviation(self._engine, manifest.canary), self._settings.canary_tolerance_nats
        # Written so that NaN is refused too.
        if not off <= tolerance:
            raise Refusal(
                f"canary logprobs are off by {off:.3f} nats a token, server.canary_tolerance_nats={tolerance:g}"
            )

    async def _restore(self, why: str) -> None:
        """Back to the last good version, if any was served yet. Raises EngineDead when it cannot be had."""
        if self._serving is None:
            SWAPS.labels("refused").inc()
            return
        manifest, weights = self._serving
        log.error("%s; returning to %s", why, weights.version)
        try:
            await self._swap(weights)
            await self._check(manifest)
        except (SwapFailed, Refusal, TimeoutError) as error:
            SWAPS.labels("failed").inc()
            raise EngineDead(f"{weights.version} could not be restored after {why}: {error}") from error
        SWAPS.labels("restored").inc()

    async def _refuse(self, version: str, reason: str) -> None:
        """Never try it again, and tell the registry, which makes the last good version active."""
        log.error("%s refused: %s", version, reason)
        async with self._changed:
            self._refused[version] = reason
            self._changed.notify_all()
        try:
            await asyncio.to_thread(
                self._registry.transition, version, PolicyState.REJECTED, reason=reason, actor=ACTOR
            )
        except (IllegalTransition, ArtifactError) as error:
            log.error("%s stays active in the registry: %s", version, error)

    def _tell(self, manifest: Manifest) -> None:
        POLICY_INFO.clear()
        POLICY_INFO.labels(manifest.version, SLOT).set(1)
        POLICY_AGE.set_function(lambda: time.time() - manifest.create_time.timestamp())
        POLICY_SKEW.set(0)


def _promotions_behind(state: RegistryState, serving: str) -> int:
    newest_first = state.history[::-1]
    return newest_first.index(serving) if serving in newest_first else len(newest_first)
