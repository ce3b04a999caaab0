# shellcheck shell=bash
# What the scripts share. Sourced, never run: sets ROOT and TOOLS, puts the tools of build/tools first on PATH.
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TOOLS=$ROOT/build/tools
export PATH="$TOOLS/bin:$PATH"
export GOTOOLCHAIN=local  # never let Go fetch another toolchain by itself

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
note() { printf '    %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# check NAME COMMAND...: all checks run, whichever of them fail; end_checks dies with the names of those that did. SUBJECT is
# what they are about, where the names alone do not tell.
SUBJECT=
failures=()
check() {
  say "${SUBJECT:+$SUBJECT: }$1"
  "${@:2}" || failures+=("$1")
}
end_checks() { [ ${#failures[@]} = 0 ] || die "${SUBJECT:+$SUBJECT: }failed: $(printf '%s; ' "${failures[@]}")"; }

# readme_steps README OLD NEW: performs the commands of its Install section in the current directory, where the path OLD in
# them is NEW. Packages are only looked up: those of Debian that are neither here nor to be had are an error.
readme_steps() {
  local steps=() step text
  text=$("$ROOT/scripts/readme.py" --steps "$1") || return 1
  mapfile -t steps <<<"${text//"$2"/$3}"
  (
    # shellcheck disable=SC2329 # the steps call it
    apt-get() {
      local name
      for name in "${@:3}"; do # after `install -y`
        apt-cache show "$name" >/dev/null 2>&1 || [ -z "$(ls /var/lib/apt/lists/*_Packages* 2>/dev/null)" ] || die "no package $name"
      done
    }
    for step in "${steps[@]}"; do eval "$step" || exit 1; done
  )
}

# start_stage DIRECTORY WORD...: a sandbox and a gateway by tests/support/stage.py with these words; their files, and in `told`
# the line that says where they serve, are in the directory. It sets STAGE, a process that ends with this shell, or by
# end_stage, whose status is the stage's. Ctrl-C does not reach it: it has a session of its own.
start_stage() {
  mkfifo "$1/stdin"
  PYTHONPATH=$ROOT/tests setsid python3 -m support.stage --directory="$1" "${@:2}" <"$1/stdin" >"$1/told" 2>"$1/stage.log" &
  STAGE=$!
  exec 8>"$1/stdin"
  for _ in $(seq 600); do
    if [ -s "$1/told" ]; then return 0; fi
    kill -0 "$STAGE" 2>/dev/null || break
    sleep 0.1
  done
  cat "$1/stage.log" >&2
  return 1
}
end_stage() {
  exec 8>&-
  wait "$STAGE"
}

# with_gateway COMMAND...: the command, with a gateway before the sandbox at USERINTENT_GATEWAY.
with_gateway() {
  local made status=1
  made=$(mktemp -d)
  if start_stage "$made"; then
    USERINTENT_GATEWAY=$(told gateway <"$made/told") "$@" && status=0
  fi
  end_stage || status=1
  rm -rf "$made"
  return "$status"
}

# told NAME...: values of the line of JSON that comes on stdin, a line each.
told() { python3 -c 'import json, sys; told = json.loads(sys.stdin.readline()); print(*(told[name] for name in sys.argv[1:]), sep="\n")' "$@"; }

# twice PATTERN COMMAND...: it succeeds two times, one after the other, and each time says a line of this form (extended regular
# expression); the two lines differ. For `with_gateway`.
twice() {
  local first second
  first=$("${@:2}") && second=$("${@:2}") || return 1
  note "$first"
  note "$second"
  [[ $first =~ ^$1$ && $second =~ ^$1$ && $first != "$second" ]]
}

# quietly COMMAND...: the end of its output, only if it fails.
quietly() {
  local log status=0
  log=$(mktemp)
  "$@" >"$log" 2>&1 || status=$?
  [ "$status" = 0 ] || tail -n 80 "$log" >&2
  rm -f "$log"
  return "$status"
}

# reason LOG: what most likely went wrong, in words; the last line of the log where nothing is known about it.
reason() {
  if grep -qiE 'no space left|not enough free space|disk quota exceeded' "$1"; then
    echo "the disk is full: $(df -hP "$ROOT" /tmp /var 2>/dev/null | awk 'NR > 1 && !seen[$6]++ {printf "%s%s free at %s", sep, $4, $6; sep = ", "}')"
  elif grep -qiE 'could not resolve|temporary failure|name resolution|unable to locate package|has no installation candidate|network is unreachable|no route to host|connection (refused|timed out|reset)|failed to establish|dial tcp|no matching distribution|cannot initiate the connection' "$1"; then
    echo "no network, or the package registry does not answer"
  elif grep -qiE 'could not get lock|unable to acquire the dpkg' "$1"; then
    echo "another apt runs; wait for it and start again"
  elif grep -qiE 'permission denied|are you root|password is required|terminal is required|not in the sudoers' "$1"; then
    echo "not allowed for the user $(id -un)"
  else
    grep -v '^[[:space:]]*$' "$1" | tail -n 1 || true
  fi
}

# patiently WHAT COMMAND...: runs it with its output in a log. A second line tells every ten seconds (PATIENTLY_EVERY) that it
# lives, and what it is at; where it fails, one line tells why and where the log is.
patiently() {
  local what=$1 log pid from=$SECONDS told=$SECONDS status=0
  shift
  log=$(mktemp)
  "$@" >"$log" 2>&1 &
  pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.2
    if [ $((SECONDS - told)) -ge "${PATIENTLY_EVERY:-10}" ]; then
      told=$SECONDS
      note "$what: $((SECONDS - from)) s ... $(tail -n 1 "$log" | tr -d '\r' | cut -c 1-70)"
    fi
  done
  wait "$pid" || status=$?
  if [ "$status" = 0 ]; then
    rm -f "$log"
    return 0
  fi
  die "$what failed: $(reason "$log") (log: $log)"
}

# Output that goes to a file or a log gets no escape codes.
if [ ! -t 1 ] || [ -n "${NO_COLOR:-}" ]; then say() { printf '==> %s\n' "$*"; }; fi
