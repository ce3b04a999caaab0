#!/usr/bin/env bash
# The stack of docker-compose.replicas.yml under load: three gateways restarted in turn, and a failover of the database, while
# callers go on; the sandbox's account is the judge (tests/compose/load.py). Part of make compose-test, and alone:
#   replicas-test.sh [RESULTS]     where replicas.xml and logs go (build/compose-results)
#   REPLICAS_BUILD=0  takes the images as they are;  NOFILE: the limit on descriptors
# A project, ports and volumes of its own.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"
results=${1:-$ROOT/build/compose-results}
mkdir -p "$results"
export COMPOSE_PROJECT_NAME=userintent-replicas-test-$$ COMPOSE_FILE=docker-compose.yml:docker-compose.replicas.yml COMPOSE_ANSI=never
GATEWAY_PORT=$(/usr/bin/python3 -c 'import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])')
export GATEWAY_PORT
readonly LOAD=$COMPOSE_PROJECT_NAME-load

status=1
finish() {
  trap - EXIT
  if [ "$status" != 0 ]; then
    docker compose ps --all || true
    docker compose logs --tail 30 || true
  fi
  docker rm --force "$LOAD" >/dev/null 2>&1 || true
  docker compose --profile test down --volumes --timeout 45 >/dev/null 2>&1 || true
  exit "$status"
}
trap finish EXIT
trap 'exit 143' TERM

report='' failed=0
# case_of_report NAME COMMAND...: one test case in the report
case_of_report() {
  if "${@:2}"; then
    note "ok      $1"
    report+="<testcase classname=\"replicas\" name=\"$1\"/>"
  else
    failed=$((failed + 1))
    note "FAILED  $1"
    report+="<testcase classname=\"replicas\" name=\"$1\"><failure/></testcase>"
  fi
}

# begin_load OPTION...; calls_go_on N: as many more creations have ended; end_load: whether nothing was wrong
begin_load() {
  docker rm --force "$LOAD" >/dev/null 2>&1 || true
  docker compose run --detach --name "$LOAD" --entrypoint "/suite/venv/bin/python /suite/tests/compose/load.py" integration "$@" >/dev/null 2>&1
}
ended() { docker logs --tail 1 "$LOAD" 2>/dev/null | sed -n 's/^ended \([0-9]*\)$/\1/p'; }
calls_go_on() {
  local from now
  from=$(ended)
  for _ in $(seq 120); do
    now=$(ended)
    if [ "${now:-0}" -ge $((${from:-0} + $1)) ]; then return 0; fi
    [ "$(docker inspect -f '{{.State.Running}}' "$LOAD" 2>/dev/null)" = true ] || break
    sleep 1
  done
  note "the load does not go on; it says:"
  docker logs --tail 20 "$LOAD" 2>&1 | sed 's/^/    /'
  return 1
}
end_load() {
  local code
  docker kill --signal TERM "$LOAD" >/dev/null
  code=$(timeout 300 docker wait "$LOAD") || code=none
  docker logs "$LOAD" 2>&1 | grep -v '^ended ' | sed 's/^/    /'
  [ "$code" = 0 ]
}
up() { docker compose up --detach --wait --wait-timeout 120 "$@" 2>>"$results/replicas-up.log"; }

rolling_restart() {
  local number
  begin_load --no-unknown && calls_go_on 50 || return 1
  for number in 1 2 3; do
    docker compose stop --timeout 45 "gateway-$number" 2>/dev/null && calls_go_on 50 && up "gateway-$number" && calls_go_on 50 || return 1
  done
  end_load
}
sql() { docker compose exec -T "$1" postgres.sh sql "$2"; }
in_sync() { [ "$(sql "$1" "SELECT sync_state FROM pg_stat_replication")" = quorum ]; }
# fail_over DEAD HEIR: the primary is killed, the standby takes over, and the old primary follows it.
fail_over() {
  docker compose kill "$1" 2>/dev/null && docker compose exec -T "$2" postgres.sh promote >/dev/null && up "$1" && in_sync "$2"
}
failovers() {
  begin_load --seconds-per-call 120 && calls_go_on 50 &&
    fail_over pg-a pg-b && calls_go_on 100 && fail_over pg-b pg-a && calls_go_on 100 && end_load
}
over_tls() { [ "$(sql pg-a "SELECT bool_and(ssl AND version = 'TLSv1.3') AND count(*) >= 6 FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'userintent'")" = t ]; }
# With another authority's certificate, or another's name, nobody gets in: verify-full asks for both.
name_is_checked() {
  local said
  said=$(docker compose exec -T -e PGHOSTADDR="$(docker inspect -f '{{range $name, $net := .NetworkSettings.Networks}}{{$net.IPAddress}}{{end}}' "$(docker compose ps -q pg-a)")" \
    pg-b sh -c 'PGSSLMODE=verify-full PGSSLROOTCERT=/secrets/postgres/ca.crt psql -h pg-b -U replicator -d postgres -c "SELECT 1"' 2>&1) && return 1
  grep -q 'does not match host name' <<<"$said"
}
one_call_was_shown() { local out; out=$(docker compose logs --no-log-prefix demo 2>/dev/null) && grep -q '"status": "USER_INTENT_STATUS_PENDING"' <<<"$out"; }

if [ "${REPLICAS_BUILD:-1}" != 0 ]; then docker compose --profile test build --quiet gateway pg-a gateway-1 astra-sandbox certs integration; fi
say "Start: PostgreSQL and its standby, three gateways, load balancer"
up || { cat "$results/replicas-up.log"; die "the stack did not come up"; }
case_of_report "up --wait has shown a call" one_call_was_shown
case_of_report "gateways speak to the database over TLS 1.3" over_tls
case_of_report "a database of another name is refused" name_is_checked
say "Gateways restarted in turn"
case_of_report "no call fails, no outcome is unknown" rolling_restart
say "The primary killed, the standby promoted, twice"
case_of_report "calls go on, and each is sent once" failovers
echo "<testsuite name=\"replicas\">$report</testsuite>" >"$results/replicas.xml"
[ "$failed" != 0 ] || status=0
