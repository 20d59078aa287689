"""grpc.health.v1: "" is the process, each service's name its readiness."""

import logging

from grpc_health.v1 import health, health_pb2

from server.metrics import ENGINE_UP
from server.metrics import SERVING as READY

log = logging.getLogger(__name__)
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Health:
    def __init__(self, engine_services: list[str], other_services: list[str]) -> None:
        """`engine_services` cannot answer without a working engine; the others can."""
        self.servicer = health.aio.HealthServicer()
        self._engine_services = engine_services
        self._other_services = other_services

    async def serving(self) -> None:
        for service in ("", *self._engine_services, *self._other_services):
            await self.servicer.set(service, SERVING)
        ENGINE_UP.set(1)
        READY.set(1)

    async def engine_broken(self, reason: str) -> None:
        """For good: the process itself is unhealthy too, so that whoever runs it starts it anew."""
        log.critical("NOT_SERVING: %s", reason)
        ENGINE_UP.set(0)
        READY.set(0)
        for service in ("", *self._engine_services):
            await self.servicer.set(service, NOT_SERVING)

    async def draining(self) -> None:
        READY.set(0)
        await self.servicer.enter_graceful_shutdown()
