"""Calls over an asyncio channel: deadlines and retries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import grpc
import grpc.aio

from distorchd._methods import METHODS
from distorchd._tries import Tries
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


class _Tries(Tries):
    async def failed(self, error: DistorchdError) -> None:
        """Waits for the next try; raises `error` when there is none."""
        await asyncio.sleep(self.pause_after(error))
