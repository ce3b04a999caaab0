#!/usr/bin/env bash
# fuzz.sh SECONDS [TARGET ...]: the targets of tests/fuzz (all, where none is named) for so long each, two at a time.
# Needs scripts/deps.sh fuzz. Builds the preset `fuzz`. Below build/fuzz each target has
#   corpus/TARGET    the inputs that it found worth keeping: the next run goes on from them and from tests/fuzz/corpus
#   findings/TARGET  inputs for which something was wrong; a run that finds one fails
#   logs/TARGET.log  what libFuzzer said; it may quote a finding, which this script never does
# Where build/release has the targets too (make build), they run there on all that was found: what an input costs is
# measured without sanitizers. Leaves a JUnit report in build/test-results/fuzz.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"
seconds=${1:-60}
shift || true
[[ $seconds =~ ^[0-9]+$ ]] || die "usage: fuzz.sh SECONDS [TARGET ...]"
readonly BUILD=build/fuzz REPORT=build/test-results/fuzz/fuzz.xml AT_ONCE=2

# As long as what each of them may be sent in one piece; the others read short texts.
longest() {
  case $1 in
    request | upstream_answer | webhook) echo 70000 ;;
    policy) echo 16384 ;;
    *) echo 4096 ;;
  esac
}

# run TARGET: status 1 where something is wrong. The last lines of its log tell the numbers.
run() {
  local target=$1 log=$BUILD/logs/$1.log replay=build/release/bin/fuzz_$1_replay words=()
  local corpus=$BUILD/corpus/$target findings=$BUILD/findings/$target seeds=tests/fuzz/corpus/$target
  mkdir -p "$corpus" "$findings" "$BUILD/logs"
  if [ -f "tests/fuzz/dict/$target.dict" ]; then words=("-dict=tests/fuzz/dict/$target.dict"); fi
  # Leaks are looked for by AddressSanitizer's own means, at the end too.
  UBSAN_OPTIONS=print_stacktrace=1 "$BUILD/bin/fuzz-$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
    -max_len="$(longest "$target")" -print_final_stats=1 -artifact_prefix="$findings/" "${words[@]}" \
    "$corpus" "$seeds" >"$log" 2>&1 || return 1
  [ ! -x "$replay" ] || "$replay" --gtest_brief=1 "$corpus" "$seeds" >>"$log" 2>&1
}

# told TARGET STATUS: a line for people, and one of the report.
tell() {
  local log=$BUILD/logs/$1.log runs edges state=ok why
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -n 1)
  edges=$(grep -o 'cov: [0-9]*' "$log" | tail -n 1)
  if [ "$2" != 0 ]; then state=FAILED; fi
  note "$(printf '%-6s %-16s %10s inputs, %6s edges' "$state" "$1" "${runs:-?}" "${edges#cov: }")"
  if [ "$2" = 0 ]; then
    printf '<testcase classname="fuzz" name="%s" time="%s"/>\n' "$1" "$seconds" >>"$REPORT"
    return
  fi
  # The claim, or what a sanitizer calls it: fixed words, none of the input.
  why=$(grep -oE '^WRONG: .*|this does not hold: .*|^SUMMARY: [A-Za-z]+: [a-zA-Z-]+|runtime error: [a-z -]+' "$log" | head -n 1)
  why=${why:-"it ended with an error"}
  note "       $why"
  find "$BUILD/findings/$1" -type f -printf "           $BUILD/bin/fuzz-$1 %p\n"
  note "       log: $log"
  why=${why//[<>&\"]/ }
  printf '<testcase classname="fuzz" name="%s"><failure message="%s"/></testcase>\n' "$1" "$why" >>"$REPORT"
}

rm -f "$REPORT"
[ -f $BUILD/build.ninja ] || quietly cmake --preset fuzz
say "Building the fuzz targets"
cmake --build --preset fuzz -j "${JOBS:-$(nproc)}"
targets=("$@")
if [ ${#targets[@]} = 0 ]; then
  mapfile -t targets < <(basename -a tests/fuzz/corpus/*/)
fi
for target in "${targets[@]}"; do
  [ -x "$BUILD/bin/fuzz-$target" ] || die "there is no target $target; there are: $(basename -a tests/fuzz/corpus/*/ | xargs)"
done
mkdir -p "$(dirname "$REPORT")"
echo '<testsuite name="fuzz">' >"$REPORT"

say "Fuzzing ${#targets[@]} targets, $seconds s each"
declare -A of
running=0 failed=0
# take: waits for one that runs, and tells what it came to.
take() {
  local status=0 pid
  wait -n -p pid || status=$?
  tell "${of[$pid]}" "$status"
  running=$((running - 1))
  [ "$status" = 0 ] || failed=$((failed + 1))
}
for target in "${targets[@]}"; do
  [ "$running" -lt "$AT_ONCE" ] || take
  run "$target" &
  of[$!]=$target
  running=$((running + 1))
done
while [ "$running" -gt 0 ]; do take; done
echo '</testsuite>' >>"$REPORT"
[ "$failed" = 0 ] || die "$failed of ${#targets[@]} targets found something"
say "All ${#targets[@]} targets: nothing wrong"
