"""Calls over an asyncio channel: deadlines and retries."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

import grpc
import grpc.aio

from distorchd._methods import METHODS, Method, may_retry
from distorchd.errors import DistorchdError, from_rpc_error
from distorchd.options import ConnectOptions


class Transport:
    def __init__(self, options: ConnectOptions) -> None:
        self._options = options
        arguments = options.channel_arguments()
        if options.tls is None:
            self._channel = grpc.aio.insecure_channel(options.address, arguments)
        else:
            self._channel = grpc.aio.secure_channel(options.address, options.tls.credentials(), arguments)
        self._callables = {name: method.callable(self._channel) for name, method in METHODS.items()}

    async def close(self) -> None:
        await self._channel.close()

    async def unary(self, name: str, request: Any, *, timeout: float | None, checkpoint: str = "") -> Any:
        tries = _Tries(METHODS[name], self._options, timeout)
        while True:
            call = self._callables[name](request, timeout=tries.left(), metadata=self._options.metadata(checkpoint))
            try:
                return await call
            except grpc.RpcError as error:
                await tries.failed(from_rpc_error(error))

    async def stream(self, name: str, request: Any, *, timeout: float | None,
                     checkpoint: str = "") -> AsyncGenerator[Any, None]:
        """Closing the iterator cancels the call."""
        tries = _Tries(METHODS[name], self._options, timeout)
        while True:
            call = self._callables[name](request, timeout=tries.left(), metadata=self._options.metadata(checkpoint))
            try:
                async for event in call:
                    tries.began = True
                    yield event
                return
            except grpc.RpcError as error:
                await tries.failed(from_rpc_error(error))
            finally:
                call.cancel()  # nothing, when it has ended


class _Tries:
    def __init__(self, method: Method, options: ConnectOptions, timeout: float | None) -> None:
        self._method, self._retry = method, options.retry
        timeout = options.timeout if timeout is None else timeout
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._tried = 0
        self.began = False

    def left(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    async def failed(self, error: DistorchdError) -> None:
        """Waits for the next try; raises `error` when there is none."""
        self._tried += 1
        pause = self._retry.pause(self._tried, error.retry_after)
        if self._tried >= self._retry.attempts or not may_retry(self._method, error, self.began) or (
                self._deadline is not None and time.monotonic() + pause >= self._deadline):
            raise error from None
        await asyncio.sleep(pause)
