"""The client for asyncio: distorchd.Client's methods, awaited. Cancelling the task cancels the call."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, Union

from distorchd import distorch_pb2 as pb
from distorchd import fields as f
from distorchd import results as r
from distorchd._async import Transport
from distorchd._handles import Handles
from distorchd.client import PATIENCE
from distorchd.errors import DistorchdError, FailedPreconditionError, NotFoundError
from distorchd.options import ConnectOptions, RetryPolicy, Tls
from distorchd.progress import ProgressArgument, reporter
from distorchd.results import Conditioning, InferResult, Progress
from distorchd.tensors import ArrayLike, FileLike, ImageLike, Tensor

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from distorchd.fields import LoadFields, SamplingFields

T = TypeVar("T")


class AsyncClient:
    """As distorchd.Client, for one event loop: make it where that runs. Cancelling a task that awaits a method cancels the
    call on the server, too. A progress callback may be a coroutine function."""

    def __init__(self, address: str | None = None, *, tls: Tls | bool | None = None, token: str | None = None,
                 timeout: float | None = None, retry: RetryPolicy | None = None) -> None:
        self._options = ConnectOptions.make(address, tls, token, timeout, retry)
        self._transport = Transport(self._options)

    @property
    def address(self) -> str:
        return self._options.address

    async def close(self) -> None:
        """Ends the connection; calls that are under way end with CancelledError."""
        await self._transport.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.close()

    async def call(self, method: str, request: Any, *, timeout: float | None = None, checkpoint: str = "") -> Any:
        """Any method of the contract that answers once, in the contract's messages (distorchd.distorch_pb2).
        `checkpoint`: the name of the one it is about, for proxies that route by it."""
        return await self._transport.unary(method, request, timeout=timeout, checkpoint=checkpoint)

    def stream(self, method: str, request: Any, *, timeout: float | None = None,
               checkpoint: str = "") -> AsyncGenerator[Any, None]:
        """Any method of the contract that answers with a stream. Closing the iterator cancels the call."""
        return self._transport.stream(method, request, timeout=timeout, checkpoint=checkpoint)

    async def list_devices(self, *, timeout: float | None = None) -> Sequence[pb.DeviceInfo]:
        return (await self.call("ListDevices", pb.ListDevicesRequest(), timeout=timeout)).devices

    async def list_links(self, *, timeout: float | None = None) -> Sequence[pb.LinkInfo]:
        """Speeds between devices, and what they have carried."""
        return (await self.call("ListLinks", pb.ListLinksRequest(), timeout=timeout)).links

    async def list_checkpoints(self, *, timeout: float | None = None) -> Sequence[pb.CheckpointInfo]:
        return (await self.call("ListCheckpoints", pb.ListCheckpointsRequest(), timeout=timeout)).checkpoints

    async def list_models(self, *, timeout: float | None = None) -> Sequence[pb.ModelInfo]:
        """Open handles."""
        return (await self.call("ListModels", pb.ListModelsRequest(), timeout=timeout)).models

    async def plan(self, ckpt_name: str, *, timeout: float | None = None,
                   **fields: Unpack[LoadFields]) -> pb.PlanCheckpointResponse:
        """Where each block would be placed, and whether that fits. Reads headers only."""
        return await self.call("PlanCheckpoint", f.load_request(ckpt_name, fields), timeout=timeout, checkpoint=ckpt_name)

    async def load(self, ckpt_name: str, *, progress: ProgressArgument = None, timeout: float | None = None,
                   **fields: Unpack[LoadFields]) -> AsyncCheckpoint:
        """Loads a checkpoint, or finds it loaded: equal names and fields give equal handles."""
        request = f.load_request(ckpt_name, fields)
        events = self.stream("LoadCheckpointStream", request, timeout=timeout, checkpoint=ckpt_name)
        loaded = await _finish(events, r.load_event, progress, pb.LoadCheckpointResponse)
        return AsyncCheckpoint(self, loaded.model, loaded.clip, loaded.vae, loaded, ckpt_name)

    def attach(self, model: str = "", clip: str = "", vae: str = "", *, ckpt_name: str = "") -> AsyncCheckpoint:
        """Handles that somebody else loaded, as list_models shows them: for clients that may compute, but not load. They
        stay when the result's block ends."""
        return AsyncCheckpoint(self, model, clip, vae, pb.LoadCheckpointResponse(model=model, clip=clip, vae=vae), ckpt_name, own=())

    async def unload(self, *handles: str, all: bool = False, force: bool = False,
                     timeout: float | None = None) -> pb.UnloadResponse:
        """The receipt: bytes freed per device. `force`: also handles in use; their requests end with AbortedError."""
        return await self.call("Unload", f.unload_request(handles, all, force), timeout=timeout)


