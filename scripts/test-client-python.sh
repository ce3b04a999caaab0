#!/usr/bin/env bash
# Tests the Python client as users get it: builds the wheel, installs it in clean environments with the oldest and the
# newest gRPC and protobuf that it allows, and runs mypy, the unit tests and the conformance scenarios with both clients.
#   CLIENT_PYTHON_CALLS   calls of the storm with faults, for each client and environment (1200)
#   CLIENT_PYTHON         the Python to use (build/tools/venv's, else python3)
#   CLIENT_PYTHON_MORE    further Pythons for the unit tests; those of python3.9 ... python3.13 that are there, if unset
#   CLIENT_PYTHON_RESULTS directory of the reports, JUnit XML (build/test-results/client-python)
#   GATEWAY_BIN_DIR       userintent-server and astra-sandbox (build/release/bin)
#   --prepare             only build and install; tests/conformance/run.py can then run the Python runner
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"
SUBJECT="Python client"
python=${CLIENT_PYTHON:-$TOOLS/venv/bin/python}
[ -x "$python" ] || python=$(command -v python3) || die "no python3"
export GATEWAY_BIN_DIR=${GATEWAY_BIN_DIR:-$ROOT/build/release/bin}
export CONFORMANCE_STORM_CALLS=${CLIENT_PYTHON_CALLS:-1200}
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
work=$ROOT/build/client-python
results=${CLIENT_PYTHON_RESULTS:-$ROOT/build/test-results/client-python}
mkdir -p "$work" "$results"
minor() { "$1" -c 'import sys; print(sys.version_info[1])'; }

# The sources that decide about the wheel; while they stay, so do the environments.
stamp=$({ "$python" -V; git ls-files --cached --others --exclude-standard client_lib/python proto | sort | xargs sha256sum; cat scripts/test-client-python.sh; } | sha256sum)

# environment NAME PYTHON oldest|newest (called where set -e does not act)
environment() {
  local name=$1 base=$2 age=$3 pins=()
  [ "$(cat "$work/$name/.stamp" 2>/dev/null)" != "$stamp $age" ] || return 0
  rm -rf "${work:?}/$name"
  "$base" -m venv "$work/$name" || return 1
  if [ "$age" = oldest ]; then
    # What pyproject.toml says, at its lower ends.
    pins=("protobuf==4.25.0" "googleapis-common-protos==1.62.0")
    if [ "$(minor "$base")" -lt 13 ]; then pins+=("grpcio==1.60.0"); else pins+=("grpcio==1.66.2"); fi
  fi
  "$work/$name/bin/pip" install --quiet --upgrade-strategy eager "$wheel" "${pins[@]}" pytest || return 1
  "$work/$name/bin/pip" check >/dev/null || return 1
  note "$name: Python 3.$(minor "$base"), $("$work/$name/bin/pip" list --format freeze | grep -E '^(grpcio|protobuf|googleapis-common-protos)==' | paste -sd ' ')"
  echo "$stamp $age" >"$work/$name/.stamp"
}

say "Python client: wheel"
if [ "$(cat "$work/.wheel" 2>/dev/null)" != "$stamp" ]; then
  rm -rf "$work/dist" "$work/src"
  # Built from a copy through the source distribution, so that the wheel holds what a user's own build would.
  mkdir -p "$work/src/client_lib"
  cp -r proto "$work/src/proto"
  git ls-files --cached --others --exclude-standard client_lib/python | while read -r file; do install -D -m 0644 "$file" "$work/src/$file"; done
  "$python" -m venv --clear "$work/build"
  "$work/build/bin/pip" install --quiet build
  "$work/build/bin/python" -m build --outdir "$work/dist" "$work/src/client_lib/python" >"$work/build.log" 2>&1 || { tail -n 30 "$work/build.log"; die "the wheel cannot be built"; }
  echo "$stamp" >"$work/.wheel"
fi
wheel=$(ls "$work"/dist/userintent-*.whl)
environment oldest "$python" oldest
environment newest "$python" newest
[ "${1:-}" != --prepare ] || exit 0

if [ ! -x "$work/lint/bin/mypy" ]; then
  "$python" -m venv "$work/lint"
  "$work/lint/bin/pip" install --quiet mypy==2.4.1 types-protobuf==7.35.1.20260906 types-grpcio==1.85.0.20261028
