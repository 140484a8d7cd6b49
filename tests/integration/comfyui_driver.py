"""ComfyUI in this process, on the CPU, with our nodes in it: with its own packages and those of tests/requirements.txt,

    COMFYUI_DIR=~/ComfyUI ~/ComfyUI/venv/bin/python -m pytest tests/integration/test_comfyui*.py
"""

import asyncio
import importlib.util
import os
import sys

import pytest

from conftest import ROOT

COMFYUI = os.environ.get("COMFYUI_DIR")
needs_comfyui = pytest.mark.skipif(not COMFYUI or importlib.util.find_spec("torch") is None,
                                   reason="COMFYUI_DIR is not set, or this is no Python that runs ComfyUI")


def start():
    """Its module of nodes; the others are under their names then."""
    sys.path.insert(0, COMFYUI)
    argv, sys.argv = sys.argv, ["main.py", "--cpu", "--disable-metadata"]
    try:
        import comfy.options
        comfy.options.enable_args_parsing()
        import nodes
    finally:
        sys.argv = argv
    import comfy.cli_args
    comfy.cli_args.args.preview_method = comfy.cli_args.LatentPreviewMethod.Latent2RGB
    import folder_paths
    folder_paths.add_model_folder_path("checkpoints", str(ROOT / "deploy" / "demo"))
    asyncio.run(nodes.init_builtin_extra_nodes())
    return nodes


def our_nodes(nodes):
    """As ComfyUI loads a folder of custom_nodes."""
    folder = ROOT / "client" / "comfyui"
    spec = importlib.util.spec_from_file_location("custom_nodes_distorchd", folder / "__init__.py",
                                                  submodule_search_locations=[str(folder)])
    package = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = package
    spec.loader.exec_module(package)
    nodes.NODE_CLASS_MAPPINGS.update(package.NODE_CLASS_MAPPINGS)
    return package


def local_demo():
    """The demo checkpoint, whose widths stock loaders do not know, as ComfyUI's own MODEL, CLIP and VAE in float32."""
    import comfy.sd
    import comfy.supported_models
    import comfy.utils
    import torch

    path = str(ROOT / "deploy" / "demo" / "shapes-sd1.safetensors")
    config = comfy.supported_models.SD15
    published = config.unet_config
    config.unet_config = {**published, "context_dim": 64, "model_channels": 64}
    try:
        text = {"hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 1, "num_hidden_layers": 3}
        model, clip, _, _ = comfy.sd.load_checkpoint_guess_config(
            path, output_vae=False, model_options={"dtype": torch.float32},
            te_model_options={"clip_l_model_config": text, "dtype": torch.float32})
    finally:
        config.unet_config = published
    weights = comfy.utils.state_dict_prefix_replace(comfy.utils.load_torch_file(path), {"first_stage_model.": ""},
                                                    filter_keys=True)
    network = {"double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 64,
               "ch_mult": [1, 1, 2, 2], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0}
    vae = comfy.sd.VAE(sd=weights, config={"params": {"ddconfig": network, "embed_dim": 4}}, dtype=torch.float32)
    return model, clip, vae
