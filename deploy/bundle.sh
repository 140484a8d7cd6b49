#!/bin/bash
# Collects what the built programs need to run into a folder laid out as a root file system:
#   deploy/bundle.sh DEST
# DEST/usr/local/bin holds the programs, LibTorch's libraries keep their paths (the programs look for them there), and
# DEST/usr/share/distorchd/packages.txt names the Debian packages with the other libraries. The Dockerfile uses it.
set -euo pipefail
# shellcheck source=deploy/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[ $# = 1 ] || { sed -n '2,5s/^# //p' "$0" >&2; exit 2; }
mkdir -p "$1"
dest=$(realpath "$1")
programs=("$BUILD_DIR"/bin/distorchd "$BUILD_DIR"/bin/distorchctl)
install -D -s -t "$dest/usr/local/bin" "${programs[@]}"
ensure_torch

# The CUDA half is loaded at run time, so ldd does not name it.
libraries=$(ldd "${programs[@]}" | awk '$2 == "=>" { print $3 }' | sort -u)
site=$(dirname "$TORCH_DIR")
if [ -d "$site/nvidia/cudnn" ]; then
  libraries+=$'\n'$(find "$site/torch/lib" "$site/nvidia" -name '*.so*' ! -name 'libtorch_python.so')
fi

# The loader finds libraries below /lib that a package installed below /usr/lib: one folder on Debian 12.
package_of() {
  { dpkg-query -S "$1" || dpkg-query -S "/usr$1"; } 2>/dev/null | cut -d: -f1
}

packages=()
while read -r library; do
  case $library in
    */site-packages/*) cp --parents -L -u "$library" "$dest" ;;
    *) packages+=("$(package_of "$library")") ;;
  esac
done <<<"$libraries"
install -d "$dest/usr/share/distorchd"
printf '%s\n' "${packages[@]}" | sort -u >"$dest/usr/share/distorchd/packages.txt"
say "$(du -sh "$dest" | cut -f1) in $dest, and $(wc -l <"$dest/usr/share/distorchd/packages.txt") Debian packages to install beside it"
