"""Failures as one helpful line: what failed, and what to do next."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import grpc
    from typing_extensions import TypeIs

REMEDIES = {
    "PERMISSION_DENIED": "this key may not do that; use the key of the tenant that was served",
    "DEADLINE_EXCEEDED": "the server is busy; try again, or raise FOLDBACK_CONSOLE__TIMEOUT_S",
    "RESOURCE_EXHAUSTED": "the server is full; try again in a moment",
    "NOT_FOUND": "'foldback policies' lists the versions there are",
    "UNIMPLEMENTED": "this server does not know the call; is it the right port?",
    "INTERNAL": "a fault of the server; its log says more",
}
NOT_REACHED = ("failed to connect", "connection refused", "name resolution", "dns resolution")


class CommandError(Exception):
    """Ends a command with `message` and `exit_code`; no traceback is shown."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def explain(error: grpc.aio.AioRpcError, address: str = "") -> str:
    """One line for a failed call."""
    from console.rpc_details import field_violations, retry_delay

    code, details = error.code().name, (error.details() or "").strip()
    if code == "UNAVAILABLE" and any(sign in details.lower() for sign in NOT_REACHED):
        return (
            f"nobody answers at {address or 'the server address'}: start Foldback with 'foldback up', "
            "or point FOLDBACK_CONSOLE__ADDRESS and FOLDBACK_CONSOLE__ADMIN_ADDRESS at a running one"
        )
    if code == "UNAVAILABLE":
        delay = retry_delay(error)
        when = f"in {delay:.0f} s" if delay else "in a moment"
        return f"the server is not ready ({details or 'no reason given'}): try again {when}"
    violations = "; ".join(f"{field}: {why}" for field, why in field_violations(error))
    what = f"{code}: {violations or details or 'no reason given'}"
    remedy = REMEDIES.get(code)
    return f"{what} ({remedy})" if remedy else what


def explain_exception(error: BaseException, address: str = "") -> str | None:
    """One line for what a command may meet, None for a fault of ours."""
    if isinstance(error, CommandError):
        return str(error)
    if is_rpc_error(error):
        return explain(error, address)
    return None


def is_rpc_error(error: BaseException) -> TypeIs[grpc.aio.AioRpcError]:
    """Whether `error` is a failed call, without loading gRPC to find out."""
    grpc_aio = sys.modules.get("grpc.aio")
    return grpc_aio is not None and isinstance(error, grpc_aio.AioRpcError)
