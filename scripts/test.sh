#!/usr/bin/env bash
# make test: the suites; all run, whichever of them fail. The end tells what failed and the command that runs that alone.
# Reports (JUnit XML) are left in build/test-results; those of PRESET (release) are counted.
#   test.sh [PRESET] [SUITE ...]   suites, or `gateway`, `clients` for several; all, where none is named
#   test.sh --list                 what suites there are
#   TEST_RESULTS                   directory of the reports (build/test-results)
#   TEST_AT_ONCE=no                one suite after the other. Else those of the clients, which wait most of the time, run
#                                  beside the gateway's, apart from cpp, which keeps the machine busy by itself; and torture
#                                  comes after them, as the gateway's take longer
#   E2E_WORKERS                    processes of the suite e2e (one more than there are processors)
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"
# In the order in which they run.
readonly GATEWAY=(cpp e2e crash histories torture) CLIENTS=(client-python client-go client-java client-cpp client-cross)
if [ "${1:-}" = --list ]; then
  echo "gateway: ${GATEWAY[*]}"
  echo "clients: ${CLIENTS[*]}"
  exit 0
fi
preset=${1:-release}
shift || true
suites=()
for name in "${@:-all}"; do
  case $name in
    all) if [ "$preset" = release ]; then suites+=("${GATEWAY[@]}" "${CLIENTS[@]}"); else suites+=(cpp); fi ;;
    gateway) suites+=("${GATEWAY[@]}") ;;
    clients) suites+=("${CLIENTS[@]}") ;;
    *)
      [[ " ${GATEWAY[*]} ${CLIENTS[*]} " == *" $name "* ]] || die "there is no suite $name; scripts/test.sh --list tells all"
      suites+=("$name")
      ;;
  esac
done
results=${TEST_RESULTS:-$ROOT/build/test-results}/$preset
python=build/tools/venv/bin/python

# pytest_suite DIRECTORY OPTION...: against the real programs
pytest_suite() {
  GATEWAY_BIN_DIR=$ROOT/build/$preset/bin "$python" -m pytest "$1" -q -p no:cacheprovider --junitxml "$results/$(basename "$1").xml" "${@:2}"
}

run_suite() {
  # The test of this script puts programs of its own in place of the suites.
  if [ -n "${TEST_SUITES_DIR:-}" ]; then
    "$TEST_SUITES_DIR/$1"
    return
  fi
  case $1 in
    cpp) GTEST_OUTPUT=xml:$results/gtest/ ctest --preset "$preset" --output-junit "$results/ctest.xml" ;;
    # A file's tests stay together: they share processes, and their order counts.
    e2e) pytest_suite tests/e2e --numprocesses "${E2E_WORKERS:-$(($(nproc) + 1))}" --dist loadfile --no-loadscope-reorder ;;
    crash | histories | torture) pytest_suite "tests/$1" ;;
    client-python) CLIENT_PYTHON_MORE=${CLIENT_PYTHON_MORE-} scripts/test-client-python.sh ;;
    # Both need the runners of all languages.
    client-cross)
      "$python" tests/conformance/run.py --cross-only &&
        "$python" tests/conformance/run.py --postgres --cross-only &&
        "$python" tests/conformance/run.py --postgres --only go --no-cross --match "created with" "two calls" "token of" "is made" &&
        ROLLING_RUNNERS="python go java cpp" pytest_suite tests/torture/test_rolling.py -k every_library
      ;;
    *) "scripts/test-$1.sh" ;;
  esac
}

counted=0
first=() beside=()
for name in "${suites[@]}"; do
  if [[ " ${GATEWAY[*]} " == *" $name "* ]]; then
    counted=1
    first+=("$name")
  else
    beside+=("$name")
  fi
done
# Old reports would count as this run's.
if [ "$counted" = 1 ]; then rm -rf "$results"; fi
mkdir -p "$results/gtest"

