"""Writes interfaces.json: names and parameters of what our nodes use of ComfyUI. Run it with a ComfyUI's Python:

    COMFYUI_DIR=~/ComfyUI python tests/client/comfyui/record_interfaces.py
"""

import inspect
import json
import os
import pathlib
import sys

RECORD = pathlib.Path(__file__).with_name("interfaces.json")
USED = {
    "comfy.conds": ["CONDConstant"],
    "comfy.latent_formats": ["SDXL_Playground_2_5"],
    "comfy.model_base": ["BaseModel", "Flux", "SD15_instructpix2pix", "SD3", "SDXL", "SDXLRefiner", "SDXL_instructpix2pix",
                         "ModelType"],
    "comfy.model_management": ["get_torch_device", "intermediate_device", "processing_interrupted", "text_encoder_device",
                               "text_encoder_offload_device", "throw_exception_if_processing_interrupted", "unload_all_models",
                               "unet_offload_device", "vae_device", "vae_offload_device"],
    "comfy.model_patcher": ["ModelPatcher"],
    "comfy.sample": ["fix_empty_latent_channels", "prepare_noise"],
    "comfy.samplers": ["KSampler"],
    "comfy.sd": ["CLIP", "VAE"],
    "comfy.supported_models": ["Flux", "FluxSchnell", "SD15", "SD15_instructpix2pix", "SD20", "SD3", "SDXL", "SDXLRefiner",
                               "SDXL_instructpix2pix"],
    "comfy.utils": ["ProgressBar", "reshape_mask"],
    "nodes": ["LoraLoader"],
}
# Of classes, the methods that we call or that ours stand in for.
METHODS = {
    "BaseModel": ["__init__", "_apply_model", "encode_adm", "extra_conds", "get_dtype", "memory_required", "process_latent_in",
                  "set_inpaint", "state_dict_for_saving"],
    "CLIP": ["__init__", "add_patches", "clip_layer", "clone", "encode_from_tokens", "encode_from_tokens_scheduled", "get_sd",
             "load_model", "tokenize"],
    "CONDConstant": ["__init__"],
    "LoraLoader": ["load_lora"],
    "ModelPatcher": ["__init__", "add_patches", "clone"],
    "ProgressBar": ["__init__", "update_absolute"],
    "VAE": ["__init__", "decode", "decode_tiled", "encode", "encode_tiled", "get_sd", "throw_exception_if_invalid",
            "vae_encode_crop_pixels"],
}


def parameters(function):
    """As ["self", "x", "control=", "**kwargs"]: "=" for one that may be left out."""
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    return [stars.get(parameter.kind, "") + parameter.name + ("" if parameter.default is parameter.empty else "=")
            for parameter in inspect.signature(function).parameters.values()]


def describe(name, thing):
    if not inspect.isclass(thing):
        return {"parameters": parameters(thing)}
    if hasattr(thing, "__members__"):
        return {"members": sorted(thing.__members__)}
    return {"bases": [base.__name__ for base in thing.__mro__[1:-1] if base.__name__ in METHODS],
            "methods": {method: parameters(getattr(thing, method)) for method in METHODS.get(name, [])}}


def record():
    sys.path.insert(0, os.environ["COMFYUI_DIR"])
    argv, sys.argv = sys.argv, ["main.py", "--cpu"]
    try:
        import comfy.options
        comfy.options.enable_args_parsing()
        import importlib
        modules = {name: importlib.import_module(name) for name in USED}
    finally:
        sys.argv = argv
    return {module: {name: describe(name, getattr(modules[module], name)) for name in names} for module, names in USED.items()}


def write(recorded):
    """A line for each name."""
    modules = (f"{json.dumps(module)}: {{\n" + ",\n".join(f" {json.dumps(name)}: {json.dumps(names[name])}" for name in names) + "}"
               for module, names in recorded.items())
    RECORD.write_text("{\n" + ",\n".join(modules) + "}\n")


if __name__ == "__main__":
    write(record())
