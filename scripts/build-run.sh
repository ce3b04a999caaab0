#!/usr/bin/env bash
# What `make run` needs and nothing else: server, ledger tool and sandbox, with grpcurl built beside them. Tests, benchmark and
# fuzzers are left to `make build`, which goes on in the same directory.
#   JOBS  compilers at once (all cores)
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

# A build needs about 700 MiB, in build/ and in Go's cache; better said now than by a compiler in the middle.
free=$(df -Pm "$ROOT" | awk 'NR == 2 {print $4}')
if [ ! -x build/release/bin/userintent-server ] && [ "$free" -lt "${BUILD_NEEDS_MIB:-700}" ]; then
  die "the disk is full: $free MiB free at $ROOT, and a build needs ${BUILD_NEEDS_MIB:-700}"
fi
if [ ! -x build/release/bin/userintent-server ]; then
  say "Building the gateway, its ledger tool and the sandbox: two to five minutes on two cores that have nothing else to do"
fi
scripts/deps.sh grpcurl &
grpcurl=$!
stop() { kill "$grpcurl" 2>/dev/null || true; }
trap stop EXIT
if [ ! -f build/release/build.ninja ]; then
  cmake --preset release -DUSERINTENT_TESTS=OFF >build/configure.log || die "cmake failed: $(reason build/configure.log) (log: build/configure.log)"
fi
log=build/run-build.log
build() { cmake --build --preset release -j "${JOBS:-$(nproc)}" -t userintent-server userintent-ledger astra-sandbox 2>&1 | tee "$log"; }
# A terminal sees ninja's own lines. Elsewhere every twentieth is enough, and what is not ninja's.
sparse() {
  local line seen=0
  while IFS= read -r line; do
    if [[ $line == \[* ]] && [ $((++seen % 20)) != 0 ]; then continue; fi
    note "$line"
  done
}
if [ -t 1 ]; then built() { build; }; else built() { build | sparse; }; fi
built || die "the build failed: $(reason "$log") (log: $log)"
wait "$grpcurl" || die "grpcurl could not be built; the line about it is above"
trap - EXIT
