"""The checkpoint loader: the node's inputs, and the daemon's address."""

from __future__ import annotations

from typing import Any

from . import choices
from .clip import RemoteClip
from .model import make_patcher
from .remote import Load, Part, Server
from .vae import RemoteVae

SERVER_INPUTS = {
    "server": ("STRING", {"default": "", "tooltip": "HOST:PORT of the distorchd daemon. Empty: DISTORCHD_ADDRESS of the "
                          "environment, then 127.0.0.1:50051. The lists here are that one's."}),
    "token": ("STRING", {"default": "", "tooltip": "What the daemon lets its clients in with. It is saved with the workflow: "
                         "DISTORCH_TOKEN of the environment, used when this is empty, is not."}),
}


def _device(devices: list[str], default: str, tooltip: str) -> Any:
    return (devices, {"default": default, "tooltip": tooltip})


def _amount(default: float, tooltip: str) -> Any:
    return ("FLOAT", {"default": default, "min": 0.0, "max": 128.0, "step": 0.1, "tooltip": tooltip})


def _allocation(what: str) -> Any:
    return ("STRING", {"multiline": False, "default": "", "tooltip":
                       f"Where {what} is stored, in place of virtual VRAM: bytes (cuda:0,2gb;cpu,*), shares (cuda:0,70%;"
                       "cuda:1,30%), parts of the devices' memory (cuda:0,0.5), or auto."})


class CheckpointLoader:
    """CheckpointLoaderAdvancedDisTorch2MultiGPU, on a daemon."""

    RETURN_TYPES = ("MODEL", "CLIP", "VAE")
    FUNCTION = "load"
    CATEGORY = "multigpu/distorchd"
    TITLE = "CheckpointLoaderAdvancedDisTorch2MultiGPU (distorchd)"
    DESCRIPTION = "Loads a checkpoint on a distorchd daemon, its weights spread over that one's devices."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        checkpoints, devices = choices.get()
        first, host = devices[0], "cpu" if "cpu" in devices else devices[-1]
        return {
            "required": {
                "ckpt_name": (checkpoints, {"tooltip": "A checkpoint in the daemon's folders."}),
                "unet_compute_device": _device(devices, first, "Where the UNet or transformer computes."),
                "unet_virtual_vram_gb": _amount(4.0, "GiB of the UNet or transformer to keep on the donor."),
                "unet_donor_device": _device(devices, host, "What holds them."),
                "clip_compute_device": _device(devices, host, "Where the text encoders compute."),
                "clip_virtual_vram_gb": _amount(2.0, "GiB of the text encoders to keep on their donor."),
                "clip_donor_device": _device(devices, host, "What holds them."),
                "vae_device": _device(devices, first, "Where the VAE is, and computes."),
            },
            "optional": {
                "unet_expert_mode_allocations": _allocation("the UNet or transformer"),
                "clip_expert_mode_allocations": _allocation("the text encoders"),
                "high_precision_loras": ("BOOLEAN", {"default": True, "tooltip":
                                         "Off: what an adapter makes of fp8 weights stored on the CPU is rounded to fp8."}),
                "eject_models": ("BOOLEAN", {"default": True, "tooltip":
                                 "First free the memory of what the daemon has loaded and nobody uses."}),
                **SERVER_INPUTS,
            },
        }

    @classmethod
    def VALIDATE_INPUTS(cls, ckpt_name: str, unet_compute_device: str, unet_donor_device: str, clip_compute_device: str,
                        clip_donor_device: str, vae_device: str) -> bool:
        """Any: the lists are of the default daemon as it was. The one that is asked says what is wrong, and what is allowed."""
        return True

    def load(self, ckpt_name: str, server: str = "", token: str = "", **fields: Any) -> tuple[Any, Any, Any]:
        load = Load(Server.get(server, token), ckpt_name, fields)
        loaded = load.response()
        return (make_patcher(Part("model", load)) if loaded.model else None,
                RemoteClip(Part("clip", load)) if loaded.clip else None,
                RemoteVae(Part("vae", load), loaded.denoiser.latent_channels or 4) if loaded.vae else None)
