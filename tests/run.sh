#!/bin/bash
# Every check of the project, from a bare Debian 12 machine or a built tree. Ends with "N passed, N failed", where a
# stage counts as one and each test of ctest and pytest as one more; fails if anything did.
set -uo pipefail

usage() {
  cat <<'EOF'
usage: tests/run.sh [--quick] [STAGE…]
  --quick  build and ctest only
  STAGE    only these, in the order below:
             format         clang-format 14 over the sources
             shellcheck     the shell scripts
             build          programs and tests, with LibTorch
             ctest          the C++ tests
             pytest         the running daemon, the Python client, the ComfyUI nodes
             asan           houses without LibTorch under AddressSanitizer and UBSan
             tsan           the same under ThreadSanitizer
             thread-safety  clang's lock analysis of the sources that lock and that asan leaves out
             fuzz           each fuzzer over its corpus for FUZZ_SECONDS (5)
Logs of the last run are in build/test-logs.
EOF
}

# shellcheck source=deploy/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../deploy/lib.sh"

ALL_STAGES=(format shellcheck build ctest pytest asan tsan thread-safety fuzz)
LOGS=$BUILD_DIR/test-logs
CLANG=(-DCMAKE_C_COMPILER=clang-14 -DCMAKE_CXX_COMPILER=clang++-14 -DDISTORCH_TORCH=OFF)

stage_format() {
  git ls-files -z '*.cc' '*.h' | xargs -0 clang-format-14 --dry-run -Werror
}

stage_shellcheck() {
  git ls-files -z '*.sh' .ci/run | xargs -0 shellcheck -x
}

stage_build() {
  bash deploy/build.sh --tests
}

run_ctest() {
  ctest --test-dir "$1" --parallel "$(nproc)" --output-on-failure --timeout 900 --no-tests=error "${@:2}"
}

stage_ctest() {
  run_ctest "$BUILD_DIR"
}

stage_pytest() {
  local python
  python=$(python_with tests/requirements.txt)
  DISTORCH_BIN_DIR=$BUILD_DIR/bin "$python" -m pytest -q -p no:cacheprovider --durations=5 tests
}

configure_asan() {
  configure "$BUILD_DIR/asan" "${CLANG[@]}" -DDISTORCH_SANITIZE=address,undefined -DDISTORCH_FUZZ=ON
}

stage_asan() {
  configure_asan
  compile "$BUILD_DIR/asan" all
  run_ctest "$BUILD_DIR/asan"
}

stage_tsan() {
  configure "$BUILD_DIR/tsan" "${CLANG[@]}" -DDISTORCH_SANITIZE=thread
  compile "$BUILD_DIR/tsan" tests/all  # no program: nothing runs them here
  run_ctest "$BUILD_DIR/tsan"
}

stage_thread-safety() {
  configure_asan
  "$PYTHON" tests/support/thread_safety.py "$BUILD_DIR/compile_commands.json" "$BUILD_DIR/asan/compile_commands.json"
}

# fuzz FUZZER: what a run finds goes beside the corpus, not into the source tree.
fuzz() {
  local name=${1##*/} corpus status
  corpus=$BUILD_DIR/asan/corpus/$name
  mkdir -p "$corpus"
  "$1" -max_total_time="${FUZZ_SECONDS:-5}" -rss_limit_mb=2048 -timeout=10 -print_final_stats=1 \
    -artifact_prefix="$LOGS/$name-" "$corpus" "tests/fuzz/corpus/$name" >"$LOGS/$name.log" 2>&1
  status=$?
  [ "$status" = 0 ] || cat "$LOGS/$name.log"
  echo "$name ended with $status: $(grep -oE 'number_of_executed_units: .*' "$LOGS/$name.log")"
  return "$status"
}

stage_fuzz() {
  configure_asan
  compile "$BUILD_DIR/asan" tests/fuzz/all
  export -f fuzz
  export BUILD_DIR LOGS
  local fuzzers=("$BUILD_DIR"/asan/fuzz/*_fuzz)
  [ -x "${fuzzers[0]}" ] || die "no fuzzer in $BUILD_DIR/asan/fuzz"
  printf '%s\n' "${fuzzers[@]}" | xargs -I{} -P "$(nproc)" bash -c 'fuzz "{}"'
}

passed=0
failed=0
summary=()

# count_tests LOG: adds what ctest and pytest say at their end.
count_tests() {
  local ran=0 broken=0 good=0 bad=0
  read -r broken ran < <(sed -nE 's/.*tests passed, ([0-9]+) tests failed out of ([0-9]+).*/\1 \2/p' "$1" | tail -n 1)
  good=$(tail -n 1 "$1" | grep -oE '[0-9]+ passed' | cut -d' ' -f1)
  bad=$(tail -n 1 "$1" | grep -oE '[0-9]+ (failed|error)' | awk '{ n += $1 } END { print n + 0 }')
  counted_passed=$((${ran:-0} - ${broken:-0} + ${good:-0}))
  counted_failed=$((${broken:-0} + bad))
  passed=$((passed + counted_passed))
  failed=$((failed + counted_failed))
}

run_stage() {
  local name=$1 log=$LOGS/$1.log start=$SECONDS status test_count=
  say "$name"
  (set -e; "stage_$name") >"$log" 2>&1 </dev/null
  status=$?
  count_tests "$log"
  [ $((counted_passed + counted_failed)) = 0 ] || test_count=", $counted_passed of $((counted_passed + counted_failed)) tests"
  if [ "$status" = 0 ]; then
    passed=$((passed + 1))
    summary+=("$(printf 'passed  %-14s %5d s%s' "$name" $((SECONDS - start)) "$test_count")")
  else
    failed=$((failed + 1))
    summary+=("$(printf 'FAILED  %-14s %5d s%s' "$name" $((SECONDS - start)) "$test_count")")
    tail -n 150 "$log"
  fi
  echo "${summary[-1]}"
  return "$status"
}

stages=()
case ${1:-} in
  --quick) stages=(build ctest) ;;
  -h | --help) usage; exit ;;
  -*) usage >&2; exit 2 ;;
  '') stages=("${ALL_STAGES[@]}") ;;
  *)
    for stage in "$@"; do
      [[ " ${ALL_STAGES[*]} " == *" $stage "* ]] || { usage >&2; exit 2; }
    done
    for stage in "${ALL_STAGES[@]}"; do
      [[ " $* " != *" $stage "* ]] || stages+=("$stage")
    done ;;
esac

mkdir -p "$LOGS"
install_packages build test
built=yes
for stage in "${stages[@]}"; do
  if [ "$built" = no ] && [[ $stage =~ ^(ctest|pytest|thread-safety)$ ]]; then
    summary+=("not run $stage: the build failed")
    continue
  fi
  run_stage "$stage" || [ "$stage" != build ] || built=no
done

say "summary, after $SECONDS s"
printf '%s\n' "${summary[@]}"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
