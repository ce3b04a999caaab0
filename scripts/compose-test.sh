#!/usr/bin/env bash
# make compose-test: builds the images, starts the stack, and runs against it the demo, the integration suite, the
# conformance scenarios with the four client libraries, and checks of the containers themselves. A project, port and volumes of its own: a stack that is up already is left alone.
# Reports (JUnit XML) go to build/compose-results.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"
docker compose version >/dev/null 2>&1 || die "needs Docker with compose v2"
export COMPOSE_PROJECT_NAME=userintent-test-$$ COMPOSE_ANSI=never
GATEWAY_PORT=$(/usr/bin/python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
REQUEST_ID=$(cat /proc/sys/kernel/random/uuid)
export GATEWAY_PORT REQUEST_ID
results=$ROOT/build/compose-results
rm -rf "$results"
mkdir -p "$results"
chmod 0777 "$results"  # the suite writes its report as a user of its own

status=1
finish() {
  trap - EXIT
  if [ "$status" != 0 ]; then
    docker compose --profile test ps --all || true
    docker compose logs --tail 40 || true
  fi
  docker compose --profile test down --volumes --timeout 40 >/dev/null 2>&1 || true
  exit "$status"
}
trap finish EXIT

report=''
passed=0 failed=0
# check NAME COMMAND...: one line in the report
check() {
  local name=$1
  shift
  if "$@"; then
    passed=$((passed + 1))
    note "ok      $name"
    report+="<testcase classname=\"compose\" name=\"$name\"/>"
  else
    failed=$((failed + 1))
    note "FAILED  $name"
    report+="<testcase classname=\"compose\" name=\"$name\"><failure/></testcase>"
  fi
}

say "Images"
docker compose --profile test build --quiet
say "Start: keys, sandbox, gateway (on port $GATEWAY_PORT)"
docker compose up --detach --wait --wait-timeout 120 gateway 2>"$results/up.log" || { cat "$results/up.log"; die "the stack did not come up"; }

in_gateway() { docker compose exec -T gateway "$@" 2>/dev/null; }
demo() { timeout 120 docker compose run --rm -T demo 2>/dev/null; }
demo_shows_an_intent() { local out; out=$(demo) && grep -Eq '"(userIntent|user_intent)"' <<<"$out"; }
demo_is_a_replay() { local out; out=$(demo) && grep -q '"replayed": true' <<<"$out"; }
unprivileged() { [ "$(in_gateway id -u)" = 10001 ] && in_gateway grep -q '^CapBnd:[[:space:]]*0*$' /proc/1/status && in_gateway grep -q '^NoNewPrivs:[[:space:]]*1$' /proc/1/status; }
read_only() { ! in_gateway sh -c 'touch /usr/local/bin/x || touch /etc/x'; }
secrets_private() { [ -z "$(in_gateway find /secrets/gateway /var/lib/userintent -type f -perm /077)" ]; }
restart() { docker compose restart --timeout 40 gateway 2>/dev/null && docker compose up --detach --wait --wait-timeout 60 gateway 2>/dev/null; }
exits_0_on_sigterm() { docker compose stop --timeout 40 gateway 2>/dev/null && [ "$(docker inspect -f '{{.State.ExitCode}}' "$(docker compose ps -aq gateway)")" = 0 ]; }
suite() { timeout 600 docker compose run --rm -T -v "$results:/results" "$@" --junitxml /results/integration.xml 2>"$results/suite.log"; }
conformance() { timeout 900 docker compose run --rm -T -v "$results:/results" conformance --junit /results/conformance.xml 2>"$results/conformance.log"; }

check "one call is shown" demo_shows_an_intent
check "the gateway runs without privileges" unprivileged
check "its root file system is read only" read_only
check "its keys and its ledger are its own" secrets_private
check "the port is published on this machine" timeout 5 bash -c ": </dev/tcp/127.0.0.1/$GATEWAY_PORT"
check "the gateway restarts" restart
check "the same request is a replay after the restart" demo_is_a_replay
say "Integration suite"
suite -e DEMO_REQUEST_ID="$REQUEST_ID" integration || { cat "$results/suite.log"; failed=$((failed + 1)); }
say "Conformance scenarios: Go, Python, Java and C++"
conformance || { cat "$results/conformance.log"; failed=$((failed + 1)); }
check "the gateway exits with 0 on SIGTERM" exits_0_on_sigterm

echo "<testsuite name=\"compose\">$report</testsuite>" >"$results/compose.xml"
say "compose: $(/usr/bin/python3 scripts/count_tests.py "$results" || true)"
[ "$failed" = 0 ] && [ -s "$results/integration.xml" ] && [ -s "$results/conformance.xml" ] && status=0
