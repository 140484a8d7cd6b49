"""What calls raise: the server's code and text, unchanged, in an exception class for each code."""

from __future__ import annotations

from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2


class DistorchdError(Exception):
    """A call failed. str() is the server's text."""

    code: grpc.StatusCode
    message: str
    retry_after: float | None
    """Seconds after which the server asks to try again, where it says so."""
    request_id: str | None
    """What the server's log calls the request."""

    def __init__(self, code: grpc.StatusCode, message: str, *, retry_after: float | None = None,
                 request_id: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after = retry_after
        self.request_id = request_id

    def __str__(self) -> str:
        return self.message or self.code.name


class InvalidArgumentError(DistorchdError):
    """A field is wrong: the text names it and what is allowed."""


class NotFoundError(DistorchdError):
    """An unknown checkpoint or LoRA file, or a handle that is not loaded (any more)."""


class ResourceExhaustedError(DistorchdError):
    """No memory (the text says who holds it), a full queue, or a limit."""


class FailedPreconditionError(DistorchdError):
    """Not now: such as handles in use."""


class AbortedError(DistorchdError):
    """The model was unloaded by force meanwhile."""


class UnavailableError(DistorchdError):
    """No server answers, or it is shutting down."""


class DeadlineExceededError(DistorchdError):
    """`timeout` passed."""


class CancelledError(DistorchdError):
    """A Canceller, or the server, ended the call."""


class UnauthenticatedError(DistorchdError):
    """The server wants a token, or another one."""


class PermissionDeniedError(DistorchdError):
    """The token may not do this."""


_CLASSES: dict[grpc.StatusCode, type[DistorchdError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhaustedError,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPreconditionError,
    grpc.StatusCode.ABORTED: AbortedError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.CANCELLED: CancelledError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
}


def make_error(code: grpc.StatusCode, message: str, **extra: Any) -> DistorchdError:
    return _CLASSES.get(code, DistorchdError)(code, message, **extra)


def from_rpc_error(error: Any) -> DistorchdError:
    """Of a grpc.RpcError that is also the call (sync), or of a grpc.aio.AioRpcError."""
    metadata = _metadata(error, "initial_metadata") | _metadata(error, "trailing_metadata")
    return make_error(error.code() or grpc.StatusCode.UNKNOWN, error.details() or "",
                      retry_after=_retry_after(metadata), request_id=metadata.get("x-request-id"))


def _metadata(error: Any, method: str) -> dict[str, Any]:
    return {key: value for key, value in getattr(error, method)() or ()}


def _retry_after(metadata: dict[str, Any]) -> float | None:
    """google.rpc.RetryInfo, in the rich error model's trailer; or the plain one, in milliseconds."""
    details = metadata.get("grpc-status-details-bin")
    if details is not None:
        try:
            status = status_pb2.Status.FromString(details)
            for detail in status.details:
                info = error_details_pb2.RetryInfo()
                if detail.Unpack(info):
                    return max(0.0, info.retry_delay.ToTimedelta().total_seconds())
        except Exception:  # a proxy's own trailer: the error matters, not the hint
            return None
    pushback = metadata.get("grpc-retry-pushback-ms")
    return int(pushback) / 1000 if isinstance(pushback, str) and pushback.isdigit() else None
