#!/usr/bin/env python3
"""Times one classifier-free-guidance step and one VAE decode of Stable Diffusion 1.5 or SDXL in diffusers.

The peer of checkpoint_bench: the same shapes (UNet batch 2, context 77 x 768 or 77 x 2048) on random weights, which cost
the same to compute with as trained ones. Prints one JSON object; seconds are medians over --runs, after one warm-up.

    deploy/peer_python.sh tests/bench/diffusers_step.py --dtype bf16 --threads 2
"""

import argparse
import json
import pathlib
import resource
import statistics
import tempfile
import time

import diffusers
import safetensors
import torch
import transformers

# runwayml/stable-diffusion-v1-5, unet/config.json and vae/config.json; what is not named is diffusers' default.
UNET = dict(
    sample_size=64, in_channels=4, out_channels=4, center_input_sample=False, flip_sin_to_cos=True, freq_shift=0,
    down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    block_out_channels=(320, 640, 1280, 1280), layers_per_block=2, downsample_padding=1, mid_block_scale_factor=1,
    act_fn="silu", norm_num_groups=32, norm_eps=1e-5, cross_attention_dim=768, attention_head_dim=8)
# stabilityai/stable-diffusion-xl-base-1.0, unet/config.json.
SDXL_UNET = dict(
    sample_size=128, in_channels=4, out_channels=4, center_input_sample=False, flip_sin_to_cos=True, freq_shift=0,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    block_out_channels=(320, 640, 1280), layers_per_block=2, downsample_padding=1, mid_block_scale_factor=1,
    act_fn="silu", norm_num_groups=32, norm_eps=1e-5, cross_attention_dim=2048, attention_head_dim=(5, 10, 20),
    transformer_layers_per_block=(1, 2, 10), use_linear_projection=True, addition_embed_type="text_time",
    addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816)
VAE = dict(
    sample_size=512, in_channels=3, out_channels=3, latent_channels=4,
    down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    block_out_channels=(128, 256, 512, 512), layers_per_block=2, act_fn="silu", norm_num_groups=32)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def seconds(function, device, runs):
    """The median, and all of them; of the processor's time as well, which other work on the machine changes less."""
    times, processor = [], []
    for _ in range(runs + 1):
        start, used = time.perf_counter(), time.process_time()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
    return {"median": statistics.median(times[1:]), "runs": times[1:], "processor": statistics.median(processor[1:])}


# openai/clip-vit-large-patch14's text half, as SD1.5 uses it.
CLIP = dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, projection_dim=768,
            vocab_size=49408, max_position_embeddings=77, hidden_act="quick_gelu")
CLIP_PREFIX = "cond_stage_model.transformer."


def peak_bytes():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def load(path, device, dtype):
    """The three parts of an SD1.5 file in the published layout, by diffusers' own converters."""
    with tempfile.TemporaryDirectory() as folder:
        parts = []
        for model, config in ((diffusers.UNet2DConditionModel, UNET), (diffusers.AutoencoderKL, VAE)):
            home = pathlib.Path(folder, model.__name__)
            home.mkdir()
            (home / "config.json").write_text(json.dumps(dict(config, _class_name=model.__name__)))
            parts.append(model.from_single_file(str(path), config=str(home), torch_dtype=dtype,
                                                local_files_only=True).eval().to(device))
    with torch.device("meta"):
        clip = transformers.CLIPTextModel(transformers.CLIPTextConfig(**CLIP)).eval()
    wanted = clip.state_dict()
    prefix = CLIP_PREFIX if next(iter(wanted)).startswith("text_model.") else CLIP_PREFIX + "text_model."
    with safetensors.safe_open(path, "pt") as file:
        weights = {name: file.get_tensor(prefix + name).to(device, dtype) for name in wanted
                   if "position_ids" not in name}
    clip.load_state_dict(weights, strict=False, assign=True)
    for module in clip.modules():
        if getattr(module, "position_ids", None) is not None:
            module.position_ids = torch.arange(77, device=device)[None]
    return *parts, clip


def make_unet(model, device, dtype):
    config = UNET if model == "sd15" else SDXL_UNET
    torch.set_default_dtype(dtype)  # made in it, so that there is never a second copy
    with torch.device(device):
        unet = diffusers.UNet2DConditionModel(**config).eval()
    torch.set_default_dtype(torch.float32)
    return unet


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", help="an SD1.5 file to load and time the loading of; none: random weights")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="0: torch's choice")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--model", choices=("sd15", "sdxl"), default="sd15")
    parser.add_argument("--size", type=int, default=512, help="width and height in pixels")
    parser.add_argument("--part", choices=("step", "decode", "both"), default="both")
    flags = parser.parse_args()
    if flags.threads:
        torch.set_num_threads(flags.threads)
    device, dtype = torch.device(flags.device), DTYPES[flags.dtype]
    torch.manual_seed(0)
    side = flags.size // 8
    result = dict(peer="diffusers", diffusers=diffusers.__version__, torch=torch.__version__, device=str(device),
                  dtype=flags.dtype, threads=torch.get_num_threads())

    def tensor(*shape):
        return torch.randn(shape, device=device, dtype=dtype)

    with torch.inference_mode():
        unet = vae = None
        if flags.checkpoint:
            result["load_seconds"] = seconds(lambda: load(flags.checkpoint, device, dtype), device, 1)
            unet, vae, clip = load(flags.checkpoint, device, dtype)
            ids = torch.full((2, 77), 49407, device=device)
            result["text_seconds"] = seconds(lambda: clip(ids).last_hidden_state, device, flags.runs)
        if flags.part != "decode":
            unet = unet or make_unet(flags.model, device, dtype)
            latent, context = tensor(1, 4, side, side), tensor(2, 77, unet.config.cross_attention_dim)
            timestep = torch.tensor(500, device=device)
            added = dict(text_embeds=tensor(2, 1280), time_ids=tensor(2, 6)) if flags.model == "sdxl" else None

            def step():
                both = unet(torch.cat([latent, latent]), timestep, context, added_cond_kwargs=added).sample
                uncond, cond = both.chunk(2)
                return uncond + 7.0 * (cond - uncond)

            result["step_seconds"] = seconds(step, device, flags.runs)
            if not flags.checkpoint:
                unet = None
        if flags.part != "step":
            vae = vae or diffusers.AutoencoderKL(**VAE).eval().to(device, dtype)
            latent = tensor(1, 4, side, side)
            result["decode_seconds"] = seconds(lambda: vae.decode(latent).sample, device, flags.runs)
    result["peak_bytes"] = peak_bytes()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
