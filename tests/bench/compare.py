#!/usr/bin/env python3
"""Times distorchd against diffusers on a real-size SD1.5 at 512x512: a guided step and a VAE decode.

The two run in turn, --rounds times, so that a busy machine slows both; the ratio is the median of the rounds' own
ratios. The checkpoint has SD1.5's real shapes: any SD1.5 file, or the one that golden_test leaves in build/golden.

    deploy/peer_python.sh tests/bench/compare.py --checkpoint build/golden/sd15_full.safetensors --dtype bf16
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(command):
    result = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(result.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, type=pathlib.Path)
    parser.add_argument("--bench", type=pathlib.Path, default=ROOT / "build/bench/checkpoint_bench")
    parser.add_argument("--dtype", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=2, help="timed runs a round")
    parser.add_argument("--rounds", type=int, default=3)
    flags = parser.parse_args()
    common = ["--dtype", flags.dtype, "--threads", flags.threads, "--runs", flags.runs]
    ours, theirs = [], []
    for _ in range(flags.rounds):
        ours.append(run([flags.bench, "--checkpoint", flags.checkpoint, *common]))
        theirs.append(run([sys.executable, ROOT / "tests/bench/diffusers_step.py", *common]))
    print(f"{flags.dtype}, {flags.threads} threads, medians of {flags.rounds} rounds of {flags.runs} runs")
    for part in ("step_seconds", "decode_seconds"):
        mine = [result[part]["median"] for result in ours]
        peer = [result[part]["median"] for result in theirs]
        ratio = statistics.median(a / b for a, b in zip(mine, peer))
        print(f"{part:16} distorchd {statistics.median(mine):7.3f}  diffusers {statistics.median(peer):7.3f}  "
              f"ratio {ratio:.3f}")
    load = statistics.median(result["load_seconds"]["median"] for result in ours)
    peak = max(result["peak_over_weights"] for result in ours)
    print(f"{'load_seconds':16} distorchd {load:7.3f}  peak memory {peak:.3f} x weights")


if __name__ == "__main__":
    main()
