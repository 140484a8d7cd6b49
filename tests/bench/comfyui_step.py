#!/usr/bin/env python3
"""Times loading, a guided step, text encoding and a VAE decode in ComfyUI, through its own API.

Prints the JSON object that diffusers_step.py prints. --comfyui is a ComfyUI checkout, run with a Python that has what it
needs.
"""

import argparse
import json
import resource
import statistics
import sys
import time


def timed(function, runs):
    times = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return {"median": statistics.median(times[1:]), "runs": times[1:]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comfyui", required=True)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--dtype", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--size", type=int, default=512)
    flags = parser.parse_args()
    sys.path.insert(0, flags.comfyui)
    sys.argv = ["main.py", "--cpu", {"fp32": "--force-fp32", "bf16": "--bf16-unet", "fp16": "--fp16-unet"}[flags.dtype]]
    import comfy.options
    comfy.options.enable_args_parsing()
    import comfy.sample
    import comfy.sd
    import torch
    if flags.threads:
        torch.set_num_threads(flags.threads)

    def load():
        return comfy.sd.load_checkpoint_guess_config(flags.checkpoint, output_vae=True, output_clip=True)[:3]

    def encode(text):
        return clip.encode_from_tokens_scheduled(clip.tokenize(text))

    result = dict(peer="comfyui", dtype=flags.dtype, threads=torch.get_num_threads())
    with torch.inference_mode():
        result["load_seconds"] = timed(load, 1)
        model, clip, vae = load()
        result["text_seconds"] = timed(lambda: (encode("a photograph"), encode("")), flags.runs)
        latent = torch.zeros(1, 4, flags.size // 8, flags.size // 8)
        ends = [0.0]
        comfy.sample.sample(model, torch.randn_like(latent), flags.runs + 1, 7.0, "euler", "normal",
                            encode("a photograph"), encode(""), latent,
                            callback=lambda *_: ends.append(time.perf_counter()), disable_pbar=True)
        steps = [b - a for a, b in zip(ends[1:], ends[2:])]  # between callbacks: the first step warms up
        result["step_seconds"] = {"median": statistics.median(steps), "runs": steps}
        result["decode_seconds"] = timed(lambda: vae.decode(latent), flags.runs)
    result["peak_bytes"] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps(result))


if __name__ == "__main__":
    main()
