#!/usr/bin/env bash
# make run: the gateway in front of the sandbox on this machine, with keys made for this run, and one call shown.
# Ctrl-C or SIGTERM stops both; the exit status is then 0. RUN_ONCE=1 ends by itself after the call.
# Everything it makes is in a directory of its own under build/run, removed at the end unless something went wrong.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

BIN=${GATEWAY_BIN_DIR:-build/release/bin}
METHOD=userintent.v1.UserIntentService/CreateUserIntent
for program in userintent-server astra-sandbox; do
  [ -x "$BIN/$program" ] || die "$BIN/$program is missing: run \`make build\`"
done

umask 077
mkdir -p build/run
DIR=$(mktemp -d build/run/XXXXXX)
gateway='' sandbox='' started=$SECONDS

# shellcheck disable=SC2317,SC2329  # called by finish
# stop PID: SIGTERM, then wait for it; what it exited with.
stop() {
  kill -TERM "$1" 2>/dev/null || true
  local status=0
  wait "$1" 2>/dev/null || status=$?
  return "$status"
}

# shellcheck disable=SC2317,SC2329  # called by the traps
finish() {
  local status=$1 drained=0
  trap '' INT TERM HUP
  trap - EXIT
  if [ -n "$gateway" ]; then
    say "Stopping: the gateway drains first, then the sandbox goes"
    stop "$gateway" || drained=$?
    [ "$drained" = 0 ] || { note "the gateway exited with status $drained" >&2; status=1; }
  fi
  [ -z "$sandbox" ] || stop "$sandbox" || true
  if [ "$status" = 0 ]; then
    rm -rf "$DIR"
    note "stopped; nothing is left behind"
  else
    note "logs are kept in $DIR" >&2
    [ ! -s "$DIR/gateway.log" ] || { note "last lines of the gateway's log:"; tail -n 5 "$DIR/gateway.log"; } >&2
  fi
  exit "$status"
}
trap 'finish $?' EXIT
trap 'echo; finish 0' INT TERM HUP

# The programs get a session of their own, so that Ctrl-C reaches this script only and it can stop them in order. Should
# the script be killed, the kernel ends them.
start() { exec setsid setpriv --pdeathsig KILL "$@"; }

# ports WANTED...: a free port of the loopback for each, the wanted one where nobody has it.
ports() {
  /usr/bin/python3 - "$@" <<'PY'
import socket, sys
held = []
for wanted in map(int, sys.argv[1:]):
    for port in (wanted, 0):
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            continue
        held.append(s)
        break
print(*(s.getsockname()[1] for s in held))
PY
}
read -r port metrics_port sandbox_port admin_port <<<"$(ports "${GATEWAY_PORT:-50051}" 9464 8443 8444)"
[ "$port" = "${GATEWAY_PORT:-50051}" ] || note "port ${GATEWAY_PORT:-50051} is taken, so the gateway gets $port"

say "Keys and credentials for this run, in $DIR (0600)"
printf 'client-%s' "$(openssl rand -hex 8)" >"$DIR/client_id"
openssl rand -hex 24 >"$DIR/client_secret"
openssl rand -out "$DIR/ledger.key" 32

say "astra-sandbox, the stand-in for Astra: https://127.0.0.1:$sandbox_port (admin http://127.0.0.1:$admin_port)"
start "$BIN/astra-sandbox" --listen="127.0.0.1:$sandbox_port" --admin_listen="127.0.0.1:$admin_port" --self_signed_dir="$DIR/tls" \
  --client_id_file="$DIR/client_id" --client_secret_file="$DIR/client_secret" >"$DIR/sandbox.out" 2>"$DIR/sandbox.log" &
sandbox=$!
for _ in $(seq 300); do
  [ ! -s "$DIR/sandbox.out" ] || break
  kill -0 "$sandbox" 2>/dev/null || { cat "$DIR/sandbox.log" >&2; sandbox=''; die "the sandbox ended"; }
  sleep 0.05
done
[ -s "$DIR/sandbox.out" ] || die "the sandbox does not serve after 15 s"

say "The gateway: 127.0.0.1:$port (log: $DIR/gateway.log, metrics: http://127.0.0.1:$metrics_port/metrics)"
settings=(--listen="127.0.0.1:$port" --metrics_listen="127.0.0.1:$metrics_port" --ledger="sqlite:$DIR/ledger.db" --ledger_key_file="$DIR/ledger.key"
  --astra_base_url="https://127.0.0.1:$sandbox_port" --astra_ca_file="$DIR/tls/ca.crt"
  --astra_client_id_file="$DIR/client_id" --astra_client_secret_file="$DIR/client_secret")
start "$BIN/userintent-server" "${settings[@]}" 2>"$DIR/gateway.log" &
gateway=$!
ready=
for _ in $(seq 150); do
  if "$BIN/userintent-server" --healthcheck "${settings[@]}" >/dev/null 2>&1; then ready=1; break; fi
  kill -0 "$gateway" 2>/dev/null || { cat "$DIR/gateway.log" >&2; gateway=''; die "the gateway ended"; }
  sleep 0.1
done
[ -n "$ready" ] || die "the gateway is not healthy after 15 s"
note "healthy, $((SECONDS - started)) s after the start"

# An invented person, and a new e-mail address each time: an address has three attempts for ever, in the sandbox too.
uuid=$(cat /proc/sys/kernel/random/uuid)
request=$(cat <<JSON
{
  "request_id": "$uuid",
  "email": "ada.${uuid:0:8}@example.com",
  "phone": "+12025550123",
  "first_name": "Ada",
  "last_name": "Approved",
  "address1": "1 Example Street",
  "city": "Springfield",
  "state": "IL",
  "postal_code": "62701",
  "date_of_birth": "1990-02-28",
  "ssn_last_four": "1234",
  "ip_address": "8.8.8.8"
}
JSON
)
say "One call: CreateUserIntent for an invented person"
printf '%s\n' "$request" | sed 's/^/    /'
# Not `if ! ...`: in it, an interrupted call would count as a failed one.
status=0
answer=$(build/tools/bin/grpcurl -plaintext -max-time 40 -d "$request" "127.0.0.1:$port" "$METHOD" 2>&1) || status=$?
say "The answer"
printf '%s\n' "$answer" | sed 's/^/    /'
[ "$status" = 0 ] || die "the call failed (grpcurl: $status)"

[ "${RUN_ONCE:-}" != 1 ] || exit 0

say "Your turn. The same request_id again gives the same intent, and Astra is not asked twice:"
# One line to paste: the request without its line ends.
printf "\nbuild/tools/bin/grpcurl -plaintext -d '%s' 127.0.0.1:%s %s\n\n" "$(tr -d '\n' <<<"$request" | sed 's/  */ /g')" "$port" "$METHOD"
note "what is recorded about it:"
printf "\nbuild/tools/bin/grpcurl -plaintext -d '{\"request_id\": \"%s\"}' 127.0.0.1:%s userintent.v1.UserIntentService/GetCreation\n\n" "$uuid" "$port"
note "what reached Astra, for a browser: http://127.0.0.1:$admin_port/accounting/summary"
note "Ctrl-C stops the gateway and the sandbox."
# Ends only when the gateway does; a signal breaks the wait and runs the trap.
wait "$gateway" || status=$?
gateway=''
die "the gateway ended by itself with status $status"
