#!/usr/bin/env python3
"""Times one classifier-free-guidance step and one VAE decode of Stable Diffusion 1.5 at 512x512 in diffusers.

The peer of bench/denoise_benchmark: the same shapes (UNet batch 2, context 77 x 768) on random weights, which cost the
same to compute with as trained ones. Prints one JSON object; seconds are medians over --runs, after one warm-up.

    deploy/peer_python.sh tests/bench/diffusers_step.py --dtype bf16 --threads 2
"""

import argparse
import json
import statistics
import time

import diffusers
import torch

# runwayml/stable-diffusion-v1-5, unet/config.json and vae/config.json; what is not named is diffusers' default.
UNET = dict(
    sample_size=64, in_channels=4, out_channels=4, center_input_sample=False, flip_sin_to_cos=True, freq_shift=0,
    down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    block_out_channels=(320, 640, 1280, 1280), layers_per_block=2, downsample_padding=1, mid_block_scale_factor=1,
    act_fn="silu", norm_num_groups=32, norm_eps=1e-5, cross_attention_dim=768, attention_head_dim=8)
VAE = dict(
    sample_size=512, in_channels=3, out_channels=3, latent_channels=4,
    down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    block_out_channels=(128, 256, 512, 512), layers_per_block=2, act_fn="silu", norm_num_groups=32)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def seconds(function, device, runs):
    """The median, and all of them."""
    times = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return {"median": statistics.median(times[1:]), "runs": times[1:]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=DTYPES, default="fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="0: torch's choice")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--part", choices=("step", "decode", "both"), default="both")
    flags = parser.parse_args()
    if flags.threads:
        torch.set_num_threads(flags.threads)
    device, dtype = torch.device(flags.device), DTYPES[flags.dtype]
    torch.manual_seed(0)
    result = dict(peer="diffusers", diffusers=diffusers.__version__, torch=torch.__version__, device=str(device),
                  dtype=flags.dtype, threads=torch.get_num_threads())

    def tensor(*shape):
        return torch.randn(shape, device=device, dtype=dtype)

    with torch.inference_mode():
        if flags.part != "decode":
            unet = diffusers.UNet2DConditionModel(**UNET).eval().to(device, dtype)
            latent, context = tensor(1, 4, 64, 64), tensor(2, 77, 768)
            timestep = torch.tensor(500, device=device)

            def step():
                uncond, cond = unet(torch.cat([latent, latent]), timestep, context).sample.chunk(2)
                return uncond + 7.0 * (cond - uncond)

            result["step_seconds"] = seconds(step, device, flags.runs)
            del unet
        if flags.part != "step":
            vae = diffusers.AutoencoderKL(**VAE).eval().to(device, dtype)
            latent = tensor(1, 4, 64, 64)
            result["decode_seconds"] = seconds(lambda: vae.decode(latent).sample, device, flags.runs)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
