#!/usr/bin/env bash
# Makes client_lib/go/userintentv1/*.pb.go from proto/. With --check it changes nothing and fails when they are stale.
# The plugins are pinned in client_lib/go/tools/go.mod; protoc is Debian's, whose version leaves no trace in the result.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

case ${1:-} in
  '' | --check) ;;
  *) die "usage: generate-go.sh [--check]" ;;
esac
for program in protoc go; do command -v "$program" >/dev/null || die "$program is missing: run \`make deps\`"; done
googleapis=
for dir in "${GOOGLEAPIS_PROTO_DIR:-}" "$TOOLS/googleapis" /usr/lib/python3/dist-packages; do
  if [ -n "$dir" ] && [ -f "$dir/google/rpc/error_details.proto" ]; then googleapis=$dir; break; fi
done
[ -n "$googleapis" ] || die "google/rpc/error_details.proto is missing: run \`make deps\`"

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
(cd client_lib/go/tools && GOFLAGS=-mod=readonly GOWORK=off GOBIN=$out/bin go install tool)

mapfile -t protos < <(cd proto && find userintent/v1 -name '*.proto' | sort)
protoc --plugin="$out/bin/protoc-gen-go" --plugin="$out/bin/protoc-gen-go-grpc" -I proto -I "$googleapis" \
  --go_out="$out" --go_opt=module=example.com/userintent --go-grpc_out="$out" --go-grpc_opt=module=example.com/userintent "${protos[@]}"

# String() of every message becomes the form without personal data (userintentv1/redact.go).
sed -i -e '/^\/\/ [-\t ]*protoc  *v/d' -e 's/return protoimpl\.X\.MessageStringOf(x)/return redacted(x)/' "$out"/userintentv1/*.pb.go
grep -q 'return redacted(x)' "$out"/userintentv1/*.pb.go || die "the generated String() methods look different now"
! grep -n 'MessageStringOf' "$out"/userintentv1/*.pb.go || die "a String() method was not replaced"
gofmt -w "$out"/userintentv1/*.pb.go

committed=client_lib/go/userintentv1
if [ "${1:-}" = --check ]; then
  mkdir "$out/committed"
  cp "$committed"/*.pb.go "$out/committed/" 2>/dev/null || true
  diff -ru "$out/committed" "$out/userintentv1" || die "$committed is stale: run scripts/generate-go.sh and commit what it made"
else
  rm -f "$committed"/*.pb.go
  cp "$out"/userintentv1/*.pb.go "$committed/"
fi
