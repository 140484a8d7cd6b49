"""How a client connects, tries again, and is told to stop."""

from __future__ import annotations

import os
import random
import threading
from dataclasses import dataclass, field
from typing import Any, Callable, Union

import grpc

Pem = Union[bytes, str, "os.PathLike[str]"]
"""PEM text as bytes, or the path of a file that holds it."""

DEFAULT_ADDRESS = "127.0.0.1:50051"


def environment_token() -> str | None:
    """As distorchctl finds it."""
    return os.environ.get("DISTORCH_TOKEN") or os.environ.get("DISTORCHD_AUTH_TOKEN")


def _read(pem: Pem | None) -> bytes | None:
    if pem is None or isinstance(pem, bytes):
        return pem
    with open(pem, "rb") as file:
        return file.read()


@dataclass(frozen=True)
class Tls:
    """Whom to trust, and who this client is. Without `ca` the system's authorities are trusted; `cert` and `key` go
    together, for servers that ask clients for a certificate. `server_name`: the name in the server's certificate, where
    it is not the address's."""

    ca: Pem | None = None
    cert: Pem | None = None
    key: Pem | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key go together: a client certificate needs both")

    def credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(_read(self.ca), _read(self.key), _read(self.cert))


@dataclass(frozen=True)
class RetryPolicy:
    """Calls that change nothing and answer once are tried again while the server is UNAVAILABLE, after exponentially
    growing, random pauses. Any call is that the server turned away before it began, with the time to wait
    (google.rpc.RetryInfo). `attempts` counts the first; 1: never again."""

    attempts: int = 4
    initial_seconds: float = 0.1
    max_seconds: float = 5.0

    def pause(self, tried: int, retry_after: float | None, rng: Callable[[], float] = random.random) -> float:
        """Seconds before the next try when `tried` have failed."""
        backoff = min(self.max_seconds, self.initial_seconds * 2 ** (tried - 1))
        if retry_after is not None:
            return retry_after + rng() * 0.1 * backoff  # never earlier; not all at once
        return backoff * (0.5 + rng() / 2)


@dataclass(frozen=True)
class ConnectOptions:
    address: str = DEFAULT_ADDRESS
    tls: Tls | None = None
    token: str | None = None
    timeout: float | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)

    @staticmethod
    def make(address: str | None, tls: Tls | bool | None, token: str | None, timeout: float | None,
             retry: RetryPolicy | None) -> ConnectOptions:
        address = address or os.environ.get("DISTORCHD_ADDRESS") or DEFAULT_ADDRESS
        if token is None:
            token = environment_token()
        return ConnectOptions(address, Tls() if tls is True else tls or None, token or None, timeout,
                              retry or RetryPolicy())

    def metadata(self, checkpoint: str) -> tuple[tuple[str, str], ...]:
        """`checkpoint`: what a call is about, by which a proxy before several daemons may choose one; or ""."""
        metadata = [("authorization", f"Bearer {self.token}")] if self.token else []
        if checkpoint.isascii() and checkpoint.isprintable() and checkpoint:  # all that gRPC lets through
            metadata.append(("x-distorch-checkpoint", checkpoint))
        return tuple(metadata)

    def channel_arguments(self) -> list[tuple[str, Any]]:
        """Latents and images of any size; and a server that is named is meant, not a proxy of the environment's."""
        arguments: list[tuple[str, Any]] = [("grpc.max_receive_message_length", -1),
                                            ("grpc.max_send_message_length", -1),
                                            ("grpc.enable_http_proxy", 0),
                                            # While a channel waits to connect again, every try fails at once.
                                            ("grpc.initial_reconnect_backoff_ms", 100),
                                            ("grpc.max_reconnect_backoff_ms", 5000)]
        if self.tls is not None and self.tls.server_name:
            arguments.append(("grpc.ssl_target_name_override", self.tls.server_name))
        return arguments


class Canceller:
    """Stops calls from another thread: pass it as `cancel`, then call cancel(). Such calls end with CancelledError."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._event = threading.Event()
        self._calls: set[Any] = set()

    def cancel(self) -> None:
        with self._lock:
            self._event.set()
            calls = list(self._calls)
        for call in calls:
            call.cancel()

    @property
    def cancelled(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Waits so long at most; whether it was cancelled."""
        return self._event.wait(seconds)

    def attach(self, call: Any) -> None:
        with self._lock:
            self._calls.add(call)
            cancelled = self._event.is_set()
        if cancelled:
            call.cancel()

    def detach(self, call: Any) -> None:
        with self._lock:
            self._calls.discard(call)
