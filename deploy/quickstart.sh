#!/bin/bash
# From a clone to a picture: builds distorchd, starts it, loads a checkpoint with its UNet spread over three devices, draws
# build/demo.png and stops.
#   deploy/quickstart.sh [CHECKPOINT [PROMPT]]
# Without an accelerator the devices are simulated in host memory. CHECKPOINT is a file of yours; by default the small
# one in deploy/demo.
set -euo pipefail
# shellcheck source=deploy/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

case ${1:-} in -*) sed -n '2,6s/^# //p' "$0"; exit 2 ;; esac
checkpoint=$(realpath -e "${1:-deploy/demo/shapes-sd1.safetensors}") || die "there is no such file: $1"
prompt=${2:-a red circle above a blue square on a white background}
if [ $# = 0 ]; then size=128 cfg=4; else size=512 cfg=7; fi
output=$BUILD_DIR/demo.png
daemon_log=$BUILD_DIR/demo-distorchd.log

bash deploy/build.sh

daemon_flags=(--listen_address=127.0.0.1:0 --metrics_address=127.0.0.1:0 --checkpoint_dirs="$(dirname "$checkpoint")")
has_accelerator() { compgen -G '/dev/nvidia[0-9]*' >/dev/null; }
if ! has_accelerator; then
  # Room for the weights in either accelerator, and for the activations beside them.
  gib=$(($(stat -c %s "$checkpoint") / 1073741824))
  simulated=cuda:0=$((2 + 2 * gib))GiB,cuda:1=$((2 + 2 * gib))GiB,cpu=$((8 + 2 * gib))GiB
  daemon_flags+=(--simulate_devices="$simulated" --compute_dtype=fp32)
  say "no accelerator here: simulating $simulated"
fi

work=$(mktemp -d)
daemon=
stop_daemon() {
  if [ -n "$daemon" ]; then
    kill "$daemon" 2>/dev/null || true
    wait "$daemon" || true
    daemon=
  fi
  rm -rf "$work"
}
trap stop_daemon EXIT
trap 'exit 130' INT TERM

say "starting distorchd ${daemon_flags[*]}"
"$BUILD_DIR/bin/distorchd" "${daemon_flags[@]}" --port_file="$work/ports" >"$daemon_log" 2>&1 &
daemon=$!
for _ in $(seq 300); do
  [ ! -e "$work/ports" ] || break
  kill -0 "$daemon" 2>/dev/null || { cat "$daemon_log" >&2; die "distorchd did not start"; }
  sleep 0.1
done
[ -e "$work/ports" ] || { cat "$daemon_log" >&2; die "distorchd was not serving after 30 s"; }
port_of() { "$PYTHON" -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$work/ports" "$1"; }
address=127.0.0.1:$(port_of grpc)

# Quotes only the words that a shell would need quoted.
show() {
  local word
  printf '$ distorchctl'
  for word in "$@"; do
    if [[ $word =~ ^[A-Za-z0-9_=:,./-]+$ ]]; then printf ' %s' "$word"; else printf ' %s' "${word@Q}"; fi
  done
  echo
}

ctl() {
  show "$@"
  "$BUILD_DIR/bin/distorchctl" --address="$address" "$@" ||
    { say "the daemon's log ($daemon_log) ends with"; tail -n 20 "$daemon_log"; die "distorchctl $1 failed"; }
  echo
}

ctl devices
mapfile -t accelerators < <("$BUILD_DIR/bin/distorchctl" --address="$address" --json devices |
  "$PYTHON" -c 'import json, sys; [print(d["name"]) for d in json.load(sys.stdin)["devices"] if d["name"] != "cpu"]')
case ${#accelerators[@]} in
  0) unet=cpu vae=cpu allocation='cpu,100%' ;;
  1) unet=${accelerators[0]} vae=$unet allocation="$unet,80%;cpu,20%" ;;
  *) unet=${accelerators[0]} vae=${accelerators[1]} allocation="$unet,50%;$vae,30%;cpu,20%" ;;
esac

say "loading: the UNet computes on $unet, its weights are spread as '$allocation'"
ctl load "$(basename "$checkpoint")" \
  --unet_compute_device="$unet" --unet_expert_mode_allocations="$allocation" \
  --clip_compute_device=cpu --clip_virtual_vram_gb=0 --vae_device="$vae"
ctl infer --prompt="$prompt" --width=$size --height=$size --seed=0 --steps=20 --cfg=$cfg \
  --sampler_name=euler --scheduler=normal --output="$output"
say "what Prometheus sees of it, from http://127.0.0.1:$(port_of metrics)/metrics"
"$PYTHON" -c 'import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode(), end="")' \
  "http://127.0.0.1:$(port_of metrics)/metrics" | grep -E '^distorchd_component_bytes' || true
echo
ctl unload --all
stop_daemon

say "done: $output"
cat <<EOF
Next:
  build/bin/distorchd --checkpoint_dirs=DIR [--simulate_devices=cuda:0=8GiB,cuda:1=12GiB]   serve your own
  build/bin/distorchctl plan NAME --unet_expert_mode_allocations='cuda:0,2gb;cpu,*'         see a split before loading
  build/bin/distorchd --help, build/bin/distorchctl --help                                  all settings
  README.md                                                                                 how it works, and all guides
EOF
