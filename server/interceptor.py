"""Around every call: whose it is, its deadline, its status with details, its metrics."""

import asyncio
import inspect
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from grpc_status import rpc_status
from prometheus_client import Counter

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


Parse: TypeAlias = Callable[[Any], Any]


class _Counts(dict[grpc.StatusCode, Counter]):
    """The counters of one method by code: looking one up by its labels costs more than counting."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def __missing__(self, code: grpc.StatusCode) -> Counter:
        self[code] = counter = GRPC_REQUESTS.labels(self._name, code.name)
        return counter


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
        parse = handler.request_deserializer or bytes
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(
                self._checked(method, parse, _writing(handler.unary_stream)),
                response_serializer=handler.response_serializer,
            )
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(
                self._checked(method, parse, handler.unary_unary),
                response_serializer=handler.response_serializer,
            )
        if handler.stream_stream:
            return grpc.stream_stream_rpc_method_handler(
                self._checked(method, _each(parse), _writing(handler.stream_stream)),
                response_serializer=handler.response_serializer,
            )
        raise NotImplementedError(f"{method}: calls of this shape would go unchecked")

    def _checked(self, method: str, parse: Parse, answer: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
        """`answer` with all that goes around it; it gets raw bytes, so that bad ones are refused as all else is."""
        name = method.removeprefix("/").split(".")[-1]
        lasting = name.split("/")[-1] in LASTING
        duration, count = GRPC_DURATION.labels(name), _Counts(name)

        async def call(raw: Any, context: Context) -> object:
            begun, code = time.monotonic(), grpc.StatusCode.OK
            if not lasting:
                self._count(1)
            try:
                caller = self._access.caller(method, context.invocation_metadata() or ())
                TENANT.set(caller.tenant)
                with caller.call():
                    request = _parsed(parse, raw)
                    if lasting or context.time_remaining() is not None:
                        return await answer(request, context)
                    async with asyncio.timeout(self._default_deadline_s):
                        return await answer(request, context)
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
                if not lasting:
                    self._count(-1)
                count[code].inc()
                duration.observe(time.monotonic() - begun)

        return call

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


def _parsed(parse: Parse, raw: Any) -> Any:
    """Raises Refused (INVALID_ARGUMENT): the bytes are not the message that the method takes."""
    try:
        return parse(raw)
    except DecodeError:
        kind = getattr(parse, "__self__", type(None)).__name__
        message = f"the request's {len(raw)} bytes are no {kind}; call with the stubs of foldback.v1"
        raise Refused(grpc.StatusCode.INVALID_ARGUMENT, message, "MALFORMED_REQUEST") from None


def _each(parse: Parse) -> Parse:
    """For a stream of requests: parses each as it comes."""

    async def parsed(raws: AsyncIterator[bytes]) -> AsyncIterator[object]:
        async for raw in raws:
            yield _parsed(parse, raw)

    return parsed


def _writing(behaviour: Callable[..., Any]) -> Callable[..., Awaitable[None]]:
    """A coroutine that writes, also where `behaviour` yields: a cancelled call then always unwinds here, at once."""
    if inspect.iscoroutinefunction(behaviour):
        return behaviour

    async def call(request: object, context: Context) -> None:
        async with aclosing(behaviour(request, context)) as responses:
            async for response in responses:
                await context.write(response)

    return call
