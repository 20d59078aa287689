"""What a failed call says beyond its code: google.rpc details."""

from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

TRAILER = "grpc-status-details-bin"


def retry_delay(error: grpc.aio.AioRpcError) -> float | None:
    """Seconds the server asks to wait (RetryInfo), None if it does not say."""
    info = _detail(error, error_details_pb2.RetryInfo)
    if info is None:
        return None
    return float(info.retry_delay.seconds + info.retry_delay.nanos / 1e9)


def field_violations(error: grpc.aio.AioRpcError) -> list[tuple[str, str]]:
    """(field, why) of each refused field (BadRequest)."""
    request = _detail(error, error_details_pb2.BadRequest)
    if request is None:
        return []
    return [(violation.field, violation.description) for violation in request.field_violations]


def _detail(error: grpc.aio.AioRpcError, kind: Any) -> Any:
    for key, value in error.trailing_metadata() or ():
        if key == TRAILER:
            for packed in status_pb2.Status.FromString(value).details:
                detail = kind()
                if packed.Unpack(detail):
                    return detail
    return None
