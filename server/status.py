"""How a call is refused: a gRPC status code with google.rpc details (https://google.aip.dev/193)."""

from collections.abc import Mapping, Sequence

import grpc
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2, status_pb2

DOMAIN = "foldback"
Violation = tuple[str, str]
"""(field path, what is wrong and what would be accepted)."""


class Refused(Exception):
    """Ends a call with `status`, a google.rpc.Status."""

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        reason: str,
        *,
        violations: Sequence[Violation] = (),
        retry_after_s: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status_pb2.Status(code=code.value[0], message=message)
        self._attach(error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata or {}))
        if violations:
            fields = [
                error_details_pb2.BadRequest.FieldViolation(field=field, description=why) for field, why in violations
            ]
            self._attach(error_details_pb2.BadRequest(field_violations=fields))
        if retry_after_s is not None:
            delay = duration_pb2.Duration()
            delay.FromMilliseconds(int(retry_after_s * 1000))
            self._attach(error_details_pb2.RetryInfo(retry_delay=delay))

    def _attach(self, detail: object) -> None:
        self.status.details.add().Pack(detail)


def invalid(violations: Sequence[Violation]) -> Refused:
    """INVALID_ARGUMENT that names each field."""
    message = "; ".join(f"{field}: {why}" for field, why in violations)
    return Refused(grpc.StatusCode.INVALID_ARGUMENT, message, "INVALID_FIELDS", violations=violations)


def not_found(what: str, reason: str) -> Refused:
    return Refused(grpc.StatusCode.NOT_FOUND, what, reason)


def precondition(message: str, reason: str, **metadata: str) -> Refused:
    return Refused(grpc.StatusCode.FAILED_PRECONDITION, message, reason, metadata=metadata)


def exhausted(message: str, reason: str, *, retry_after_s: float) -> Refused:
    return Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, message, reason, retry_after_s=retry_after_s)


def unavailable(message: str, reason: str, *, retry_after_s: float) -> Refused:
    return Refused(grpc.StatusCode.UNAVAILABLE, message, reason, retry_after_s=retry_after_s)
