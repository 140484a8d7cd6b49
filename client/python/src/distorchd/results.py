"""What calls return where a message of the contract would be less handy."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distorchd import distorch_pb2 as pb
from distorchd.tensors import ArrayLike, Tensor, to_wire

if TYPE_CHECKING:
    import PIL.Image


@dataclass(frozen=True)
class Progress:
    """Of a load: `done` of `total` bytes of a phase. Of a sampling: step `done` of `total`; 0 as a phase begins. Of a wait for
    a device (phase "queue"): `position`."""

    phase: str
    done: int = 0
    total: int = 0
    seconds: float = 0.0
    """That the step took; of a wait, those it is predicted to last, or 0 where nothing is known."""
    preview_png: bytes | None = None
    position: int = 0
    """In the queue: 1 is the next."""

    @property
    def preview(self) -> PIL.Image.Image | None:
        return None if self.preview_png is None else _open(self.preview_png)


def _open(file: bytes) -> PIL.Image.Image:
    from PIL import Image

    return Image.open(io.BytesIO(file))


@dataclass(frozen=True)
class InferResult:
    files: list[bytes]
    """Of the image_format asked for, with the generation parameters in them."""
    seed: int
    phase_seconds: Mapping[str, float]
    warnings: list[str]
    """What the prompts asked for that is not in the picture, such as an unknown embedding."""

    @property
    def images(self) -> list[PIL.Image.Image]:
        return [_open(file) for file in self.files]

    @staticmethod
    def of(message: pb.InferResult) -> InferResult:
        return InferResult(list(message.png), message.seed, dict(message.phase_seconds), list(message.warnings))


@dataclass(frozen=True)
class Conditioning:
    """What a sampler is told of a prompt. encode_text makes it; Conditioning.of makes one of arrays."""

    message: pb.Conditioning
    id: str = ""
    """Under which the server keeps it for a while; it is sent whole when it is not there any more."""
    warnings: tuple[str, ...] = ()

    @property
    def cross_attention(self) -> Tensor:
        return Tensor(self.message.cross_attention)

    @property
    def pooled(self) -> Tensor | None:
        return Tensor(self.message.pooled) if self.message.HasField("pooled") else None

    @property
    def attention_mask(self) -> Tensor | None:
        return Tensor(self.message.attention_mask) if self.message.HasField("attention_mask") else None

    @staticmethod
    def of(cross_attention: ArrayLike, *, pooled: ArrayLike | None = None, attention_mask: ArrayLike | None = None,
           concat: ArrayLike | None = None, guidance: float | None = None,
           size: Mapping[str, float] | None = None) -> Conditioning:
        """`size`: SDXL's width, height, crop_w, crop_h, target_width, target_height and aesthetic_score."""
        message = pb.Conditioning(cross_attention=to_wire(cross_attention))
        for name, array in (("pooled", pooled), ("attention_mask", attention_mask), ("concat", concat)):
            if array is not None:
                getattr(message, name).CopyFrom(to_wire(array))
        if guidance is not None:
            message.guidance = guidance
        if size is not None:
            message.size.CopyFrom(pb.SizeConditioning(**_whole(size)))
        return Conditioning(message)


def _whole(size: Mapping[str, float]) -> dict[str, Any]:
    return {name: float(value) if name == "aesthetic_score" else int(value) for name, value in size.items()}


def conditioning_of(response: pb.EncodeTextResponse) -> Conditioning:
    return Conditioning(response.conditioning, response.conditioning_id, tuple(response.warnings))


def load_progress(event: pb.LoadCheckpointEvent) -> Progress:
    progress = event.progress
    return Progress(progress.phase, progress.bytes_done, progress.bytes_total)


def step_progress(phase: str, step: pb.StepProgress) -> Progress:
    return Progress(phase, step.step, step.steps, step.seconds, step.preview_png if step.HasField("preview_png") else None)


def _sampling(event: pb.InferEvent | pb.SampleEvent) -> Progress:
    if event.HasField("queue"):
        return Progress("queue", seconds=event.queue.predicted_seconds, position=event.queue.position)
    return step_progress("sample", event.progress)


def infer_event(event: pb.InferEvent) -> Progress | InferResult:
    kind = event.WhichOneof("event")
    if kind == "result":
        return InferResult.of(event.result)
    return Progress(event.phase) if kind == "phase" else _sampling(event)


def sample_event(event: pb.SampleEvent) -> Progress | Tensor:
    return Tensor(event.latent) if event.HasField("latent") else _sampling(event)


def load_event(event: pb.LoadCheckpointEvent) -> Progress | pb.LoadCheckpointResponse:
    return event.done if event.HasField("done") else load_progress(event)


def sum_receipts(receipts: Iterable[pb.UnloadResponse]) -> pb.UnloadResponse:
    total = pb.UnloadResponse()
    freed: dict[str, int] = {}
    for receipt in receipts:
        total.handles_closed += receipt.handles_closed
        for device in receipt.freed:
            freed[device.device] = freed.get(device.device, 0) + device.bytes
    for name, count in freed.items():
        total.freed.add(device=name, bytes=count)
    return total
