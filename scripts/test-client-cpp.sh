#!/usr/bin/env bash
# Tests the C++ client as users get it: builds it as C++17 and as C++20, runs the unit tests, installs it into a private
# prefix, builds the README's lines against the installed package and runs them against a gateway, and performs the
# conformance scenarios. What is built stays in build/client-cpp, so a second run costs little.
#   CLIENT_CPP_CALLS   calls of the storm with faults (1200)
#   CLIENT_CPP_WORK    directory of what is built (build/client-cpp)
#   CLIENT_CPP_RESULTS directory of the reports, JUnit XML (build/test-results)
#   GATEWAY_BIN_DIR    userintent-server and astra-sandbox (build/release/bin)
#   --prepare          only build and install; tests/conformance/run.py can then run the C++ runner
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"
SUBJECT="C++ client"
export GATEWAY_BIN_DIR=${GATEWAY_BIN_DIR:-$ROOT/build/release/bin}
export CONFORMANCE_STORM_CALLS=${CLIENT_CPP_CALLS:-1200}
work=${CLIENT_CPP_WORK:-$ROOT/build/client-cpp}
export CLIENT_CPP_WORK=$work
results=${CLIENT_CPP_RESULTS:-$ROOT/build/test-results}
prefix=$work/prefix
mkdir -p "$work" "$results"

# configure DIRECTORY SOURCE OPTION...
configure() {
  [ -f "$1/build.ninja" ] || quietly cmake -S "$2" -B "$1" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_CXX_FLAGS_RELWITHDEBINFO="-O1 -g1" "${@:3}"
}

# The library with its tests, the installed package, and the runner that uses the package.
prepare() {
  configure "$work/library" client_lib/cpp -DUSERINTENT_CLIENT_TESTS=ON || return 1
  quietly cmake --build "$work/library" || return 1
  quietly cmake --install "$work/library" --prefix "$prefix" || return 1
  configure "$work/runner" tests/conformance/cpp -DCMAKE_PREFIX_PATH="$prefix" || return 1
  quietly cmake --build "$work/runner"
}

(
  flock 9 # the pass across languages starts runners at once
  [ "${1:-}" = --prepare ] || say "C++ client: build, install"
  prepare || die "the C++ client cannot be built"
) 9>"$work/.lock"
[ "${1:-}" != --prepare ] || exit 0

unit() {
  timeout --kill-after=10 300 "$work/library/tests/userintent_client_test" --gtest_brief=1 --gtest_output="xml:$results/client-cpp.xml"
}

newer() {
  configure "$work/cxx20" client_lib/cpp -DCMAKE_CXX_STANDARD=20 && quietly cmake --build "$work/cxx20" --target userintent_client
}

# One text in two packages.
service_config() { cmp client_lib/cpp/service_config.json client_lib/python/src/userintent/service_config.json; }

# A project of nothing but the README's lines; its first call goes to a real gateway, twice.
readme() {
  local sample=$work/sample
  scripts/readme.py client_lib/cpp/README.md "$sample" || return 1
  configure "$sample/build" "$sample" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_CXX_FLAGS="-Wall -Wextra -Werror" &&
    quietly cmake --build "$sample/build" && "$sample/build/yourservice_test" --gtest_brief=1 &&
    with_gateway twice 'request_id [0-9a-f-]{36}, user intent [^ ]+, new' "$sample/build/yourservice" && refused
}

# refused: an error is told in one line that holds no byte of its binary details.
refused() {
  local said
  ! said=$(USERINTENT_GATEWAY=127.0.0.1:1 "$work/sample/build/yourservice" 2>&1) && note "$said" &&
    [[ $said =~ ^UNAVAILABLE:\ [[:print:]]+\ \(maybe\ sent,\ request_id\ [0-9a-f-]{36},\ tries\ 1\)$ ]]
}

# The README's install steps, up to what the parts above do already: configure with the .proto files that they bring.
install_steps() {
  rm -rf "$work/steps" && mkdir -p "$work/steps" || return 1
  (
    # shellcheck disable=SC2329 # the steps call it
    cmake() { [ "$1" != -S ] || command cmake "$@"; }
    cd "$work/steps" && quietly readme_steps "$ROOT/client_lib/cpp/README.md" client_lib/ "$ROOT/client_lib/"
  )
}

# The library inside another project, and a program with a copy of google/rpc of its own.
inside() {
  local outer=$work/outer
  mkdir -p "$outer"
  cat >"$outer/CMakeLists.txt" <<CMAKE
cmake_minimum_required(VERSION 3.25)
project(outer LANGUAGES CXX)
add_subdirectory($ROOT/client_lib/cpp client)
get_target_property(sources userintent_google_rpc SOURCES)
add_library(own_google_rpc STATIC \${sources})
target_link_libraries(own_google_rpc PRIVATE userintent_google_rpc)
set_source_files_properties(\${sources} PROPERTIES GENERATED TRUE)
add_dependencies(own_google_rpc userintent_google_rpc)
add_executable(outer main.cc)
target_link_libraries(outer PRIVATE own_google_rpc userintent::client own_google_rpc)
CMAKE
  cat >"$outer/main.cc" <<'CC'
#include <google/rpc/status.pb.h>
#include <userintent/client.h>
int main() { return google::rpc::Status().code() == 0 && userintent::NewRequestId().size() == 36 ? 0 : 1; }
CC
  configure "$outer/build" "$outer" && quietly cmake --build "$outer/build" --target outer && "$outer/build/outer"
}

check "unit tests (C++17)" unit
check "builds as C++20" newer
check "service config" service_config
check "README's install steps" install_steps
check "README's lines against the installed package, two runs" readme
check "add_subdirectory, and another google/rpc" inside
check "conformance scenarios" tests/conformance/run.py --only cpp --junit "$results/conformance-cpp.xml"
end_checks
say "C++ client: all passed"
