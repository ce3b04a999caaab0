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
STAGE='' started=$SECONDS

# shellcheck disable=SC2317,SC2329  # called by the traps
finish() {
  local status=$1 drained=0
  trap '' INT TERM HUP
  trap - EXIT
  if [ -n "$STAGE" ]; then
    say "Stopping: the gateway drains first, then the sandbox goes"
    end_stage || drained=$?
    [ "$drained" = 0 ] || { cat "$DIR/stage.log" >&2; status=1; }
  fi
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

say "astra-sandbox, the stand-in for Astra: https://127.0.0.1:$sandbox_port (admin http://127.0.0.1:$admin_port)"
say "The gateway: 127.0.0.1:$port (log: $DIR/gateway.log, metrics: http://127.0.0.1:$metrics_port/metrics)"
note "its keys and its ledger, made for this run, are there, too (0600)"
start_stage "$DIR" --sandbox="listen=127.0.0.1:$sandbox_port" --sandbox="admin_listen=127.0.0.1:$admin_port" \
  --gateway="listen=127.0.0.1:$port" --gateway="metrics_listen=127.0.0.1:$metrics_port" \
  --gateway="oauth_redirect_uri=http://localhost:8000/astra/done" || { STAGE=''; die "they do not serve"; }
note "both serve, $((SECONDS - started)) s after the start"

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
# Ends only when one of them does; a signal breaks the wait and runs the trap.
wait "$STAGE" || status=$?
STAGE=''
cat "$DIR/stage.log" >&2
die "the gateway or the sandbox ended by itself (status $status)"
