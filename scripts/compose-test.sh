#!/usr/bin/env bash
# make compose-test: builds the images, starts the stack, and runs against it the demo, the integration suite, the
# conformance scenarios with the four client libraries, and checks of the containers themselves; and README's first command on a
# bare Debian. Projects, ports and volumes of its own: a stack that is up already is left alone.
#   compose-test.sh images   builds the images and does no more
#   COMPOSE_BARE=0           leaves out the bare Debian, which builds everything from nothing
# What mostly waits goes side by side: the conformance scenarios as two halves of the runners, each with a stack of its own, the
# replicas (replicas-test.sh), and the bare Debian, which takes only the processor time that nobody else wants.
# Reports (JUnit XML) go to build/compose-results.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"
docker compose version >/dev/null 2>&1 || die "needs Docker with compose v2"
images() {
  say "Images"
  docker compose --profile test build --quiet
  COMPOSE_FILE=docker-compose.yml:docker-compose.replicas.yml docker compose build --quiet gateway pg-a
}
if [ "${1:-}" = images ]; then
  images
  exit
fi
export COMPOSE_PROJECT_NAME=userintent-test-$$ COMPOSE_ANSI=never
read -r GATEWAY_PORT METRICS_PORT OTHER_PORT OTHER_METRICS_PORT < <(/usr/bin/python3 -c 'import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
print(*(s.getsockname()[1] for s in held))')
readonly BARE=$COMPOSE_PROJECT_NAME-bare
REQUEST_ID=$(cat /proc/sys/kernel/random/uuid)
export GATEWAY_PORT METRICS_PORT REQUEST_ID
export UPSTREAM_BREAKER=false  # as tests/conformance/scenarios.json has it
# An engine that is itself limited cannot give a container more than it has.
NOFILE=$(docker run --rm --network none --entrypoint "" debian:trixie-slim sh -c 'ulimit -Hn')
if [ "$NOFILE" = unlimited ] || [ "$NOFILE" -gt 65536 ]; then NOFILE=65536; fi
export NOFILE
results=$ROOT/build/compose-results
rm -rf "$results"
mkdir -p "$results"
chmod 0777 "$results"  # the suite writes its report as a user of its own

# Two stacks of the same images, and everything else of their own.
this=(docker compose)
other=(env "COMPOSE_PROJECT_NAME=$COMPOSE_PROJECT_NAME-other" "GATEWAY_PORT=$OTHER_PORT" "METRICS_PORT=$OTHER_METRICS_PORT" docker compose)

status=1 replicas_pid=
finish() {
  trap - EXIT
  [ -z "$replicas_pid" ] || { kill "$replicas_pid" && wait "$replicas_pid"; } 2>/dev/null || true
  docker rm --force "$BARE" >/dev/null 2>&1 || true
  if [ "$status" != 0 ]; then
    docker compose --profile test ps --all || true
    docker compose logs --tail 40 || true
  fi
  "${other[@]}" --profile test down --volumes --timeout 45 >/dev/null 2>&1 &
  docker compose --profile test down --volumes --timeout 45 >/dev/null 2>&1 || true
  wait
  exit "$status"
}
trap finish EXIT

report=''
passed=0 failed=0
# case_of_report NAME COMMAND...: one test case in the report
case_of_report() {
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

# A Debian with nothing, whose own gRPC is 1.51: README's first command as it stands, in a copy of what git knows. What compilers made is kept for the
# next time, in a volume of its own. The smallest share of the processor that an engine gives, while others want it.
run_bare() {
  git ls-files -z --cached --others --exclude-standard | tar --null -T - -c |
    timeout --kill-after=30 2000 docker run --rm -i --name "$BARE" --cpu-shares 2 -v userintent-bare-cache:/root/.cache debian:trixie-slim \
      sh -c 'mkdir /gateway && cd /gateway && tar -x && RUN_ONCE=1 ./run && make help' >"$results/bare.log" 2>&1
}

images
if [ "${COMPOSE_BARE:-1}" != 0 ]; then
  run_bare &
  bare_pid=$!
fi
say "Start: keys, sandbox, gateway (on port $GATEWAY_PORT)"
docker compose up --detach --wait --wait-timeout 120 2>"$results/up.log" || { cat "$results/up.log"; die "the stack did not come up"; }

# The gateway's image has no shell: what is asked of the running container, another one beside it looks up, in the same process
# namespace and with the same volumes.
gateway_id() { docker compose ps -q gateway; }
beside_gateway() {
  local id
  id=$(gateway_id)
  docker run --rm --network none --user 0:0 --pid "container:$id" --volumes-from "$id:ro" --entrypoint "" userintent-tools "$@" 2>/dev/null
}
demo() { timeout 120 docker compose run --rm -T demo once 2>/dev/null; }
demo_shows_an_intent() { local out; out=$(demo) && grep -Eq '"(userIntent|user_intent)"' <<<"$out"; }
demo_is_a_replay() { local out; out=$(demo) && grep -q '"replayed": true' <<<"$out"; }
unprivileged() {
  local status
  status=$(beside_gateway cat /proc/1/status) &&
    grep -Eq '^Uid:[[:space:]]+10001[[:space:]]+10001[[:space:]]+10001[[:space:]]+10001$' <<<"$status" &&
    grep -Eq '^Groups:[[:space:]]*(10001)?[[:space:]]*$' <<<"$status" &&
    grep -q '^CapBnd:[[:space:]]*0*$' <<<"$status" && grep -q '^CapEff:[[:space:]]*0*$' <<<"$status" &&
    grep -q '^NoNewPrivs:[[:space:]]*1$' <<<"$status" && grep -q '^Seccomp:[[:space:]]*2$' <<<"$status"
}
limited() { grep -Eq "^Max open files +$NOFILE +$NOFILE " < <(beside_gateway cat /proc/1/limits); }
# As the program sees it: its root is mounted read only, and nothing can be put there from outside either.
read_only() {
  local id
  id=$(gateway_id)
  grep -Eq '^[^ ]+ [^ ]+ [^ ]+ / / ro[, ]' < <(docker run --rm --network none --user 0:0 --cap-add SYS_PTRACE --pid "container:$id" \
    --entrypoint "" userintent-tools cat /proc/1/mountinfo 2>/dev/null) && ! docker cp -q README.md "$id:/usr/local/bin/x" 2>/dev/null
}
secrets_private() {
  local found
  found=$(beside_gateway find /secrets/gateway /var/lib/userintent -type f) && grep -q . <<<"$found" &&
    [ -z "$(beside_gateway find /secrets/gateway /var/lib/userintent -type f -perm /077)" ]
}
# No shell, no package manager, no interpreter, nothing that changes the user; and every file of the bill of materials is there
# with its sum, and no program or library beside them.
minimal() { docker export "$(gateway_id)" | /usr/bin/python3 tests/compose/image_content.py; }
current_grpc() {
  local got
  got=$(metrics | sed -n 's/^userintent_build_info{.*grpc="\([0-9.]*\)".*/\1/p') && note "gRPC $got" &&
    [ "$(printf '%s\n' 1.83 "$got" | sort -V | head -n 1)" = 1.83 ]
}
# The integration suite sends bad headers with this word in their values; libgrpc prints such values where it is let.
stderr_is_clean() {
  local log
  log=$(docker logs "$(gateway_id)" 2>&1) && grep -q '"event":"grpc"' <<<"$log" && ! grep -qi 'canaryword' <<<"$log" &&
    ! grep -qv '^{.*}$' <<<"$log"  # compose would put codes of a terminal between the lines
}
# Neither a person of the suite nor a secret, however it is written.
nobody_in_its_log() { docker logs "$(gateway_id)" 2>&1 | "$TOOLS/venv/bin/python" tests/compose/no_canaries.py; }
restart() { docker compose restart --timeout 45 gateway 2>/dev/null && docker compose up --detach --wait --wait-timeout 60 gateway 2>/dev/null; }
exits_0_on_sigterm() { docker compose stop --timeout 45 gateway 2>/dev/null && [ "$(docker inspect -f '{{.State.ExitCode}}' "$(docker compose ps -aq gateway)")" = 0 ]; }
suite() { timeout 600 docker compose run --rm -T -v "$results:/results" "$@" --junitxml /results/integration.xml 2>"$results/suite.log"; }
other_is_up() { "${other[@]}" up --detach --wait --wait-timeout 120 astra-sandbox gateway 2>"$results/other-up.log"; }
# scenarios NAME SECONDS COMPOSE... -- ARGUMENT...: one container `conformance` of a stack, and its report by this name
scenarios() {
  local name=$1 seconds=$2 compose=()
  shift 2
  while [ "$1" != -- ]; do compose+=("$1"); shift; done
  timeout --kill-after=30 "$seconds" "${compose[@]}" run --rm -T -v "$results:/results" conformance --junit "/results/conformance-$name.xml" "${@:2}" \
    2>"$results/conformance-$name.log" </dev/null
}
# A stack's runners go one after the other; what the halves say is shown one after the other, too.
conformance() {
  local pid status=0
  scenarios other 900 "${other[@]}" -- --no-cross --jobs 1 --only java-async python >"$results/other.out" &
  pid=$!
  scenarios this 900 "${this[@]}" -- --no-cross --jobs 1 --only cpp go java-blocking || status=1
  wait "$pid" || status=1
  cat "$results/other.out"
  scenarios cross 300 "${this[@]}" -- --cross-only || status=1
  return "$status"
}

# The line of docs/grpcurl.md that copies a caller's keys out, as it stands there.
keys_are_copied_out() {
  rm -rf build/keys
  local line
  line=$(grep -F 'docker compose run --rm -T keys' docs/grpcurl.md) && bash -c "${line#\$ }" 2>/dev/null && [ -s build/keys/client.key ]
}
host_call() {
  "$TOOLS/bin/grpcurl" -cacert build/keys/ca.crt -cert build/keys/client.crt -key build/keys/client.key "localhost:$GATEWAY_PORT" \
    grpc.health.v1.Health/Check | grep -q SERVING
}
stranger_call() { ! "$TOOLS/bin/grpcurl" -connect-timeout 5 -cacert build/keys/ca.crt "localhost:$GATEWAY_PORT" grpc.health.v1.Health/Check 2>/dev/null; }
metrics() { /usr/bin/python3 -c 'import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())' "http://127.0.0.1:$METRICS_PORT/metrics"; }
# Read to the end: a pipe that grep leaves at its first match fails the command before it.
metrics_are_scraped() { local out; out=$(metrics) && grep -q '^userintent_ledger_writable 1$' <<<"$out"; }
up_has_shown_a_call() { local out; out=$(docker compose logs --no-log-prefix demo 2>/dev/null) && grep -q '"status": "USER_INTENT_STATUS_PENDING"' <<<"$out"; }
up_again_ends_with_0() { docker compose up --detach --wait --wait-timeout 60 2>/dev/null; }
one_grace_period() {
  [ "$(docker compose config 2>/dev/null | sed -n 's/^ *stop_grace_period: //p' | sort -u)" = 45s ] && grep -q 'a grace period of 45 s' docs/operations.md
}

bare_debian() {
  wait "$bare_pid" && grep -q 'apt: installing make' "$results/bare.log" && grep -q '"status": "USER_INTENT_STATUS_PENDING"' "$results/bare.log" && return 0
  tail -n 40 "$results/bare.log"
  return 1
}

case_of_report "up --wait has ended with 0 and shown a call" up_has_shown_a_call
case_of_report "up --wait ends with 0 again" up_again_ends_with_0
case_of_report "one more call is shown" demo_shows_an_intent
case_of_report "a caller's keys are copied out by the documented command" keys_are_copied_out
case_of_report "the published port is called from this machine with them" host_call
case_of_report "and not without them" stranger_call
case_of_report "metrics are scraped from this machine" metrics_are_scraped
case_of_report "one grace period everywhere" one_grace_period
case_of_report "the gateway runs without privileges" unprivileged
case_of_report "its descriptors are limited where docker-compose.yml says" limited
case_of_report "its root file system is read only" read_only
case_of_report "its image holds what the bill of materials lists, and no shell" minimal
case_of_report "it stands on a current gRPC" current_grpc
case_of_report "its keys and its ledger are its own" secrets_private
case_of_report "the gateway restarts" restart
case_of_report "the same request is a replay after the restart" demo_is_a_replay
say "Integration suite"
suite -e DEMO_REQUEST_ID="$REQUEST_ID" integration || { cat "$results/suite.log"; failed=$((failed + 1)); }
case_of_report "no value of a bad header is in its log, and every line is JSON" stderr_is_clean
case_of_report "no person of the suite is in it, however written" nobody_in_its_log
REPLICAS_BUILD=0 scripts/replicas-test.sh "$results" >"$results/replicas.log" 2>&1 </dev/null &
replicas_pid=$!
say "Conformance scenarios: Go, Python, Java and C++"
case_of_report "a second stack comes up beside" other_is_up
conformance || { cat "$results"/conformance-*.log; failed=$((failed + 1)); }
case_of_report "the gateway exits with 0 on SIGTERM" exits_0_on_sigterm
say "Three gateways on PostgreSQL, which ran beside the scenarios"
wait "$replicas_pid" || failed=$((failed + 1))
replicas_pid=
cat "$results/replicas.log"
if [ "${COMPOSE_BARE:-1}" != 0 ]; then
  say "README's first command on a bare Debian, which ran beside all of it"
  case_of_report "./run on a bare Debian ends with a call" bare_debian
fi

echo "<testsuite name=\"compose\">$report</testsuite>" >"$results/compose.xml"
say "compose: $(/usr/bin/python3 scripts/count_tests.py "$results" || true)"
[ "$failed" = 0 ] && [ -s "$results/integration.xml" ] && [ -s "$results/conformance-this.xml" ] && [ -s "$results/conformance-other.xml" ] &&
  [ -s "$results/conformance-cross.xml" ] && [ -s "$results/replicas.xml" ] && status=0
