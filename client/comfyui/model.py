"""A MODEL whose evaluation is a call: ComfyUI's samplers, schedulers, masks and areas run here, the network there."""

from __future__ import annotations

from typing import Any

import comfy.conds
import comfy.model_management
import comfy.model_patcher
import torch

from distorchd import distorch_pb2 as pb

from . import families
from .arrays import receive, send
from .remote import Part

_SIZE = ("width", "height", "crop_w", "crop_h", "target_width", "target_height", "aesthetic_score")
_UNSUPPORTED = "distorchd cannot apply {} to a model that it computes; load the checkpoint with a local loader for that"
# Of what ComfyUI passes to a network, that which is of no consequence to one without ControlNets.
_IGNORED = {"crossattn_controlnet"}


class Network(torch.nn.Module):
    """Stands where ComfyUI looks for the network."""

    dtype = torch.float32
    patch_size = 2

    def forward(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError(_UNSUPPORTED.format("what calls the network itself"))


class RemoteModel:
    """Mixed into a class of comfy.model_base."""

    part: Part
    family: families.Family

    def _apply_model(self, x: torch.Tensor, t: torch.Tensor, c_concat: Any = None, c_crossattn: Any = None,
                     control: Any = None, transformer_options: dict[str, Any] = {}, **kwargs: Any) -> torch.Tensor:
        if control is not None:
            raise RuntimeError(_UNSUPPORTED.format("a ControlNet"))
        check_options(transformer_options)
        self._check_sampling()
        sigmas = [float(sigma) for sigma in t.flatten()]
        guidance = kwargs.pop("guidance", None)
        levels = [None] * len(x) if guidance is None else guidance.flatten().tolist()
        denoised = [None] * len(x)
        for level in dict.fromkeys(levels):  # one call, unless the items' guidance differs
            items = [i for i in range(len(x)) if levels[i] == level]
            conditioning = self.message(
                **{"c_concat": _pick(c_concat, items), "c_crossattn": _pick(c_crossattn, items), "guidance": level,
                   **{name: _pick(value, items) for name, value in kwargs.items()}})
            part = self._denoise(x[items], [sigmas[i] for i in items] if len(set(sigmas)) > 1 else sigmas[:1], conditioning)
            for i, item in zip(items, part):
                denoised[i] = item
        return torch.stack(denoised).to(x.device)

    def _denoise(self, x: torch.Tensor, sigmas: list[float], conditioning: pb.Conditioning) -> torch.Tensor:
        return self.part.use(lambda handle: receive(self.part.call("Denoise", pb.DenoiseRequest(
            model=handle, x=send(x), sigma=sigmas, conditioning=conditioning)).denoised))

    def message(self, c_crossattn: torch.Tensor, c_concat: torch.Tensor | None = None, guidance: float | None = None,
                y: torch.Tensor | None = None, size: tuple[float, ...] | None = None, **others: Any) -> pb.Conditioning:
        """The wire's form of what extra_conds made."""
        left = set(others) - _IGNORED
        if left:
            raise RuntimeError(_UNSUPPORTED.format(", ".join(sorted(left))))
        conditioning = pb.Conditioning(cross_attention=send(c_crossattn))
        if y is not None:
            conditioning.pooled.CopyFrom(send(y))
        if c_concat is not None:
            conditioning.concat.CopyFrom(send(c_concat))
        if guidance is not None:
            conditioning.guidance = guidance
        if size is not None:
            for name, value in zip(_SIZE, size):
                setattr(conditioning.size, name, value if name == "aesthetic_score" else int(value))
        return conditioning

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        conds = super().extra_conds(**kwargs)  # type: ignore[misc]
        if self.family.has_size:
            width, height = kwargs.get("width", 768), kwargs.get("height", 768)
            score = kwargs.get("aesthetic_score", 2.5 if kwargs.get("prompt_type") == "negative" else 6)
            conds["size"] = comfy.conds.CONDConstant((
                width, height, kwargs.get("crop_w", 0), kwargs.get("crop_h", 0), kwargs.get("target_width", width),
                kwargs.get("target_height", height), float(score)))
        return conds

    def encode_adm(self, **kwargs: Any) -> torch.Tensor | None:
        """The pooled text alone: what goes beside it is made there."""
        if "unclip_conditioning" in kwargs:
            raise RuntimeError(_UNSUPPORTED.format("an unCLIP conditioning"))
        if not self.family.has_pooled:
            return None
        if kwargs.get("pooled_output") is None:
            raise RuntimeError("this model needs a conditioning with a pooled output: encode the text with its own CLIP")
        return kwargs["pooled_output"]

    def _check_sampling(self) -> None:
        """Nodes may replace the noise levels to choose from, but what a level means to the network is the daemon's."""
        now, own = self.model_sampling, self.own_sampling
        if now is own:
            return
        same = all(getattr(type(now), name) is getattr(type(own), name)
                   for name in ("calculate_denoised", "calculate_input", "timestep"))
        if not same or not _equal(now, own, "log_sigmas") or not _equal(now, own, "multiplier"):
            raise RuntimeError(_UNSUPPORTED.format("another prediction type or noise schedule"))

    def get_dtype(self) -> torch.dtype:
        return torch.float32

    def memory_required(self, *_: Any, **__: Any) -> float:
        return 0.0  # none here: both halves of the guidance go in one call

    def state_dict_for_saving(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("the weights are on the daemon, and cannot be saved here")


def _pick(value: Any, items: list[int]) -> Any:
    return value[items] if isinstance(value, torch.Tensor) and len(value) > len(items) else value


def _equal(a: Any, b: Any, name: str) -> bool:
    a, b = getattr(a, name, None), getattr(b, name, None)
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.shape == b.shape and torch.allclose(a.cpu(), b.cpu())
    return type(a) is type(b) and not isinstance(a, torch.Tensor) and a == b


def check_options(transformer_options: dict[str, Any]) -> None:
    """What other nodes hook into the network cannot happen where it is not; and must not be dropped silently."""
    hooked = [name for kind in ("patches", "patches_replace") for name, hooks in transformer_options.get(kind, {}).items()
              if hooks]
    if hooked:
        raise RuntimeError(_UNSUPPORTED.format(f"patches of its attention or blocks ({', '.join(map(str, hooked))})"))


class RemoteModelPatcher(comfy.model_patcher.ModelPatcher):
    def add_patches(self, patches: Any, strength_patch: float = 1.0, strength_model: float = 1.0) -> Any:
        if not patches:
            return []
        raise RuntimeError(_UNSUPPORTED.format("patches of weights from here") + ". LoraLoader works: the daemon applies the "
                           "file of that name in its --lora_dirs.")

    def with_part(self, part: Part) -> RemoteModelPatcher:
        """The same for another model: what was set on this patcher stays."""
        patcher = self.clone()
        patcher.model = make_patcher(part).model
        patcher.parent, patcher.backup, patcher.object_patches_backup = None, {}, {}
        return patcher


def make_model(part: Part) -> Any:
    loaded = part.load.response()
    model = families.build(loaded.family, loaded.denoiser, RemoteModel)
    model.diffusion_model = Network()
    model.part, model.family, model.own_sampling = part, families.find(loaded.family), model.model_sampling
    model.device = comfy.model_management.unet_offload_device()
    return model.eval()


def make_patcher(part: Part) -> RemoteModelPatcher:
    return RemoteModelPatcher(make_model(part), load_device=comfy.model_management.get_torch_device(),
                              offload_device=comfy.model_management.unet_offload_device())
