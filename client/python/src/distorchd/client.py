"""The blocking client. distorchd.aio has the same for asyncio."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, Union

from distorchd import distorch_pb2 as pb
from distorchd import fields as f
from distorchd import results as r
from distorchd._handles import Handles
from distorchd._sync import Transport
from distorchd.errors import DistorchdError, FailedPreconditionError, NotFoundError
from distorchd.options import Canceller, ConnectOptions, RetryPolicy, Tls
from distorchd.progress import ProgressArgument, reporter
from distorchd.results import Conditioning, InferResult, Progress
from distorchd.tensors import ArrayLike, FileLike, ImageLike, Tensor

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from distorchd.fields import LoadFields, SamplingFields

T = TypeVar("T")

# Seconds between tries to unload at a block's end: a call that was cancelled uses its handles until its step ends.
PATIENCE = (0.05, 0.1, 0.2, 0.4, 0.8, 0.0)


class Client:
    """A connection to a daemon. Thread-safe: calls run at the same time over one connection, which is opened by the first
    call and made again when it breaks.

    `address`: "HOST:PORT", or any target gRPC knows; by default DISTORCHD_ADDRESS of the environment, then
    127.0.0.1:50051. `tls`: True to trust the system's authorities, or a Tls. `token`: sent with each call as "authorization:
    Bearer …"; by default DISTORCH_TOKEN's. `timeout`: seconds that each call may take, retries included, where it is
    not given one of its own.

    Every method takes `timeout` and `cancel` (a Canceller), and raises a DistorchdError with the server's code and text.
    """

    def __init__(self, address: str | None = None, *, tls: Tls | bool | None = None, token: str | None = None,
                 timeout: float | None = None, retry: RetryPolicy | None = None) -> None:
        self._options = ConnectOptions.make(address, tls, token, timeout, retry)
        self._transport = Transport(self._options)

    @property
    def address(self) -> str:
        return self._options.address

    def close(self) -> None:
        """Ends the connection; calls that are under way end with CancelledError."""
        self._transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def call(self, method: str, request: Any, *, timeout: float | None = None, cancel: Canceller | None = None,
             checkpoint: str = "") -> Any:
        """Any method of the contract that answers once, in the contract's messages (distorchd.distorch_pb2).
        `checkpoint`: the name of the one it is about, for proxies that route by it."""
        return self._transport.unary(method, request, timeout=timeout, cancel=cancel, checkpoint=checkpoint)

    def stream(self, method: str, request: Any, *, timeout: float | None = None,
               cancel: Canceller | None = None, checkpoint: str = "") -> Generator[Any, None, None]:
        """Any method of the contract that answers with a stream. Closing the iterator cancels the call."""
        return self._transport.stream(method, request, timeout=timeout, cancel=cancel, checkpoint=checkpoint)

    def list_devices(self, *, timeout: float | None = None) -> Sequence[pb.DeviceInfo]:
        return self.call("ListDevices", pb.ListDevicesRequest(), timeout=timeout).devices

    def list_links(self, *, timeout: float | None = None) -> Sequence[pb.LinkInfo]:
        """Speeds between devices, and what they have carried."""
        return self.call("ListLinks", pb.ListLinksRequest(), timeout=timeout).links

    def list_checkpoints(self, *, timeout: float | None = None) -> Sequence[pb.CheckpointInfo]:
        return self.call("ListCheckpoints", pb.ListCheckpointsRequest(), timeout=timeout).checkpoints

    def list_models(self, *, timeout: float | None = None) -> Sequence[pb.ModelInfo]:
        """Open handles."""
        return self.call("ListModels", pb.ListModelsRequest(), timeout=timeout).models

    def plan(self, ckpt_name: str, *, timeout: float | None = None,
             **fields: Unpack[LoadFields]) -> pb.PlanCheckpointResponse:
        """Where each block would be placed, and whether that fits. Reads headers only."""
        return self.call("PlanCheckpoint", f.load_request(ckpt_name, fields), timeout=timeout, checkpoint=ckpt_name)

    def load(self, ckpt_name: str, *, progress: ProgressArgument = None, timeout: float | None = None,
             cancel: Canceller | None = None, **fields: Unpack[LoadFields]) -> Checkpoint:
        """Loads a checkpoint, or finds it loaded: equal names and fields give equal handles."""
        request = f.load_request(ckpt_name, fields)
        events = self.stream("LoadCheckpointStream", request, timeout=timeout, cancel=cancel, checkpoint=ckpt_name)
        loaded = _finish(events, r.load_event, progress, pb.LoadCheckpointResponse)
        return Checkpoint(self, loaded.model, loaded.clip, loaded.vae, loaded, ckpt_name)

    def attach(self, model: str = "", clip: str = "", vae: str = "", *, ckpt_name: str = "") -> Checkpoint:
        """Handles that somebody else loaded, as list_models shows them: for clients that may compute, but not load. They
        stay when the result's block ends."""
        return Checkpoint(self, model, clip, vae, pb.LoadCheckpointResponse(model=model, clip=clip, vae=vae), ckpt_name, own=())

    def unload(self, *handles: str, all: bool = False, force: bool = False,
               timeout: float | None = None) -> pb.UnloadResponse:
        """The receipt: bytes freed per device. `force`: also handles in use; their requests end with AbortedError."""
        return self.call("Unload", f.unload_request(handles, all, force), timeout=timeout)


