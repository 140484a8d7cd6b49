"""KSampler with its whole loop on the daemon: one call, in place of one for each step."""

from __future__ import annotations

import io
from typing import Any

import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.utils
import torch
from PIL import Image

from distorchd import distorch_pb2 as pb

from .arrays import receive, send
from .model import RemoteModelPatcher
from .remote import interruptible

_PREVIEW_SIZE = 512
# Of a conditioning's entries, those that concern the network alone.
_ALLOWED = {"pooled_output", "width", "height", "crop_w", "crop_h", "target_width", "target_height", "aesthetic_score",
            "guidance", "concat_latent_image", "concat_mask"}


class KSampler:
    RETURN_TYPES = ("LATENT",)
    FUNCTION = "sample"
    CATEGORY = "multigpu/distorchd"
    TITLE = "KSampler (distorchd)"
    DESCRIPTION = "Samples on the daemon that holds the model: faster than KSampler, which calls it for each step."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "model": ("MODEL", {"tooltip": "From the loader of a distorchd daemon."}),
                "seed": ("INT", {"default": 0, "min": 0, "max": 0xFFFFFFFFFFFFFFFF, "control_after_generate": True,
                                 "tooltip": "Of the noise."}),
                "steps": ("INT", {"default": 20, "min": 1, "max": 10000, "tooltip": "Evaluations of the model, of most samplers."}),
                "cfg": ("FLOAT", {"default": 8.0, "min": 0.1, "max": 100.0, "step": 0.1, "round": 0.01,
                                  "tooltip": "How strongly the prompts guide; 1: the negative one is not computed."}),
                "sampler_name": (comfy.samplers.KSampler.SAMPLERS, {"tooltip": "The daemon says if it lacks one."}),
                "scheduler": (comfy.samplers.KSampler.SCHEDULERS, {"tooltip": "How the noise levels are spaced."}),
                "positive": ("CONDITIONING", {"tooltip": "What to draw."}),
                "negative": ("CONDITIONING", {"tooltip": "What not to draw."}),
                "latent_image": ("LATENT", {"tooltip": "Where to start."}),
                "denoise": ("FLOAT", {"default": 1.0, "min": 0.01, "max": 1.0, "step": 0.01,
                                      "tooltip": "Below 1, what is in the latent shows through."}),
            },
            "optional": {
                "preview_every": ("INT", {"default": 1, "min": 0, "max": 10000, "tooltip":
                                          "A preview with every so many steps; 0: none."}),
            },
        }

    def sample(self, model: Any, seed: int, steps: int, cfg: float, sampler_name: str, scheduler: str, positive: Any,
               negative: Any, latent_image: dict[str, Any], denoise: float = 1.0, preview_every: int = 1) -> Any:
        _check_model(model)
        latent = comfy.sample.fix_empty_latent_channels(model, latent_image["samples"])
        noise = comfy.sample.prepare_noise(latent, seed, latent_image.get("batch_index"))
        mask = latent_image.get("noise_mask")
        request = pb.SampleRequest(
            latent=send(latent), noise=send(noise), preview_every=preview_every,
            options=pb.SamplingOptions(seed=seed, steps=steps, cfg=cfg, sampler_name=sampler_name, scheduler=scheduler,
                                       denoise=denoise))
        for side, conditioning in (("positive", positive), ("negative", negative)):
            getattr(request, side).CopyFrom(_message(model, side, conditioning, latent, noise, mask))
        if mask is not None:
            request.noise_mask.CopyFrom(send(mask))

        def call(handle: str) -> torch.Tensor:
            request.model = handle
            return _run(model, request, steps)

        sampled = model.model.part.use(call).to(comfy.model_management.intermediate_device())
        return ({**latent_image, "samples": sampled},)


def _check_model(model: Any) -> None:
    if not isinstance(model, RemoteModelPatcher):
        raise RuntimeError("this model is not on a distorchd daemon; KSampler samples it")
    options = {name for name, value in model.model_options.items() if value}
    changed = sorted(options | set(model.object_patches) | {name for name in model.wrappers if model.wrappers[name]})
    if changed:
        raise RuntimeError(f"other nodes changed how this model is sampled ({', '.join(changed)}), which a daemon cannot "
                           "follow; KSampler can")


def _message(model: Any, side: str, conditioning: Any, latent: torch.Tensor, noise: torch.Tensor,
             mask: torch.Tensor | None) -> pb.Conditioning:
    if len(conditioning) != 1:
        raise RuntimeError(f"{side}: {len(conditioning)} conditionings are combined; the daemon samples one, KSampler several")
    context, entries = conditioning[0]
    left = {name for name, value in entries.items() if value is not None} - _ALLOWED
    if left:
        raise RuntimeError(f"{side}: the daemon knows nothing of {', '.join(sorted(left))} in a conditioning; KSampler does")
    network = model.model
    if mask is not None:
        mask = comfy.utils.reshape_mask(mask, noise.shape)
    conds = network.extra_conds(**{"width": latent.shape[-1] * 8, "height": latent.shape[-2] * 8, **entries},
                                cross_attn=context, noise=noise, device=latent.device, prompt_type=side, denoise_mask=mask,
                                latent_image=network.process_latent_in(latent) if latent.any() else latent)
    parts = {name: cond.cond for name, cond in conds.items()}
    if "guidance" in parts:
        parts["guidance"] = float(parts["guidance"].flatten()[0])
    return network.message(**parts)


def _run(model: Any, request: pb.SampleRequest, steps: int) -> torch.Tensor:
    part, bar = model.model.part, comfy.utils.ProgressBar(steps)
    with interruptible() as cancel:
        events = part.server.client.stream("Sample", request, cancel=cancel, checkpoint=part.load.ckpt_name)
        for event in events:
            if event.HasField("latent"):
                return receive(event.latent)
            if not event.HasField("progress"):  # it waits for its turn
                continue
            preview = None
            if event.progress.HasField("preview_png"):
                preview = ("JPEG", Image.open(io.BytesIO(event.progress.preview_png)).convert("RGB"), _PREVIEW_SIZE)
            bar.update_absolute(event.progress.step, event.progress.steps, preview)
    raise RuntimeError("the daemon ended the sampling without a result")
