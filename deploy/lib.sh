# shellcheck shell=bash
# What build.sh, quickstart.sh and tests/run.sh share. Source it; it changes to the repository's root.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT" || exit 1
# shellcheck disable=SC2034
BUILD_DIR=${DISTORCH_BUILD_DIR:-$ROOT/build}
CACHE_DIR=${DISTORCH_CACHE:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/distorchd}
TORCH_VERSION=2.11.0
PYTHON=/usr/bin/python3  # Debian's own, whatever else is on PATH

say() { printf '== %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# retry COMMAND…: up to three times, for what crosses a network.
retry() {
  local attempt
  for attempt in 1 2 3; do
    "$@" && return
    [ "$attempt" = 3 ] || { say "failed, trying again in $((attempt * 10)) s: $*"; sleep $((attempt * 10)); }
  done
  return 1
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# install_packages GROUP…: those of deploy/packages.txt that are missing.
install_packages() {
  local group package missing=()
  for group in "$@"; do
    while read -r package; do
      dpkg-query -W -f='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done < <(sed -n "s/^$group //p" deploy/packages.txt)
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  [ "$(id -u)" = 0 ] || command -v sudo >/dev/null ||
    die "these Debian packages are missing and there is neither root nor sudo to install them: ${missing[*]}"
  say "installing ${#missing[@]} Debian packages: ${missing[*]}"
  local log; log=$(mktemp)
  if ! { retry as_root apt-get -q update &&
         retry as_root env DEBIAN_FRONTEND=noninteractive apt-get -qy --no-install-recommends install "${missing[@]}"
       } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    die "apt-get failed (whole log: $log); distorchd builds on Debian 12 with its main archive reachable"
  fi
  rm -f "$log"
}

# unpack_packages GROUP: prints a folder with what the packages of a group hold. Unpacked, not installed: Debian starts the
# services of what is installed.
unpack_packages() {
  local packages folder
  mapfile -t packages < <(sed -n "s/^$1 //p" deploy/packages.txt)
  folder=$CACHE_DIR/unpacked-$(echo "${packages[@]}" | sha256sum | cut -c1-12)
  if [ ! -e "$folder/.complete" ]; then
    say "unpacking ${packages[*]} into $folder, once" >&2
    rm -rf "$folder"
    mkdir -p "$folder/deb"
    (cd "$folder/deb" && { apt-get -q download "${packages[@]}" ||
       { retry as_root apt-get -q update && retry apt-get -q download "${packages[@]}"; }; }) >&2 || return 1
    find "$folder/deb" -name '*.deb' -exec dpkg-deb -x {} "$folder" \; || return 1
    rm -r "$folder/deb"
    touch "$folder/.complete"
  fi
  echo "$folder"
}

# The CUDA half of LibTorch is of use where there is a driver, and wanted where there is a toolkit.
torch_variant() {
  case ${DISTORCH_TORCH_VARIANT:-auto} in
    cpu | cuda) echo "$DISTORCH_TORCH_VARIANT" ;;
    auto)
      if [ -e /dev/nvidiactl ] || command -v nvidia-smi >/dev/null || command -v nvcc >/dev/null ||
         [ -x /usr/local/cuda/bin/nvcc ]; then
        echo cuda
      else
        echo cpu
      fi ;;
    *) die "DISTORCH_TORCH_VARIANT=$DISTORCH_TORCH_VARIANT: use auto, cpu or cuda" ;;
  esac
}

