#!/bin/bash
# Collects what the built programs need to run into a folder laid out as a root file system:
#   deploy/bundle.sh DEST
# DEST/usr/local/bin holds the programs, LibTorch's libraries keep their paths (the programs look for them there), and in
# DEST/usr/share/distorchd, packages.txt names the Debian packages with the other libraries and wheels.txt PyPI's. The Dockerfile
# uses it.
set -euo pipefail
# shellcheck source=deploy/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[ $# = 1 ] || { sed -n '2,6s/^# //p' "$0" >&2; exit 2; }
mkdir -p "$1"
dest=$(realpath "$1")
programs=("$BUILD_DIR"/bin/distorchd "$BUILD_DIR"/bin/distorchctl)
install -D -s -t "$dest/usr/local/bin" "${programs[@]}"
ensure_torch

# The CUDA half is loaded at run time, so ldd does not name it.
libraries=$(ldd "${programs[@]}" | awk '$2 == "=>" { print $3 }' | sort -u)
site=$(dirname "$TORCH_DIR")
if [ "$(torch_variant)" = cuda ]; then
  libraries+=$'\n'$(find "$site/torch/lib" "$site/nvidia" -name '*.so*' ! -name 'libtorch_python.so')
fi

# "NAME VERSION" of each wheel that one of the libraries comes with.
wheels() {
  local record
  while read -r library; do
    library=$(realpath -s "$library")
    [[ $library != "$site"/* ]] || grep -lF -- "${library#"$site"/}," "$site"/*.dist-info/RECORD || true
  done <<<"$libraries" | sort -u | while read -r record; do
    awk '/^Name: / { name = $2 } /^Version: / { print name, $2; exit }' "$(dirname "$record")/METADATA"
  done
}

files=()
while read -r library; do
  case $library in
    */site-packages/*) cp --parents -L -u "$library" "$dest" ;;
    *) files+=("$library") ;;
  esac
done <<<"$libraries"

# The loader finds libraries below /lib that a package installed below /usr/lib: one folder on Debian 12. Of the two names,
# dpkg knows one.
owners=$(dpkg-query -S "${files[@]}" "${files[@]/#//usr}" 2>/dev/null || true)
for file in "${files[@]}"; do
  grep -qF -- ": $file" <<<"$owners" || grep -qF -- ": /usr$file" <<<"$owners" || die "no Debian package has $file"
done

install -d "$dest/usr/share/distorchd"
cut -d: -f1 <<<"$owners" | sort -u >"$dest/usr/share/distorchd/packages.txt"
wheels >"$dest/usr/share/distorchd/wheels.txt"
say "$(du -sh "$dest" | cut -f1) in $dest, and $(wc -l <"$dest/usr/share/distorchd/packages.txt") Debian packages to install beside it"
