"""Which of ComfyUI's own models a family is: they bring the latent format, the noise levels and what is made of a
conditioning. The weights, and what is computed with them, stay on the daemon."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import comfy.latent_formats
import comfy.model_base
import comfy.supported_models
from distorchd import distorch_pb2 as pb

_DISCRETE_SIGMA_MIN = 0.0292  # of Stable Diffusion's table, rescaled or not
_TERMINAL_SNR_SIGMA = 1000    # far above the last of the table, unless that was rescaled


@dataclass(frozen=True)
class Family:
    config: str               # in comfy.supported_models
    model: str = "BaseModel"  # in comfy.model_base
    type: str = "EPS"         # of comfy.model_base.ModelType, but for continuous noise levels
    has_pooled: bool = False
    has_size: bool = False


_FAMILIES = {
    "sd1": Family("SD15"),
    "sd1_inpaint": Family("SD15"),
    "sd1_instruct": Family("SD15_instructpix2pix", "SD15_instructpix2pix"),
    "sd2": Family("SD20"),
    "sd2_v": Family("SD20", type="V_PREDICTION"),
    "sd2_inpaint": Family("SD20"),
    "sdxl": Family("SDXL", "SDXL", has_pooled=True, has_size=True),
    "sdxl_v": Family("SDXL", "SDXL", "V_PREDICTION", has_pooled=True, has_size=True),
    "sdxl_edm": Family("SDXL", "SDXL", has_pooled=True, has_size=True),
    "sdxl_inpaint": Family("SDXL", "SDXL", has_pooled=True, has_size=True),
    "sdxl_instruct": Family("SDXL_instructpix2pix", "SDXL_instructpix2pix", has_pooled=True, has_size=True),
    "sdxl_refiner": Family("SDXLRefiner", "SDXLRefiner", has_pooled=True, has_size=True),
    "sd3": Family("SD3", "SD3", "FLOW", has_pooled=True),
    "sd35": Family("SD3", "SD3", "FLOW", has_pooled=True),
    "flux": Family("Flux", "Flux", "FLUX", has_pooled=True),
    "flux_schnell": Family("FluxSchnell", "Flux", "FLOW", has_pooled=True),
}


def find(name: str) -> Family:
    if name not in _FAMILIES:
        raise RuntimeError(f"models of the family {name!r} cannot be sampled step by step here; these can: "
                           f"{', '.join(_FAMILIES)}. KSampler (distorchd) runs on the daemon.")
    return _FAMILIES[name]


def _model_type(family: Family, info: pb.DenoiserInfo, config: Any) -> Any:
    types = comfy.model_base.ModelType
    if not info.flow and abs(info.sigma_min / _DISCRETE_SIGMA_MIN - 1) > 0.01:
        playground = bool(info.latent_mean)
        config.sampling_settings.update(sigma_min=info.sigma_min, sigma_max=info.sigma_max,
                                        sigma_data=0.5 if playground else 1.0)
        if playground:
            config.latent_format = comfy.latent_formats.SDXL_Playground_2_5()
        return types.EDM if playground else types.V_PREDICTION_EDM
    if not info.flow and info.sigma_max > _TERMINAL_SNR_SIGMA:
        config.sampling_settings["zsnr"] = True
    return types[family.type]


def build(name: str, info: pb.DenoiserInfo, mixin: type) -> Any:
    """ComfyUI's model of the family without a network, its methods overridden by `mixin`'s."""
    family = find(name)
    channels = info.latent_channels
    config = getattr(comfy.supported_models, family.config)({
        "disable_unet_model_creation": True, "in_channels": channels + info.concat_channels, "out_channels": channels})
    config.manual_cast_dtype = None
    base = getattr(comfy.model_base, family.model)
    model = type(f"Remote{family.model}", (mixin, base), {})(config, _model_type(family, info, config))
    if info.concat_channels == channels + 1:  # a mask and a picture
        model.set_inpaint()
    return model
