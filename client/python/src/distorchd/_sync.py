"""Calls over a blocking channel: deadlines, cancelling, retries."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import grpc

from distorchd._methods import METHODS, Method
from distorchd._tries import Tries
from distorchd.errors import DistorchdError, from_rpc_error, make_error
from distorchd.options import Canceller, ConnectOptions


class Transport:
    def __init__(self, options: ConnectOptions) -> None:
        self._options = options
        arguments = options.channel_arguments()
        if options.tls is None:
            self._channel = grpc.insecure_channel(options.address, arguments)
        else:
            self._channel = grpc.secure_channel(options.address, options.tls.credentials(), arguments)
        self._callables = {name: method.callable(self._channel) for name, method in METHODS.items()}

    def close(self) -> None:
        self._channel.close()

    def unary(self, name: str, request: Any, *, timeout: float | None, cancel: Canceller | None,
              checkpoint: str = "") -> Any:
        tries = _Tries(METHODS[name], self._options, timeout, cancel or Canceller())
        while True:
            call = self._callables[name].future(request, timeout=tries.left(), metadata=self._options.metadata(checkpoint))
            tries.cancel.attach(call)
            try:
                return call.result()
            except grpc.RpcError as error:
                tries.failed(from_rpc_error(error))
            except grpc.FutureCancelledError:
                raise make_error(grpc.StatusCode.CANCELLED, f"{name} was cancelled") from None
            finally:
                tries.cancel.detach(call)
                call.cancel()  # for a KeyboardInterrupt; nothing, when it has ended

    def stream(self, name: str, request: Any, *, timeout: float | None,
               cancel: Canceller | None, checkpoint: str = "") -> Generator[Any, None, None]:
        """Closing the iterator cancels the call."""
        tries = _Tries(METHODS[name], self._options, timeout, cancel or Canceller())
        while True:
            call = self._callables[name](request, timeout=tries.left(), metadata=self._options.metadata(checkpoint))
            tries.cancel.attach(call)
            try:
                for event in call:
                    tries.began = True
                    yield event
                return
            except grpc.RpcError as error:
                tries.failed(from_rpc_error(error))
            finally:
                tries.cancel.detach(call)
                call.cancel()


class _Tries(Tries):
    def __init__(self, method: Method, options: ConnectOptions, timeout: float | None, cancel: Canceller) -> None:
        super().__init__(method, options, timeout)
        self.cancel = cancel

    def failed(self, error: DistorchdError) -> None:
        """Waits for the next try; raises `error` when there is none."""
        if self.cancel.wait(self.pause_after(error)):
            raise make_error(grpc.StatusCode.CANCELLED, f"{self.method.name} was cancelled") from None
