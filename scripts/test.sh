#!/usr/bin/env bash
# make test: the suites one after the other; all run, whichever of them fail. The end tells what failed and the command that
# runs that alone. Reports (JUnit XML) are left in build/test-results; those of PRESET (release) are counted.
#   test.sh [PRESET] [SUITE ...]   suites, or `gateway`, `clients` for several; all, where none is named
#   test.sh --list                 what suites there are
#   TEST_RESULTS                   directory of the reports (build/test-results)
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"
# In the order in which they run.
readonly GATEWAY=(cpp e2e crash histories) CLIENTS=(client-python client-go client-java client-cpp client-cross)
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

# pytest_suite DIRECTORY: against the real programs
pytest_suite() {
  GATEWAY_BIN_DIR=$ROOT/build/$preset/bin "$python" -m pytest "$1" -q -p no:cacheprovider --junitxml "$results/$(basename "$1").xml"
}

run_suite() {
  # The test of this script puts programs of its own in place of the suites.
  if [ -n "${TEST_SUITES_DIR:-}" ]; then
    "$TEST_SUITES_DIR/$1"
    return
  fi
  case $1 in
    cpp) GTEST_OUTPUT=xml:$results/gtest/ ctest --preset "$preset" --output-junit "$results/ctest.xml" ;;
    e2e | crash | histories) pytest_suite "tests/$1" ;;
    client-python) CLIENT_PYTHON_MORE=${CLIENT_PYTHON_MORE-} scripts/test-client-python.sh ;;
    client-cross) "$python" tests/conformance/run.py --cross-only ;;
    *) "scripts/test-$1.sh" ;;
  esac
}

counted=0
for name in "${suites[@]}"; do
  if [[ " ${GATEWAY[*]} " == *" $name "* ]]; then counted=1; fi
done
# Old reports would count as this run's.
if [ "$counted" = 1 ]; then rm -rf "$results"; fi
mkdir -p "$results/gtest"
declare -A took
for name in "${suites[@]}"; do
  say "Suite $name"
  from=$SECONDS
  run_suite "$name" || failures+=("$name")
  took[$name]=$((SECONDS - from))
done

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
