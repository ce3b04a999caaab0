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

# Output that goes to a file or a log gets no escape codes.
if [ ! -t 1 ] || [ -n "${NO_COLOR:-}" ]; then say() { printf '==> %s\n' "$*"; }; fi