class AsyncCheckpoint(Handles[AsyncClient]):
    """Handles of a loaded checkpoint's model, text encoders and VAE ("" for one that the file lacks), and what can be done
    with them. As a context manager it unloads them at its end, unless others are using them."""

    async def __aenter__(self) -> AsyncCheckpoint:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        try:
            for pause in PATIENCE:
                with contextlib.suppress(FailedPreconditionError):
                    await self.unload()
                    break
                await asyncio.sleep(pause)
        except DistorchdError:
            if error is None:  # what went wrong inside matters more
                raise

    async def unload(self, *, force: bool = False, timeout: float | None = None) -> pb.UnloadResponse:
        """Closes these handles; the receipt says what that freed. Again, or after the server dropped them: an empty one.
        Of apply_lora's and clip_skip's checkpoints: only what these made."""
        own = [handle for handle in self._own if handle]
        try:
            return await self.client.unload(*own, force=force, timeout=timeout) if own else pb.UnloadResponse()
        except NotFoundError:
            return await self._unload_each(own, force, timeout)

    async def _unload_each(self, handles: list[str], force: bool, timeout: float | None) -> pb.UnloadResponse:
        receipts = []
        for handle in handles:
            try:
                receipts.append(await self.client.unload(handle, force=force, timeout=timeout))
            except NotFoundError:
                continue
        return r.sum_receipts(receipts)

    async def infer(self, prompt: str, *, negative_prompt: str = "", width: int = 0, height: int = 0, batch_size: int = 1,
                    init_image: FileLike | None = None, mask_image: FileLike | None = None, image_format: str = "png",
                    tile_size: int = 0, preview_every: int = 0, progress: ProgressArgument = None,
                    timeout: float | None = None,
                    **options: Unpack[SamplingFields]) -> InferResult:
        """Text, and image, to image. `width` and `height`: multiples of 8; 0: 512. `init_image` and `denoise` give image to
        image, `mask_image` (white is repainted) inpainting."""
        request = f.infer_request((self.model, self.clip, self.vae), prompt, negative_prompt, (width, height), batch_size,
                                  init_image, mask_image, image_format, tile_size, preview_every, options)
        return await _finish(self._stream("Infer", request, timeout), r.infer_event, progress, InferResult)

    async def encode_text(self, text: str, *, timeout: float | None = None) -> Conditioning:
        """A prompt, in ComfyUI's syntax, for sample and denoise."""
        request = pb.EncodeTextRequest(clip=self.clip, text=text)
        return r.conditioning_of(await self._call("EncodeText", request, timeout))

    async def sample(self, positive: Conditioning, negative: Conditioning, latent: ArrayLike, *,
                     noise: ArrayLike | None = None, noise_mask: ArrayLike | None = None,
                     sigmas: Iterable[float] = (), preview_every: int = 0,
                     progress: ProgressArgument = None, timeout: float | None = None,
                     **options: Unpack[SamplingFields]) -> Tensor:
        """KSampler, and KSamplerAdvanced: the sampled latent. `latent`: N,C,h,w as a ComfyUI LATENT; zeros (empty_latent)
        for text to image. `noise`: in place of the seed's; `sigmas`: in place of scheduler and steps."""
        async def run(by_id: bool) -> Tensor:
            request = f.sample_request(self.model, positive, negative, latent, noise, noise_mask, sigmas, preview_every,
                                       by_id, options)
            return await _finish(self._stream("Sample", request, timeout), r.sample_event, progress, Tensor)

        try:
            return await run(by_id=True)
        except NotFoundError:  # the server does not keep conditionings for ever
            if not (positive.id or negative.id):
                raise
            return await run(by_id=False)

    async def denoise(self, x: ArrayLike, sigma: Union[float, Iterable[float]], conditioning: Conditioning, *,
                      timeout: float | None = None) -> Tensor:
        """One evaluation of the model, in the model's latent space: for samplers of your own. loaded.denoiser says which
        noise levels there are, and how the spaces relate."""
        request = f.denoise_request(self.model, x, sigma, conditioning)
        return Tensor((await self._call("Denoise", request, timeout)).denoised)

    async def decode(self, latent: ArrayLike, *, tile_size: int = 0, timeout: float | None = None) -> Tensor:
        """Images N,H,W,3 in 0..1."""
        request = pb.DecodeLatentRequest(vae=self.vae, latent=f.to_wire(latent), tile_size=tile_size)
        return Tensor((await self._call("DecodeLatent", request, timeout)).images)

    async def encode(self, image: ImageLike | FileLike, *, tile_size: int = 0, timeout: float | None = None) -> Tensor:
        """The latent of images."""
        request = f.encode_image_request(self.vae, image, tile_size)
        return Tensor((await self._call("EncodeImage", request, timeout)).latent)

    async def apply_lora(self, lora_name: str, strength: float = 1.0, strength_clip: float | None = None, *,
                         timeout: float | None = None) -> AsyncCheckpoint:
        """Further handles with an adapter from the server's folders; these stay as they are. `strength_clip`: by default
        `strength`. The result's response has the file's unmatched keys."""
        request = f.lora_request((self.model, self.clip), lora_name, strength, strength_clip)
        applied = await self._call("ApplyLora", request, timeout)
        return self._derive(applied.model, applied.clip, applied)

    async def clip_skip(self, stop_at_layer: int, *, timeout: float | None = None) -> AsyncCheckpoint:
        """The same with text encoders that stop early: -1 is the last layer, -2 the one before."""
        request = pb.SetClipSkipRequest(clip=self.clip, stop_at_layer=stop_at_layer)
        skipping = await self._call("SetClipSkip", request, timeout)
        return self._derive(self.model, skipping.clip, skipping)

    async def _call(self, method: str, request: Any, timeout: float | None) -> Any:
        return await self.client.call(method, request, timeout=timeout, checkpoint=self.ckpt_name)

    def _stream(self, method: str, request: Any, timeout: float | None) -> AsyncGenerator[Any, None]:
        return self.client.stream(method, request, timeout=timeout, checkpoint=self.ckpt_name)


async def _finish(events: AsyncGenerator[Any, None], read: Callable[[Any], Any], progress: ProgressArgument,
                  result: type[T]) -> T:
    """Reports progress; returns the event that is the result. Whatever ends this ends the call."""
    report, close = reporter(progress)
    async with contextlib.aclosing(events):
        with contextlib.ExitStack() as stack:
            stack.callback(close)
            async for message in events:
                event = read(message)
                if isinstance(event, result):
                    return event
                if report is not None and isinstance(event, Progress):
                    returned = report(event)
                    if inspect.isawaitable(returned):
                        await returned
    raise RuntimeError("the server ended the call without a result")