class Checkpoint(Handles[Client]):
    """Handles of a loaded checkpoint's model, text encoders and VAE ("" for one that the file lacks), and what can be done
    with them. As a context manager it unloads them at its end, unless others are using them."""

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            for pause in PATIENCE:
                with contextlib.suppress(FailedPreconditionError):
                    self.unload()
                    break
                time.sleep(pause)
        except DistorchdError:
            if error is None:  # what went wrong inside matters more
                raise

    def unload(self, *, force: bool = False, timeout: float | None = None) -> pb.UnloadResponse:
        """Closes these handles; the receipt says what that freed. Again, or after the server dropped them: an empty one.
        Of apply_lora's and clip_skip's checkpoints: only what these made."""
        own = [handle for handle in self._own if handle]
        try:
            return self.client.unload(*own, force=force, timeout=timeout) if own else pb.UnloadResponse()
        except NotFoundError:
            return self._unload_each(own, force, timeout)

    def _unload_each(self, handles: list[str], force: bool, timeout: float | None) -> pb.UnloadResponse:
        receipts = []
        for handle in handles:
            try:
                receipts.append(self.client.unload(handle, force=force, timeout=timeout))
            except NotFoundError:
                continue
        return r.sum_receipts(receipts)

    def infer(self, prompt: str, *, negative_prompt: str = "", width: int = 0, height: int = 0, batch_size: int = 1,
              init_image: FileLike | None = None, mask_image: FileLike | None = None, image_format: str = "png",
              tile_size: int = 0, preview_every: int = 0, progress: ProgressArgument = None,
              timeout: float | None = None, cancel: Canceller | None = None,
              **options: Unpack[SamplingFields]) -> InferResult:
        """Text, and image, to image. `width` and `height`: multiples of 8; 0: 512. `init_image` and `denoise` give image to
        image, `mask_image` (white is repainted) inpainting."""
        request = f.infer_request((self.model, self.clip, self.vae), prompt, negative_prompt, (width, height), batch_size,
                                  init_image, mask_image, image_format, tile_size, preview_every, options)
        return _finish(self._stream("Infer", request, timeout, cancel), r.infer_event, progress, InferResult)

    def encode_text(self, text: str, *, timeout: float | None = None, cancel: Canceller | None = None) -> Conditioning:
        """A prompt, in ComfyUI's syntax, for sample and denoise."""
        request = pb.EncodeTextRequest(clip=self.clip, text=text)
        return r.conditioning_of(self._call("EncodeText", request, timeout, cancel))

    def sample(self, positive: Conditioning, negative: Conditioning, latent: ArrayLike, *, noise: ArrayLike | None = None,
               noise_mask: ArrayLike | None = None, sigmas: Iterable[float] = (), preview_every: int = 0,
               progress: ProgressArgument = None, timeout: float | None = None, cancel: Canceller | None = None,
               **options: Unpack[SamplingFields]) -> Tensor:
        """KSampler, and KSamplerAdvanced: the sampled latent. `latent`: N,C,h,w as a ComfyUI LATENT; zeros (empty_latent)
        for text to image. `noise`: in place of the seed's; `sigmas`: in place of scheduler and steps."""
        def run(by_id: bool) -> Tensor:
            request = f.sample_request(self.model, positive, negative, latent, noise, noise_mask, sigmas, preview_every,
                                       by_id, options)
            return _finish(self._stream("Sample", request, timeout, cancel), r.sample_event, progress, Tensor)

        try:
            return run(by_id=True)
        except NotFoundError:  # the server does not keep conditionings for ever
            if not (positive.id or negative.id):
                raise
            return run(by_id=False)

    def denoise(self, x: ArrayLike, sigma: Union[float, Iterable[float]], conditioning: Conditioning, *,
                timeout: float | None = None, cancel: Canceller | None = None) -> Tensor:
        """One evaluation of the model, in the model's latent space: for samplers of your own. loaded.denoiser says which
        noise levels there are, and how the spaces relate."""
        request = f.denoise_request(self.model, x, sigma, conditioning)
        return Tensor(self._call("Denoise", request, timeout, cancel).denoised)

    def decode(self, latent: ArrayLike, *, tile_size: int = 0, timeout: float | None = None,
               cancel: Canceller | None = None) -> Tensor:
        """Images N,H,W,3 in 0..1."""
        request = pb.DecodeLatentRequest(vae=self.vae, latent=f.to_wire(latent), tile_size=tile_size)
        return Tensor(self._call("DecodeLatent", request, timeout, cancel).images)

    def encode(self, image: ImageLike | FileLike, *, tile_size: int = 0, timeout: float | None = None,
               cancel: Canceller | None = None) -> Tensor:
        """The latent of images."""
        request = f.encode_image_request(self.vae, image, tile_size)
        return Tensor(self._call("EncodeImage", request, timeout, cancel).latent)

    def apply_lora(self, lora_name: str, strength: float = 1.0, strength_clip: float | None = None, *,
                   timeout: float | None = None, cancel: Canceller | None = None) -> Checkpoint:
        """Further handles with an adapter from the server's folders; these stay as they are. `strength_clip`: by default
        `strength`. The result's response has the file's unmatched keys."""
        request = f.lora_request((self.model, self.clip), lora_name, strength, strength_clip)
        applied = self._call("ApplyLora", request, timeout, cancel)
        return self._derive(applied.model, applied.clip, applied)

    def clip_skip(self, stop_at_layer: int, *, timeout: float | None = None) -> Checkpoint:
        """The same with text encoders that stop early: -1 is the last layer, -2 the one before."""
        request = pb.SetClipSkipRequest(clip=self.clip, stop_at_layer=stop_at_layer)
        skipping = self._call("SetClipSkip", request, timeout)
        return self._derive(self.model, skipping.clip, skipping)

    def _call(self, method: str, request: Any, timeout: float | None, cancel: Canceller | None = None) -> Any:
        return self.client.call(method, request, timeout=timeout, cancel=cancel, checkpoint=self.ckpt_name)

    def _stream(self, method: str, request: Any, timeout: float | None,
                cancel: Canceller | None) -> Generator[Any, None, None]:
        return self.client.stream(method, request, timeout=timeout, cancel=cancel, checkpoint=self.ckpt_name)


def _finish(events: Generator[Any, None, None], read: Callable[[Any], Any], progress: ProgressArgument,
            result: type[T]) -> T:
    """Reports progress; returns the event that is the result. Whatever ends this ends the call."""
    report, close = reporter(progress)
    with contextlib.closing(events), contextlib.ExitStack() as stack:
        stack.callback(close)
        for event in map(read, events):
            if isinstance(event, result):
                return event
            if report is not None and isinstance(event, Progress):
                report(event)
    raise RuntimeError("the server ended the call without a result")
