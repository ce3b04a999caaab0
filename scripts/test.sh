#!/usr/bin/env bash
# make test-gateway: every C++ test program by ctest, then the end-to-end, crash and history suites by pytest; all run even if
# one fails. The last line counts all. Reports (JUnit XML) are left in build/test-results/PRESET.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"
preset=${1:-release}
results=$ROOT/build/test-results/$preset
rm -rf "$results"
mkdir -p "$results/gtest"

say "C++ tests ($preset)"
GTEST_OUTPUT=xml:$results/gtest/ ctest --preset "$preset" --output-junit "$results/ctest.xml" || failures+=(ctest)

if [ "$preset" = release ]; then
  # suite NAME DIRECTORY: one pytest suite against the real programs
  suite() {
    say "$1"
    GATEWAY_BIN_DIR=$ROOT/build/$preset/bin build/tools/venv/bin/python -m pytest "$2" -q -p no:cacheprovider \
      --junitxml "$results/$(basename "$2").xml" || failures+=("$2")
  }
  suite "End-to-end tests" tests/e2e
  suite "kill -9 at every crash point" tests/crash
  suite "Random histories" tests/histories
fi
/usr/bin/python3 scripts/count_tests.py "$results" || failures+=(count)
end_checks
