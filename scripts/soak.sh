#!/usr/bin/env bash
# make soak: the crash suite, random histories and the torture of replicas, round after round with new seeds, until
# SOAK_MINUTES (60) have passed or something fails. A failure prints the seed that repeats it; the histories that were wrong are kept in build/soak.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"
end=$((SECONDS + ${SOAK_MINUTES:-60} * 60))
export GATEWAY_BIN_DIR=$ROOT/build/release/bin
export CRASH_ROUNDS=${CRASH_ROUNDS:-50}
export HISTORY_CALLS=${HISTORY_CALLS:-100000}
export HISTORY_KEEP=$ROOT/build/soak
export TORTURE_SECONDS=${TORTURE_SECONDS:-600}
export TORTURE_CALLS=${TORTURE_CALLS:-60000}
export TORTURE_FAILOVERS=${TORTURE_FAILOVERS:-80}
mkdir -p "$HISTORY_KEEP"
round=0
while [ "$SECONDS" -lt "$end" ]; do
  round=$((round + 1))
  say "Soak, round $round, $(((end - SECONDS) / 60)) minutes left"
  for suite in tests/torture tests/histories tests/crash; do
    build/tools/venv/bin/python -m pytest "$suite" -q -x -p no:cacheprovider
  done
done
say "$round rounds without a violation"
