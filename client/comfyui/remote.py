"""What lives on a daemon: connections, loaded components, and when they are let go.

A Part names a component by how it was made (a load with these fields, that adapter, these layers skipped) rather than by
its handle. Handles come and go: the daemon restarts, another load evicts what is idle, ComfyUI frees its models. A part
that is used finds its handle again, by making it as it was made.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
import weakref
from typing import Any, Callable, Iterator, TypeVar

import comfy.model_management
import comfy.utils
import distorchd
from distorchd import distorch_pb2 as pb
from distorchd.options import DEFAULT_ADDRESS, environment_token

T = TypeVar("T")

_GOODBYE_SECONDS = 5.0


@contextlib.contextmanager
def interruptible() -> Iterator[distorchd.Canceller]:
    """A canceller for calls inside, which ComfyUI's interrupt cancels; that then raises what it raises elsewhere."""
    cancel, done = distorchd.Canceller(), threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            if comfy.model_management.processing_interrupted():
                cancel.cancel()
                return

    watcher = threading.Thread(target=watch, name="distorchd-interrupt", daemon=True)
    watcher.start()
    try:
        yield cancel
    except distorchd.CancelledError:
        comfy.model_management.throw_exception_if_processing_interrupted()
        raise
    finally:
        done.set()
        watcher.join()


def default_address() -> str:
    return os.environ.get("DISTORCHD_ADDRESS") or DEFAULT_ADDRESS


class Server:
    """A daemon, once for each address and token. Counts who uses a handle: equal loads have equal handles."""

    _all: dict[tuple[str, str], Server] = {}
    _all_lock = threading.Lock()

    @classmethod
    def get(cls, address: str, token: str = "") -> Server:
        address = address.strip() or default_address()
        token = token.strip() or environment_token() or ""
        with cls._all_lock:
            if (address, token) not in cls._all:
                cls._all[address, token] = cls(address, token)
            return cls._all[address, token]

    @classmethod
    def all(cls) -> list[Server]:
        with cls._all_lock:
            return list(cls._all.values())

    def __init__(self, address: str, token: str) -> None:
        self.address, self.token, self.tls = address, token, _tls()
        self._client: distorchd.Client | None = None
        self._lock = threading.RLock()
        self._users: dict[str, int] = {}

    @property
    def client(self) -> distorchd.Client:
        with self._lock:
            if self._client is None:
                self._client = distorchd.Client(self.address, tls=self.tls, token=self.token)
            return self._client

    def hold(self, handle: str) -> None:
        with self._lock:
            self._users[handle] = self._users.get(handle, 0) + 1

    def let_go(self, handle: str) -> None:
        """Unloads it when nobody else holds it. Returns at once: this may run wherever Python collects garbage."""
        threading.Thread(target=self._let_go, args=(handle,), daemon=True).start()

    def _let_go(self, handle: str) -> None:
        with self._lock:  # until it is unloaded: who wants it next must not find it half gone
            if self.drop(handle):
                self._unload([handle])

    def drop(self, handle: str) -> bool:
        """One user less; whether that was the last. The daemon is not told: it may have lost the handle by itself."""
        with self._lock:
            left = self._users.pop(handle, 0) - 1
            if left > 0:
                self._users[handle] = left
            return left <= 0

    def unload_idle(self) -> None:
        """Frees what is held but not computing. Parts stay: they load again when they are used."""
        with self._lock:
            handles = list(self._users)
        self._unload(handles)

    def _unload(self, handles: list[str]) -> None:
        for handle in handles:
            try:
                self.client.unload(handle, timeout=_GOODBYE_SECONDS)
            except (distorchd.NotFoundError, distorchd.FailedPreconditionError, distorchd.UnavailableError):
                pass  # gone already, with its daemon perhaps; or somebody else computes with it
            except distorchd.DistorchdError as error:
                logging.warning("distorchd %s: %s was not unloaded: %s", self.address, handle, error)
                return


@atexit.register
def _unload_everything() -> None:
    for server in Server.all():
        server.unload_idle()


