"""Around every call: whose it is, its deadline, its status with details, its metrics."""

import asyncio
import inspect
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeAlias

import grpc
from grpc_status import rpc_status

from registry import RegistryAway
from server.access import Access
from server.engines.base import EngineDead
from server.identity import TENANT
from server.metrics import GRPC_DURATION, GRPC_REQUESTS
from server.status import Refused, unavailable

log = logging.getLogger(__name__)
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context = grpc.aio.ServicerContext[Any, Any]
LASTING = frozenset({"Watch", "WatchPolicies", "GenerateRollouts", "ServerReflectionInfo"})
"""Calls that last as long as their client wants."""
CODES: dict[object, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Turns what handlers raise into a status; what is not foreseen becomes INTERNAL and is logged."""

    def __init__(self, default_deadline_s: float, engine_died: Callable[[], None], access: Access) -> None:
        self._default_deadline_s = default_deadline_s
        self._engine_died = engine_died
        self._access = access
        self._handlers: dict[str, Handler] = {}
        """As wrapped, by method: only those that exist, so callers cannot make it grow."""
        self._open = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def idle(self) -> None:
        """Returns when no call is open but those that last as long as their client wants."""
        await self._idle.wait()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        method = handler_call_details.method
        if method not in self._handlers:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None
            self._handlers[method] = self._wrapped(method, handler)
        return self._handlers[method]

    def _wrapped(self, method: str, handler: "Handler") -> "Handler":
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(
                self._streaming(method, handler.unary_stream),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(
                self._unary(method, handler.unary_unary),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        if handler.stream_stream:
            return grpc.stream_stream_rpc_method_handler(
                self._streaming(method, handler.stream_stream),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        raise NotImplementedError(f"{method}: calls of this shape would go unchecked")

    def _unary(self, method: str, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        async def call(request: object, context: Context) -> object:
            async with self._around(method, context):
                return await behaviour(request, context)

        return call

    def _streaming(self, method: str, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        # A coroutine that writes, not a generator: a cancelled call then always unwinds here, at once.
        async def call(request: object, context: Context) -> None:
            async with self._around(method, context):
                responses = behaviour(request, context)
                if inspect.isawaitable(responses):
                    await responses
                    return
                async with aclosing(responses):
                    async for response in responses:
                        await context.write(response)

        return call

    @asynccontextmanager
    async def _around(self, method: str, context: Context) -> AsyncIterator[None]:
        name = method.removeprefix("/").split(".")[-1]
        begun, code = time.monotonic(), grpc.StatusCode.OK
        lasting = name.split("/")[-1] in LASTING
        timed = lasting or context.time_remaining() is not None
        self._count(0 if lasting else 1)
        try:
            caller = self._access.caller(method, context.invocation_metadata() or ())
            TENANT.set(caller.tenant)
            async with asyncio.timeout(None if timed else self._default_deadline_s):
                with caller.call():
                    yield
        except asyncio.CancelledError:
            remaining = context.time_remaining()
            expired = remaining is not None and remaining <= 0
            code = grpc.StatusCode.DEADLINE_EXCEEDED if expired else grpc.StatusCode.CANCELLED
            raise
        except grpc.aio.AbortError:  # the handler has ended the call by itself
            code = CODES.get(context.code(), grpc.StatusCode.UNKNOWN)
            raise
        except Exception as error:
            refused = self._refusal(name, error)
            code = refused.code
            await context.abort_with_status(rpc_status.to_status(refused.status))
        finally:
            self._count(0 if lasting else -1)
            GRPC_REQUESTS.labels(name, code.name).inc()
            GRPC_DURATION.labels(name).observe(time.monotonic() - begun)

    def _count(self, change: int) -> None:
        self._open += change
        if self._open:
            self._idle.clear()
        else:
            self._idle.set()

    def _refusal(self, name: str, error: Exception) -> Refused:
        if isinstance(error, Refused):
            return error
        if isinstance(error, TimeoutError):
            message = f"not done within {self._default_deadline_s:g} s; set a longer deadline on the call"
            return Refused(grpc.StatusCode.DEADLINE_EXCEEDED, message, "DEFAULT_DEADLINE")
        if isinstance(error, EngineDead):
            self._engine_died()
            return unavailable(f"the engine is down: {error}", "ENGINE_DEAD", retry_after_s=5)
        if isinstance(error, RegistryAway):
            return unavailable(f"the registry is out of reach: {error}", "REGISTRY_AWAY", retry_after_s=5)
        log.error("%s failed", name, exc_info=error)
        return Refused(grpc.StatusCode.INTERNAL, f"{type(error).__name__}; the server's log says more", "INTERNAL")
