"""When a call is tried again, and when it is not."""

from __future__ import annotations

import time

from distorchd._methods import Method, may_retry
from distorchd.errors import DistorchdError
from distorchd.options import ConnectOptions


class Tries:
    """Those of one call. `timeout`: seconds for all of them, pauses included; None: the connection's."""

    def __init__(self, method: Method, options: ConnectOptions, timeout: float | None) -> None:
        self.method, self._retry = method, options.retry
        timeout = options.timeout if timeout is None else timeout
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._tried = 0
        self.began = False
        """Whether something of the answer has come."""

    def left(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def pause_after(self, error: DistorchdError) -> float:
        """Seconds until the next try, after one that failed; raises `error` when there is none."""
        self._tried += 1
        pause = self._retry.pause(self._tried, error.retry_after)
        if self._tried >= self._retry.attempts or not may_retry(self.method, error, self.began) or (
                self._deadline is not None and time.monotonic() + pause >= self._deadline):
            raise error from None
        return pause
