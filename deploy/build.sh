#!/bin/bash
# Builds distorchd on Debian 12 from nothing: packages, LibTorch, programs. Run again, it does only what is left to do.
set -euo pipefail

usage() {
  cat <<'EOF'
usage: deploy/build.sh [--tests | --setup | TARGET…]
  Without arguments, the programs: build/bin/distorchd and build/bin/distorchctl.
  --tests   everything, tests included, and the packages that tests/run.sh needs
  --setup   only what is installed before the build: packages and LibTorch

environment:
  DISTORCH_CACHE          where LibTorch is installed, once for all clones (~/.cache/distorchd)
  DISTORCH_TORCH_VARIANT  cpu, cuda, or auto: cuda where there is an NVIDIA driver or a CUDA toolkit
  DISTORCH_TORCH_DIR      the torch folder of a LibTorch 2.11 wheel that is installed already
  DISTORCH_BUILD_DIR      the build tree (build)
  JOBS                    compilers at once
EOF
}

# shellcheck source=deploy/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

groups=(build)
targets=(distorchd distorchctl)
case ${1:-} in
  -h | --help) usage; exit ;;
  --tests) [ $# = 1 ] || { usage >&2; exit 2; }; groups+=(test); targets=(all) ;;
  --setup) targets=() ;;
  -*) usage >&2; exit 2 ;;
  ?*) targets=("$@") ;;
esac

[ "$(uname -m)" = x86_64 ] || die "LibTorch's wheel is used on x86_64 only; this is $(uname -m)"
command -v dpkg-query >/dev/null || die "this script installs packages on Debian 12; see deploy/packages.txt for what is needed elsewhere"
install_packages "${groups[@]}"
ensure_torch
[ ${#targets[@]} -gt 0 ] || exit 0
configure "$BUILD_DIR" -DDISTORCH_TORCH_DIR="$TORCH_DIR"
say "building ${targets[*]} in $BUILD_DIR"
compile "$BUILD_DIR" "${targets[@]}" || die "the build failed; the messages are above"
say "built"
