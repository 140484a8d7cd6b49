"""What drop-downs offer: the daemon's devices and checkpoints, when it answers."""

from __future__ import annotations

import time

import distorchd

from .remote import Server, default_address

_KEPT_SECONDS = 5.0  # ComfyUI asks for every node of a workflow
_PATIENCE_SECONDS = 2.0

_seen: tuple[float, list[str], list[str]] | None = None


def get() -> tuple[list[str], list[str]]:
    """Names of checkpoints, and of devices, accelerators first. Of a daemon that does not answer: what says so, and cpu."""
    global _seen
    if _seen is None or time.monotonic() - _seen[0] > _KEPT_SECONDS:
        _seen = (time.monotonic(), *_ask(default_address()))
    return _seen[1], _seen[2]


def _ask(address: str) -> tuple[list[str], list[str]]:
    try:
        server = Server.get(address)
        with distorchd.Client(server.address, token=server.token, tls=server.tls, timeout=_PATIENCE_SECONDS,
                              retry=distorchd.RetryPolicy(attempts=1)) as client:
            devices = [device.name for device in client.list_devices()]
            checkpoints = [checkpoint.ckpt_name for checkpoint in client.list_checkpoints() if not checkpoint.error]
    except (distorchd.DistorchdError, OSError, ValueError) as error:  # the latter two of certificates' files
        return [f"(distorchd at {address}: {error})"[:200]], ["cpu"]
    return checkpoints or [f"(distorchd at {address} has no checkpoints)"], devices or ["cpu"]
