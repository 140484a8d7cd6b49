#!/bin/bash
# Runs Python with diffusers and the torch that deploy/build.sh installed: deploy/peer_python.sh SCRIPT ARGUMENT…
set -euo pipefail
# shellcheck source=deploy/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
install_packages build >&2
ensure_torch >&2
[ -d "$TORCH_DIR/../nvidia/cudnn" ] ||
  die "the CPU-only LibTorch cannot be imported in Python; set DISTORCH_TORCH_VARIANT=cuda to install the whole (4.7 GB)"
python=$(python_with tests/bench/requirements.txt "$(dirname "$TORCH_DIR")")
exec "$python" "$@"
