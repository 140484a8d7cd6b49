#!/bin/bash
# distorchd against its peers on one file: builds what is missing and prints a table of medians and ratios.
#   tests/bench/compare.sh --checkpoint FILE [--dtype fp32|bf16|fp16] [--rounds N] [--runs N] [--size PIXELS]
# compare.py says which peers there are, and how to give further ones.
set -euo pipefail
caller=$PWD
# shellcheck source=deploy/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../deploy/lib.sh"
arguments=()
previous=
for argument in "$@"; do  # a path is relative to the caller's folder
  if [ "$previous" = --checkpoint ]; then
    argument=$(realpath -e -- "$caller/$argument" 2>/dev/null || realpath -e -- "$argument")
  fi
  arguments+=("$argument")
  previous=$argument
done
[ -x "$BUILD_DIR/bench/checkpoint_bench" ] || bash deploy/build.sh --tests
exec bash deploy/peer_python.sh tests/bench/compare.py --bench "$BUILD_DIR/bench/checkpoint_bench" "${arguments[@]}"