def _tls() -> distorchd.Tls | None:
    """From the environment: DISTORCHD_TLS=1 trusts the system's authorities, DISTORCHD_TLS_CA those of a file."""
    ca, cert, key = (os.environ.get(f"DISTORCHD_TLS_{name}") or None for name in ("CA", "CERT", "KEY"))
    return distorchd.Tls(ca, cert, key) if ca or cert or os.environ.get("DISTORCHD_TLS") else None


class Load:
    """A checkpoint with the node's fields: what three parts begin with."""

    def __init__(self, server: Server, ckpt_name: str, fields: dict[str, Any]) -> None:
        self.server, self.ckpt_name, self._fields = server, ckpt_name, fields
        self._lock = threading.Lock()
        self._loaded: pb.LoadCheckpointResponse | None = None

    def response(self) -> pb.LoadCheckpointResponse:
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load()
            return self._loaded

    def forget(self) -> None:
        with self._lock:
            self._loaded = None

    def _load(self) -> pb.LoadCheckpointResponse:
        bar = comfy.utils.ProgressBar(100)

        def show(progress: distorchd.Progress) -> None:
            if progress.total:
                bar.update_absolute(int(100 * progress.done / progress.total), 100)

        with interruptible() as cancel:
            loaded = self.server.client.load(self.ckpt_name, progress=show, cancel=cancel, **self._fields).loaded
        for component in loaded.placement.components:
            where = ", ".join(f"{device.measured_bytes / 2**20:.0f} MiB on {device.device}" for device in component.devices)
            logging.info("distorchd %s: %s of %s: %s", self.server.address, component.component, self.ckpt_name, where)
        return loaded


class Part:
    """A component on a daemon: "model", "clip" or "vae". Its handle is let go when nothing refers to the part."""

    def __init__(self, kind: str, load: Load, parent: Part | None = None, make: Callable[[str], str] | None = None) -> None:
        self.kind, self.load = kind, load
        self._parent, self._make = parent, make
        self._lock = threading.RLock()
        self._handle = ""
        self._finalizer: weakref.finalize | None = None

    @property
    def server(self) -> Server:
        return self.load.server

    def derive(self, make: Callable[[str], str]) -> Part:
        """Another part that `make` makes of this one's handle."""
        return Part(self.kind, self.load, self, make)

    def with_lora(self, lora_name: str, strength: float) -> Part:
        def make(handle: str) -> str:
            request = pb.ApplyLoraRequest(lora_name=lora_name, strength_model=strength, strength_clip=strength)
            setattr(request, self.kind, handle)
            applied = self.call("ApplyLora", request)
            if applied.unmatched_count:
                logging.info("distorchd: %d tensors of %s fit neither", applied.unmatched_count, lora_name)
            return getattr(applied, self.kind)

        return self.derive(make)

    def with_clip_skip(self, stop_at_layer: int) -> Part:
        return self.derive(lambda handle: self.call(
            "SetClipSkip", pb.SetClipSkipRequest(clip=handle, stop_at_layer=stop_at_layer)).clip)

    def call(self, method: str, request: Any) -> Any:
        with interruptible() as cancel:
            return self.server.client.call(method, request, cancel=cancel, checkpoint=self.load.ckpt_name)

    def handle(self) -> str:
        with self._lock:
            if not self._handle:
                handle = getattr(self.load.response(), self.kind) if self._parent is None else self._make(self._parent.handle())
                if not handle:
                    raise RuntimeError(f"{self.load.ckpt_name} has no {self.kind}")
                self.server.hold(handle)
                self._finalizer = weakref.finalize(self, self.server.let_go, handle)
                self._finalizer.atexit = False  # all that is held is unloaded then
                self._handle = handle
            return self._handle

    def use(self, call: Callable[[str], T]) -> T:
        """`call` of the handle; when that is not there any more, once more of the one that it is made anew under."""
        try:
            return call(self.handle())
        except distorchd.NotFoundError:
            self._forget()
            return call(self.handle())

    def _forget(self) -> None:
        with self._lock:
            if self._finalizer is not None and self._finalizer.detach():
                self.server.drop(self._handle)
            self._handle, self._finalizer = "", None
        if self._parent is not None:
            self._parent._forget()
        else:
            self.load.forget()
