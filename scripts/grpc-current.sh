#!/usr/bin/env bash
# make grpc-current: the server and the C++ unit tests, built and run on the gRPC of the image (Debian 13 with gRPC of Debian
# experimental), in a container, where there is no Go and nothing of Go is built. What the compiler made is kept in
# build/grpc-current.
#   JOBS (nproc)
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"
docker version >/dev/null 2>&1 || die "needs Docker"
mkdir -p build/grpc-current
say "Image with the compiler and the current gRPC"
docker build --quiet --target current --tag userintent-grpc-current . >/dev/null
say "Build and test"
docker run --rm --init --user "$(id -u):$(id -g)" --env HOME=/tmp --env CCACHE_DIR=/out/ccache --env CTEST_OUTPUT_ON_FAILURE=1 \
  --env JOBS="${JOBS:-$(nproc)}" \
  --volume "$ROOT:/src:ro" --volume "$ROOT/build/grpc-current:/out" --workdir /src userintent-grpc-current \
  sh -euc '
    cmake -G Ninja -S /src -B /out/build -DCMAKE_BUILD_TYPE=RelWithDebInfo "-DCMAKE_CXX_FLAGS_RELWITHDEBINFO=-O2 -g1 -DNDEBUG" \
      -DUSERINTENT_TESTS=ON -DUSERINTENT_UNITY=ON -DUSERINTENT_SANDBOX=OFF -DGO=/bin/false \
      >/out/cmake.log 2>&1 || { tail -n 40 /out/cmake.log; exit 1; }
    ninja -j "$JOBS" -C /out/build userintent-server userintent-ledger unit-tests
    ctest --test-dir /out/build --label-regex unit --parallel "$JOBS"'