# Output, seconds and exit status of each suite: NAME.log, and at its end NAME.end.
logs=$(mktemp -d)
lanes=()
# shellcheck disable=SC2329 # the trap calls it
finish() {
  local lane
  for lane in ${lanes[@]+"${lanes[@]}"}; do kill -TERM -- "-$lane" 2>/dev/null || true; done
  rm -rf "$logs"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# suites_in_turn NAME...: with their output in files
suites_in_turn() {
  local name from status
  for name in "$@"; do
    from=$SECONDS
    status=0
    run_suite "$name" >"$logs/$name.log" 2>&1 </dev/null || status=$?
    echo "$((SECONDS - from)) $status" >"$logs/$name.ending"
    mv "$logs/$name.ending" "$logs/$name.end"
  done
}

# lane NAME...: these suites, beside what else runs. A process group of its own, so that it can be ended with all its children.
lane() {
  set -m
  suites_in_turn "$@" &
  lanes+=("$!")
  set +m
}

declare -A took
# end_of NAME SECONDS STATUS
end_of() {
  took[$1]=$2
  [ "$3" = 0 ] || failures+=("$1")
}

# shown NAME PID: its output as it comes, until it has ended. PID is the lane that runs it.
shown() {
  local log=$logs/$1.log at=0 size alive=1 ended seconds status
  say "Suite $1"
  while :; do
    ended=0
    if [ -f "$logs/$1.end" ]; then ended=1; fi
    size=$(stat -c %s "$log" 2>/dev/null || echo 0)
    if [ "$size" -gt "$at" ]; then
      tail -c "+$((at + 1))" "$log" | head -c "$((size - at))"
      at=$size
    fi
    if [ "$ended" = 1 ] || [ "$alive" = 0 ]; then break; fi
    kill -0 "$2" 2>/dev/null || alive=0 # and look once more
    sleep 0.2
  done
  read -r seconds status <"$logs/$1.end" 2>/dev/null || { seconds=0 status=1; }
  end_of "$1" "$seconds" "$status"
}

alone() {
  local from=$SECONDS status=0
  say "Suite $1"
  run_suite "$1" || status=$?
  end_of "$1" "$((SECONDS - from))" "$status"
}

twice_named=$(printf '%s\n' "${suites[@]}" | sort | uniq -d)
if [ "${TEST_AT_ONCE:-}" = no ] || [ ${#first[@]} = 0 ] || [ ${#beside[@]} = 0 ] || [ -n "$twice_named" ]; then
  for name in "${suites[@]}"; do alone "$name"; done
else
  if [ "${first[0]}" = cpp ]; then
    alone cpp
    first=("${first[@]:1}")
  fi
  if [ ${#first[@]} -gt 1 ] && [ "${first[-1]}" = torture ]; then
    unset 'first[-1]'
    beside+=(torture)
  fi
  if [ ${#first[@]} -gt 0 ]; then lane "${first[@]}"; fi
  lane "${beside[@]}"
  for name in ${first[@]+"${first[@]}"}; do shown "$name" "${lanes[0]}"; done
  for name in "${beside[@]}"; do shown "$name" "${lanes[-1]}"; done
fi

failed=" ${failures[*]:-} "
say "$((${#suites[@]} - ${#failures[@]})) of ${#suites[@]} suites passed"
for name in "${suites[@]}"; do
  word=ok
  if [[ $failed == *" $name "* ]]; then word=FAILED; fi
  note "$(printf '%-6s %-14s %5s s' "$word" "$name" "${took[$name]}")"
done
if [ "$counted" = 1 ]; then
  /usr/bin/python3 scripts/count_tests.py "$results" || failures+=('')
fi
[ ${#failures[@]} -gt 0 ] || exit 0
say "What failed, and how to run that alone"
if [ "$counted" = 1 ]; then /usr/bin/python3 scripts/count_tests.py --failed "$results"; fi
for name in $failed; do note "scripts/test.sh $preset $name"; done
exit 1
