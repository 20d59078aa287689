"""The swap controller: makes the engine serve what the registry says, or the last good version."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from registry import (
    ArtifactError,
    IllegalTransition,
    PolicyState,
    Registry,
    RegistryAway,
    RegistryState,
)
from server.engines.aside import aside
from server.engines.base import Engine, EngineDead, SwapFailed
from server.metrics import POLICY_AGE, POLICY_INFO, POLICY_SKEW, SWAPS
from server.replicas import RENEW_S, Replica, turn
from server.swap_modes import Prepared, swapping
from server.traffic import Slot, Traffic
from server.versions import Refusal, Versions
from settings.server import ServerSettings

log = logging.getLogger(__name__)
ACTOR = "server"


class SwapController:
    """Polls the registry. Only this task swaps, so swaps never overlap.

    `engine_broken` is called once when the engine has died, or neither the new nor the last good version can be served.
    """

    def __init__(
        self,
        engine: Engine,
        registry: Registry,
        versions: Versions,
        traffic: Traffic,
        replica: Replica,
        settings: ServerSettings,
        poll_interval_s: float,
        engine_broken: Callable[[str], None],
    ) -> None:
        self._engine = engine
        self._registry = registry
        self._versions = versions
        self._replica = replica
        self._swapping = swapping(engine, traffic, settings)
        self._poll_interval_s = poll_interval_s
        self._engine_broken = engine_broken
        self._refused: dict[str, str] = {}
        self._broken = ""
        self._away = False
        self._changed = asyncio.Condition()

    @property
    def serving_version(self) -> str:
        """The active version, or the canary where it is served in its stead. Empty until a version is served."""
        return self._main.version if self._swapping.served else ""

    @property
    def _main(self) -> Prepared:
        served = self._swapping.served
        return served.get("active") or served["canary"]

    @property
    def canary_version(self) -> str:
        """What the canary's share gets here; empty without one."""
        canary = self._swapping.served.get("canary")
        return canary.version if canary else ""

    async def start(self) -> None:
        """Returns when a version is served. Raises EngineDead when none can be, OSError."""
        if not self._beside:
            await asyncio.to_thread(self._replica.seat.keep)
        while not self._swapping.served:
            await self.follow()
            active = (await asyncio.to_thread(self._registry.state)).active
            if not self._swapping.served and active in (None, *self._refused):
                reasons = "; ".join(f"{version}: {why}" for version, why in self._refused.items())
                raise EngineDead(f"no version in the registry can be served; {reasons or 'none is active'}")

    async def run(self) -> None:
        """Follow the registry until cancelled."""
        jobs: list[Coroutine[Any, Any, None]] = [self._follow_for_ever(), self._watch_engine()]
        if not self._beside:
            jobs.append(self._keep_seat())
        try:
            async with asyncio.TaskGroup() as group:
                for job in jobs:
                    group.create_task(job)
        except* EngineDead as errors:
            await self._break(str(errors.exceptions[0]))

    async def _follow_for_ever(self) -> None:
        while True:
            try:
                await self.follow()
                self._away = False
            except EngineDead:
                raise
            except RegistryAway as error:
                # What is served goes on, and the next poll tries again.
                if not self._away:
                    log.error("could not follow the registry: %s", error)
                self._away = True
            except Exception:
                log.exception("could not follow the registry")
            await asyncio.sleep(self._poll_interval_s)

    async def _watch_engine(self) -> None:
        raise EngineDead(await self._engine.died())

    async def _keep_seat(self) -> None:
        try:
            while True:
                await asyncio.sleep(RENEW_S)
                with suppress(Exception):  # a registry out of reach: whoever follows it says so
                    await asyncio.to_thread(self._replica.seat.keep)
        finally:
            with suppress(Exception):  # it lapses then
                await asyncio.to_thread(self._replica.seat.leave)

    async def _break(self, reason: str) -> None:
        self._engine_broken(reason)
        async with self._changed:
            self._broken = reason
            self._changed.notify_all()

    async def follow(self) -> None:
        """One look at the registry, and what follows from it. Raises OSError, EngineDead."""
        state = await asyncio.to_thread(self._registry.state)
        wanted = self._wanted(state)
        POLICY_SKEW.set(_promotions_behind(state, self.serving_version))
        for slot, version in wanted.items():
            now = self._swapping.served.get(slot)
            if now is None or now.version != version:
                await self._fill(slot, version)
        if "canary" in self._swapping.served and "canary" not in wanted:
            await self._swapping.end_canary()
            await self._tell()

    def _wanted(self, state: RegistryState) -> dict[Slot, str]:
        """What each slot here should serve; a slot that is not named serves nothing new."""
        wanted: dict[Slot, str] = {}
        if state.active and state.active not in self._refused:
            wanted["active"] = state.active
        if state.canary and state.canary not in self._refused:
            if self._beside:
                wanted["canary"] = state.canary
            elif self._replica.seat.is_canary:
                return {"canary": state.canary}
        return wanted

    async def _fill(self, slot: Slot, version: str) -> None:
        prepared = next((each for each in self._swapping.served.values() if each.version == version), None)
        try:
            if prepared:  # in another slot until now
                await self._serve(slot, prepared)
                return
            try:
                prepared = Prepared(*await aside(self._versions.prepare, version))
            except Refusal:
                SWAPS.labels("refused").inc()
                raise
            if self._beside or not self._swapping.served:
                await self._serve(slot, prepared)
                return
            # Users who are held up here are few while the other replicas go on.
            async with turn(self._replica.swaps) as ours:
                if ours:
                    await self._serve(slot, prepared)
        except (Refusal, SwapFailed) as error:
            await self._refuse(version, str(error))

    async def _serve(self, slot: Slot, prepared: Prepared) -> None:
        await self._swapping.serve(slot, prepared)
        await self._tell()

    async def until_served(self, version: str) -> None:
        """Returns when the active version `version` is served here, or a canary in its stead.

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
                state = await asyncio.to_thread(self._registry.state)
                if state.active != version:
                    raise Refusal(f"{state.active} was made active instead")
                if self._wanted(state).get("active") != version:
                    return
                await self._changed.wait()

    async def _refuse(self, version: str, reason: str) -> None:
        """Never try it again, and tell the registry: the last good version is active again, or the canary is ended."""
        log.error("%s refused: %s", version, reason)
        try:
            await asyncio.to_thread(
                self._registry.transition, version, PolicyState.REJECTED, reason=reason, actor=ACTOR
            )
        except (IllegalTransition, ArtifactError) as error:
            log.error("%s stays in the registry as it is: %s", version, error)
        finally:
            async with self._changed:
                self._refused[version] = reason
                self._changed.notify_all()

    async def _tell(self) -> None:
        POLICY_INFO.clear()
        for slot, prepared in self._swapping.served.items():
            POLICY_INFO.labels(prepared.version, slot).set(1)
        created = self._main.manifest.create_time.timestamp()
        POLICY_AGE.set_function(lambda: time.time() - created)
        POLICY_SKEW.set(0)
        async with self._changed:
            self._changed.notify_all()

    @property
    def _beside(self) -> bool:
        return self._engine.swap_mode == "adapter"


def _promotions_behind(state: RegistryState, serving: str) -> int:
    """A canary descends from the active version: whoever serves it is not behind."""
    newest_first = state.history[::-1]
    if serving == state.canary:
        return 0
    return newest_first.index(serving) if serving in newest_first else len(newest_first)
