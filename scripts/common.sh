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

# with_gateway NAME COMMAND...: the command, with a gateway before the sandbox at USERINTENT_GATEWAY. NAME: of the runner.
with_gateway() {
  local made pid status=1
  made=$(mktemp -d)
  "$ROOT/tests/conformance/run.py" --serve "$1" --match "own id" >"$made/plan" &
  pid=$!
  for _ in $(seq 600); do
    [ ! -s "$made/plan" ] || break
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  if [ -s "$made/plan" ]; then
    USERINTENT_GATEWAY=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["clients"]["plain"]["address"])' "$(cat "$made/plan")") &&
      export USERINTENT_GATEWAY && "${@:2}" && status=0
  fi
  kill "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
  rm -rf "$made"
  return "$status"
}

# twice PATTERN COMMAND...: it succeeds two times, one after the other, and each time says a line of this form (extended regular
# expression); the two lines differ. For `with_gateway`.
twice() {
  local first second
  first=$("${@:2}") && second=$("${@:2}") || return 1
  note "$first"
  note "$second"
  [[ $first =~ ^$1$ && $second =~ ^$1$ && $first != "$second" ]]
}

# Output that goes to a file or a log gets no escape codes.
if [ ! -t 1 ] || [ -n "${NO_COLOR:-}" ]; then say() { printf '==> %s\n' "$*"; }; fi