fi
types() {
  local site
  site=$("$work/newest/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  rm -rf "$work/types"
  mkdir -p "$work/types"
  ln -s "$site/userintent" "$work/types/userintent"
  scripts/readme.py client_lib/python/README.md "$work/types" && sed -i 's/def main():/def main() -> None:/' "$work"/types/*.py || return 1
  (cd "$work/types" && "$work/lint/bin/mypy" --config-file "$ROOT/client_lib/python/pyproject.toml" &&
    "$work/lint/bin/mypy" --config-file "$ROOT/client_lib/python/pyproject.toml" ./*.py)
}
check "mypy --strict, the package and the README's lines" types

unit() { (cd client_lib/python/tests && "$work/$1/bin/python" -m pytest -q -p no:cacheprovider --junitxml "$results/unit-$1.xml"); }
for name in oldest newest; do check "unit tests, $name" unit "$name"; done
if [ -z "${CLIENT_PYTHON_MORE+set}" ]; then
  CLIENT_PYTHON_MORE=''
  for version in 9 10 11 12 13; do
    candidate=$(PYENV_VERSION='' command -v "python3.$version" || true)
    if [ -n "$candidate" ] && [ "$version" != "$(minor "$python")" ] && "$candidate" -c 'import ensurepip' 2>/dev/null; then CLIENT_PYTHON_MORE+="$candidate "; fi
  done
fi
for candidate in $CLIENT_PYTHON_MORE; do
  for age in oldest newest; do
    name=3.$(minor "$candidate")-$age
    check "environment $name" environment "$name" "$candidate" "$age"
    check "unit tests, $name" unit "$name"
  done
done

# The README's install steps, and each of its programs two times against a real gateway.
readme() {
  local sample=$work/readme one='[0-9a-f-]{36} [^ ]+ False 1' program
  scripts/readme.py client_lib/python/README.md "$sample" || return 1
  if [ "$(cat "$sample/.stamp" 2>/dev/null)" != "$stamp" ]; then
    rm -rf "$sample/userintent-venv"
    (cd "$sample" && quietly readme_steps "$ROOT/client_lib/python/README.md" ./client_lib/ "$work/src/client_lib/") || return 1
    echo "$stamp" >"$sample/.stamp"
  fi
  program=$sample/userintent-venv/bin/python
  with_gateway twice "$one" "$program" "$sample/first_call.py" && with_gateway twice "$one" "$program" "$sample/async_call.py" &&
    with_gateway same "$program" "$sample/stored_id.py" && with_gateway created_and_read "$program" "$sample" &&
    "$program" "$sample/fake.py"
}

# created_and_read PYTHON DIRECTORY: what the first call creates, the programs that read an intent and wait for it find.
created_and_read() {
  local created status followed
  created=$("$1" "$2/first_call.py") && status=$("$1" "$2/status.py" "${created%% *}") || return 1
  note "$status"
  [[ ${status% } =~ ^USER_INTENT_STATUS_(PENDING|APPROVED)$ ]] || return 1
  followed=$("$1" "$2/follow.py" "${created%% *}") && [ "$followed" = True ]
}

# same COMMAND...: two runs say the same.
same() {
  local first second
  first=$("$@") && second=$("$@") && note "$first" && [ -n "$first" ] && [ "$first" = "$second" ]
}

check "README: install steps, two runs" readme

# Both at the same time: they wait for their gateways most of it.
conformance() {
  CONFORMANCE_PYTHON=$work/$1/bin/python tests/conformance/run.py --only python --junit "$results/conformance-$1.xml"
}
conformance oldest >"$work/conformance-oldest.log" 2>&1 &
oldest=$!
trap 'kill "$oldest" 2>/dev/null || true' EXIT
conformance_oldest() {
  local status=0
  wait "$oldest" || status=$?
  cat "$work/conformance-oldest.log"
  return "$status"
}
check "conformance, newest ($CONFORMANCE_STORM_CALLS calls in the storm)" conformance newest
check "conformance, oldest ($CONFORMANCE_STORM_CALLS calls in the storm)" conformance_oldest
end_checks
say "Python client: all passed"
