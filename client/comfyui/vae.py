"""A VAE whose network is a call: batches, crops and tiles are ComfyUI's own."""

from __future__ import annotations

import logging
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.sd
import torch

from distorchd import distorch_pb2 as pb

from .arrays import receive, send
from .remote import Part

_CALL_PIXELS = 8 << 20  # of a batch, that go in one call: 96 MiB as float32
_TILE_OVERLAP = 64  # pixels, or a quarter of a tile where that is less: the daemon's, and the default of ComfyUI's nodes


class RemoteAutoencoder(torch.nn.Module):
    """In the place of a VAE's network: pixels are in -1..1, N,3,H,W."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.part = part

    def decode(self, latents: torch.Tensor, **_: Any) -> torch.Tensor:
        count = max(1, _CALL_PIXELS // (64 * latents.shape[-1] * latents.shape[-2]))
        return torch.cat([self._decode(items) for items in latents.split(count)]).to(latents.device)

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        return self.decode_tiles(latents, 0).movedim(-1, 1) * 2 - 1

    def decode_tiles(self, latents: torch.Tensor, tile_size: int) -> torch.Tensor:
        """N,H,W,3 in 0..1. `tile_size`: in pixels; 0: whole."""
        return self.part.use(lambda handle: receive(self.part.call(
            "DecodeLatent", pb.DecodeLatentRequest(vae=handle, latent=send(latents), tile_size=tile_size)).images))

    def encode(self, pixels: torch.Tensor, **_: Any) -> torch.Tensor:
        count = max(1, _CALL_PIXELS // (pixels.shape[-1] * pixels.shape[-2]))
        return torch.cat([self._encode(items) for items in pixels.split(count)]).to(pixels.device)

    def _encode(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.encode_tiles(((pixels.float() + 1) / 2).movedim(1, -1), 0)

    def encode_tiles(self, images: torch.Tensor, tile_size: int) -> torch.Tensor:
        """`images`: N,H,W,3 in 0..1."""
        return self.part.use(lambda handle: receive(self.part.call(
            "EncodeImage", pb.EncodeImageRequest(vae=handle, pixels=send(images[..., :3].contiguous()),
                                                 tile_size=tile_size)).latent))


class RemoteVae(comfy.sd.VAE):
    def __init__(self, part: Part, latent_channels: int) -> None:
        with _without_warnings():
            super().__init__(sd={})  # the defaults of all its attributes, and that there are no weights
        self.first_stage_model = RemoteAutoencoder(part).eval()
        self.latent_channels = latent_channels
        self.memory_used_encode = self.memory_used_decode = lambda shape, dtype: 1
        self.vae_dtype = torch.float32
        self.device = comfy.model_management.vae_device()
        self.output_device = comfy.model_management.intermediate_device()
        self.patcher = comfy.model_patcher.ModelPatcher(
            self.first_stage_model, load_device=self.device,
            offload_device=comfy.model_management.vae_offload_device())

    def decode_tiled(self, samples: torch.Tensor, tile_x: int | None = None, tile_y: int | None = None,
                     overlap: int | None = None, **kwargs: Any) -> torch.Tensor:
        """In one call where the daemon's tiles are those; else tile by tile."""
        scale = self.upscale_ratio
        if samples.ndim == 4 and tile_x and _is_daemons(tile_x * scale, tile_y, tile_x, (overlap or 0) * scale):
            return self._network.decode_tiles(samples, tile_x * scale).to(self.output_device)
        return super().decode_tiled(samples, tile_x=tile_x, tile_y=tile_y, overlap=overlap, **kwargs)

    def encode_tiled(self, pixel_samples: torch.Tensor, tile_x: int | None = None, tile_y: int | None = None,
                     overlap: int | None = None, **kwargs: Any) -> torch.Tensor:
        if pixel_samples.ndim == 4 and tile_x and _is_daemons(tile_x, tile_y, tile_x, overlap or 0):
            return self._network.encode_tiles(self.vae_encode_crop_pixels(pixel_samples), tile_x).to(self.output_device)
        return super().encode_tiled(pixel_samples, tile_x=tile_x, tile_y=tile_y, overlap=overlap, **kwargs)

    @property
    def _network(self) -> RemoteAutoencoder:
        self.throw_exception_if_invalid()
        return self.first_stage_model

    def get_sd(self) -> Any:
        raise RuntimeError("the weights are on the daemon, and cannot be saved here")


def _is_daemons(tile: int, tile_y: int | None, tile_x: int, overlap: int) -> bool:
    return tile_x == tile_y and 64 <= tile <= 8192 and tile % 8 == 0 and overlap == min(_TILE_OVERLAP, tile // 4)


class _without_warnings:
    def __enter__(self) -> None:
        self._before = logging.root.manager.disable
        logging.disable(logging.WARNING)

    def __exit__(self, *_: Any) -> None:
        logging.disable(self._before)
