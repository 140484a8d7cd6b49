"""The keyword arguments that calls share, and the requests made of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, TypedDict, Union

from distorchd import distorch_pb2 as pb
from distorchd.results import Conditioning
from distorchd.tensors import ArrayLike, FileLike, ImageLike, to_file, to_pixels, to_wire


class LoadFields(TypedDict, total=False):
    """LoadCheckpoint's: the node's, under the node's names. What is left out takes the node's default. GiB are from 0 to
    128; devices are "cuda:0", "cpu", …, donors separated by commas in the order they fill."""

    unet_compute_device: str
    unet_virtual_vram_gb: float
    unet_donor_device: str
    clip_compute_device: str
    clip_virtual_vram_gb: float
    clip_donor_device: str
    vae_device: str
    unet_expert_mode_allocations: str
    """Wins over virtual VRAM: "cuda:0,2gb;cpu,*", "cuda:0,70%;cuda:1,30%", "cuda:0,0.5", or "auto"."""
    clip_expert_mode_allocations: str
    high_precision_loras: bool
    eject_models: bool
    weight_dtype: str
    """Of the UNet: "default", "fp32", "fp16", "bf16", "fp8_e4m3fn" or "fp8_e5m2"."""
    lease_seconds: int
    """Unload by itself when idle for so long; 0: never."""
    reference_rounding: bool
    execution: str
    """Where the UNet's blocks run: "compute", "holder" or "auto"."""


class SamplingFields(TypedDict, total=False):
    """KSampler's, and KSamplerAdvanced's start_step to force_full_denoise."""

    seed: int
    steps: int
    cfg: float
    sampler_name: str
    scheduler: str
    denoise: float
    start_step: int
    end_step: int
    add_noise: bool
    force_full_denoise: bool
    guidance: float
    """Flux's distilled guidance."""
    parallel: str
    """What else computes when idle: "off", "auto", or devices separated by commas."""
    priority: int
    """In the devices' queues: -10 to 10, higher goes first."""


def _fill(message: Any, what: str, fields: Mapping[str, Any]) -> Any:
    known = message.DESCRIPTOR.fields_by_name
    for name, value in fields.items():
        if name not in known:
            raise TypeError(f"{what} has no field {name!r}; it has {', '.join(known)}")
        if value is None:
            continue
        try:
            setattr(message, name, value)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{name}: {error}") from None
    return message


def load_request(ckpt_name: str, fields: Mapping[str, Any]) -> pb.LoadCheckpointRequest:
    return _fill(pb.LoadCheckpointRequest(ckpt_name=ckpt_name), "LoadCheckpoint", fields)


def sampling_options(fields: Mapping[str, Any]) -> pb.SamplingOptions:
    """0 means the default on the wire: who asks for 0 is told so rather than given that."""
    for name in ("steps", "denoise", "cfg"):
        if fields.get(name) == 0:
            raise ValueError(f"{name}: 0 is not allowed; leave it out for its default")
    return _fill(pb.SamplingOptions(), "sampling", fields)


def infer_request(handles: tuple[str, str, str], prompt: str, negative_prompt: str, size: tuple[int, int], batch_size: int,
                  init_image: FileLike | None, mask_image: FileLike | None, image_format: str, tile_size: int,
                  preview_every: int, options: Mapping[str, Any]) -> pb.InferRequest:
    model, clip, vae = handles
    request = pb.InferRequest(model=model, clip=clip, vae=vae, prompt=prompt, negative_prompt=negative_prompt,
                              width=size[0], height=size[1], batch_size=batch_size, options=sampling_options(options),
                              preview_every=preview_every, image_format=image_format, tile_size=tile_size)
    if init_image is not None:
        request.init_image = to_file(init_image)
    if mask_image is not None:
        request.mask_image = to_file(mask_image)
    return request


def sample_request(model: str, positive: Conditioning, negative: Conditioning, latent: ArrayLike, noise: ArrayLike | None,
                   noise_mask: ArrayLike | None, sigmas: Iterable[float], preview_every: int, by_id: bool,
                   options: Mapping[str, Any]) -> pb.SampleRequest:
    request = pb.SampleRequest(model=model, options=sampling_options(options), latent=to_wire(latent),
                               preview_every=preview_every, sigmas=[float(sigma) for sigma in sigmas])
    for side, conditioning in (("positive", positive), ("negative", negative)):
        if by_id and conditioning.id:
            setattr(request, f"{side}_id", conditioning.id)
        else:
            getattr(request, side).CopyFrom(conditioning.message)
    if noise is not None:
        request.noise.CopyFrom(to_wire(noise))
    if noise_mask is not None:
        request.noise_mask.CopyFrom(to_wire(noise_mask))
    return request


def denoise_request(model: str, x: ArrayLike, sigma: Union[float, Iterable[float]],
                    conditioning: Conditioning) -> pb.DenoiseRequest:
    sigmas = [float(s) for s in sigma] if isinstance(sigma, Iterable) else [float(sigma)]
    return pb.DenoiseRequest(model=model, x=to_wire(x), sigma=sigmas, conditioning=conditioning.message)


def encode_image_request(vae: str, image: ImageLike | FileLike, tile_size: int) -> pb.EncodeImageRequest:
    if isinstance(image, (bytes, bytearray, memoryview, str, os.PathLike)):
        return pb.EncodeImageRequest(vae=vae, encoded=to_file(image), tile_size=tile_size)
    return pb.EncodeImageRequest(vae=vae, pixels=to_pixels(image), tile_size=tile_size)


def lora_request(handles: tuple[str, str], lora_name: str, strength_model: float,
                 strength_clip: float | None) -> pb.ApplyLoraRequest:
    model, clip = handles
    return pb.ApplyLoraRequest(model=model, clip=clip, lora_name=lora_name, strength_model=strength_model,
                               strength_clip=strength_model if strength_clip is None else strength_clip)


def unload_request(handles: Iterable[str], all: bool, force: bool) -> pb.UnloadRequest:
    return pb.UnloadRequest(handles=[handle for handle in handles if handle], all=all, force=force)