# check_torch DIR: fails with a reason unless DIR is the torch folder of an install that can be linked and loaded.
check_torch() {
  local lost
  [ -f "$1/version.py" ] || { echo "$1 is no torch folder"; return 1; }
  grep -q "^__version__ = '${TORCH_VERSION%.*}\." "$1/version.py" ||
    { echo "$1 holds LibTorch $(sed -n "s/^__version__ = //p" "$1/version.py"), not ${TORCH_VERSION%.*}"; return 1; }
  lost=$(ldd "$1/lib/libtorch_cpu.so" | awk '/not found/ { print $1 }')
  [ -z "$lost" ] || { echo "$1/lib/libtorch_cpu.so lacks ${lost//$'\n'/ }"; return 1; }
}

# install_torch VENV VARIANT: PyPI's wheel. Its CPU half needs two of NVIDIA's libraries to load, 1 GB instead of 4.7.
install_torch() {
  local pip=("$1/bin/python" -m pip --disable-pip-version-check --quiet)
  rm -rf "$1"
  "$PYTHON" -m venv "$1" || return 1
  if [ "$2" = cuda ]; then
    retry "${pip[@]}" install "torch==$TORCH_VERSION"
  else
    retry "${pip[@]}" install --no-deps "torch==$TORCH_VERSION" || return 1
    local toolkit
    toolkit=$("$1/bin/python" -c '
import importlib.metadata, re
for requirement in importlib.metadata.requires("torch"):
    if match := re.match(r"cuda-toolkit\[.*?\](==[\d.]+)", requirement):
        print("cuda-toolkit[cudart,cupti]" + match[1])')
    retry "${pip[@]}" install --no-warn-conflicts "$toolkit"
  fi
}

# Sets TORCH_DIR, installing LibTorch on the first call on a machine. An install that was cut off is begun anew.
ensure_torch() {
  local problem venv
  if [ -n "${DISTORCH_TORCH_DIR:-}" ]; then
    problem=$(check_torch "$DISTORCH_TORCH_DIR") || die "DISTORCH_TORCH_DIR: $problem"
    TORCH_DIR=$DISTORCH_TORCH_DIR
    return
  fi
  venv=$CACHE_DIR/torch-$TORCH_VERSION-$(torch_variant) || exit 1
  mkdir -p "$CACHE_DIR"
  exec 9>"$CACHE_DIR/lock"
  flock 9
  if [ ! -e "$venv/.complete" ]; then
    say "installing LibTorch $TORCH_VERSION ($(torch_variant)) into $venv, once"
    install_torch "$venv" "$(torch_variant)" || die "pip could not install torch==$TORCH_VERSION; is PyPI reachable, and 6 GB free in $CACHE_DIR?"
  fi
  TORCH_DIR=$(echo "$venv"/lib/python3*/site-packages/torch)
  problem=$(check_torch "$TORCH_DIR") || { rm -f "$venv/.complete"; die "$problem; run this again to install LibTorch anew"; }
  touch "$venv/.complete"
  exec 9>&-
}

# python_with FILE [FOLDER]: prints a Python that has the packages FILE pins, and those in FOLDER. Each version of FILE gets
# its virtual environment once; one whose making was cut off is made anew.
python_with() {
  local venv
  venv=$CACHE_DIR/python-$(cat "$1" <(echo "${2:-}") | sha256sum | cut -c1-12)
  if [ ! -e "$venv/.complete" ]; then
    say "installing $1 into $venv, once" >&2
    rm -rf "$venv"
    mkdir -p "$CACHE_DIR"
    "$PYTHON" -m venv "$venv" || return 1
    retry "$venv/bin/python" -m pip --disable-pip-version-check --quiet install -r "$1" >&2 || return 1
    [ -z "${2:-}" ] || echo "$2" >"$(echo "$venv"/lib/python3*/site-packages)/folder.pth"
    touch "$venv/.complete"
  fi
  echo "$venv/bin/python"
}

# One compiler a core, and 2 GiB for each: a LibTorch source file takes that much.
build_jobs() {
  local cores memory
  cores=$(nproc)
  memory=$(awk '/^MemAvailable/ { print int($2 / 2097152) }' /proc/meminfo)
  [ "$memory" -ge 1 ] || memory=1
  echo "${JOBS:-$((cores < memory ? cores : memory))}"
}

# configure DIR CMAKE_ARGUMENT…: only when DIR is new or the arguments have changed; ninja does the rest.
configure() {
  local dir=$1 log=$1/configure.log
  shift
  if [ -f "$dir/build.ninja" ] && [ "$(cat "$dir/configure.args" 2>/dev/null)" = "$ROOT $*" ]; then return; fi
  say "configuring $dir"
  mkdir -p "$dir"
  rm -f "$dir/CMakeCache.txt" "$dir/configure.args"
  if ! cmake -S "$ROOT" -B "$dir" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo "$@" >"$log" 2>&1; then
    tail -n 40 "$log" >&2
    die "CMake failed; its whole output is in $log"
  fi
  echo "$ROOT $*" >"$dir/configure.args"
}

# compile DIR TARGET…: on a terminal ninja's own progress; elsewhere a line every tenth of the way, and all messages.
compile() {
  local dir=$1
  shift
  if [ -t 1 ]; then
    ninja -C "$dir" -j "$(build_jobs)" "$@"
    return
  fi
  ninja -C "$dir" -j "$(build_jobs)" "$@" 2>&1 | awk '
    match($0, /^\[[0-9]+\/[0-9]+\]/) {
      split(substr($0, 2, RLENGTH - 2), count, "/")
      tenth = int(10 * count[1] / count[2])
      if (tenth > last) { last = tenth; print; fflush() }
      next
    }
    { print; fflush() }'
  return "${PIPESTATUS[0]}"
}
