#!/usr/bin/env python3
"""Times distorchd against its peers on one SD1.5 file: loading, text, a guided step, a VAE decode, peak memory.

All run in turn, --rounds times, so that a busy machine slows all; a ratio is the median of the rounds' own ratios.
diffusers is always among them. ComfyUI is when PEER_COMFYUI is a checkout (and PEER_COMFYUI_PYTHON a Python that has
what it needs), stable-diffusion.cpp when PEER_SDCPP is its command line program.

    tests/bench/compare.sh --checkpoint v1-5-pruned-emaonly.safetensors --dtype fp32
"""

import argparse
import json
import os
import pathlib
import re
import resource
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
PARTS = ("load_seconds", "text_seconds", "step_seconds", "decode_seconds", "peak_bytes")


def run(command):
    result = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(result.stdout.splitlines()[-1])


def run_sdcpp(program, flags):
    """stable-diffusion.cpp's own log; its loading is counted without a warm-up but for the page cache."""
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.run(
            [program, "-m", str(flags.checkpoint), "-p", "a photograph", "-W", str(flags.size), "-H", str(flags.size),
             "--steps", str(flags.runs), "--cfg-scale", "7", "-t", str(flags.threads), "-o", f"{folder}/out.png",
             "--type", {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}[flags.dtype], "-v"],
            check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def seconds(what):
        found = re.search(what + r"[^\n]*completed, taking ([\d.]+)(s| ms)", process.stdout)
        return None if found is None else {"median": float(found[1]) / (1000 if found[2] == " ms" else 1)}

    result = dict(peer="stable-diffusion.cpp", load_seconds=seconds("loading tensors"),
                  text_seconds=seconds("get_learned_condition"), step_seconds=seconds("sampling"),
                  decode_seconds=seconds("decode_first_stage"),
                  peak_bytes=1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
    if result["step_seconds"]:
        result["step_seconds"]["median"] /= flags.runs
    return result


def contestants(flags):
    common = ["--checkpoint", flags.checkpoint, "--dtype", flags.dtype, "--threads", flags.threads, "--runs", flags.runs,
              "--size", flags.size]
    here = ROOT / "tests/bench"
    result = {"distorchd": lambda: run([flags.bench, *common]),
              "diffusers": lambda: run([sys.executable, here / "diffusers_step.py", *common])}
    if comfyui := os.environ.get("PEER_COMFYUI"):
        python = os.environ.get("PEER_COMFYUI_PYTHON", sys.executable)
        result["comfyui"] = lambda: run([python, here / "comfyui_step.py", "--comfyui", comfyui, *common])
    if sdcpp := os.environ.get("PEER_SDCPP"):
        result["stable-diffusion.cpp"] = lambda: run_sdcpp(sdcpp, flags)
    return result


def value(result, part):
    found = result.get(part)
    return found["median"] if isinstance(found, dict) else found


def show(part, number):
    if number is None:
        return "-"
    return f"{number / 2**30:.2f} GiB" if part == "peak_bytes" else f"{number:.3f} s"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, type=lambda path: pathlib.Path(path).resolve())
    parser.add_argument("--bench", type=pathlib.Path, default=ROOT / "build/bench/checkpoint_bench")
    parser.add_argument("--dtype", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--runs", type=int, default=2, help="timed runs a round, after one that warms up")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=512, help="width and height in pixels")
    flags = parser.parse_args()
    programs = contestants(flags)
    results = {name: [] for name in programs}
    for _ in range(flags.rounds):
        for name, program in programs.items():
            results[name].append(program())
    print(f"{flags.checkpoint.name}, {flags.size}x{flags.size}, {flags.dtype}, {flags.threads} threads, "
          f"medians of {flags.rounds} rounds of {flags.runs} runs; in brackets: times as long as distorchd")
    print(f"{'':16}" + "".join(f"{name:>26}" for name in programs))
    for part in PARTS:
        row = ""
        for name in programs:
            pairs = [(value(theirs, part), value(ours, part))
                     for theirs, ours in zip(results[name], results["distorchd"])]
            known = [pair for pair in pairs if None not in pair]
            text = show(part, statistics.median(a for a, _ in known) if known else None)
            if known and name != "distorchd":
                text += f" ({statistics.median(a / b for a, b in known):.2f})"
            row += f"{text:>26}"
        print(f"{part:16}{row}")


if __name__ == "__main__":
    main()
