#!/usr/bin/env bash
# make lint: every check runs, and the list of those that failed comes last. CHANGED=1 looks only at C++ files that differ
# from the last commit (other checks are quick enough to look at everything).
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"
LINT=$TOOLS/lint/bin

# files GLOB...: tracked and new files that exist, without those that git ignores; changed GLOB...: those that differ from HEAD
existing() { sort -u | while read -r name; do [ ! -f "$name" ] || echo "$name"; done; }
files() { git ls-files --cached --others --exclude-standard -- "$@" | existing; }
changed() { { git diff --name-only HEAD -- "$@"; git ls-files --others --exclude-standard -- "$@"; } | existing; }
cpp() { if [ "${CHANGED:-}" = 1 ]; then changed "$@"; else files "$@"; fi; }

format() {
  local list
  mapfile -t list < <(cpp '*.cc' '*.h')
  [ ${#list[@]} = 0 ] || "$LINT/clang-format" --dry-run --Werror "${list[@]}"
  mapfile -t list < <(files '*.java')
  [ ${#list[@]} = 0 ] || "$LINT/clang-format" --style=file:client_lib/java/.clang-format --dry-run --Werror "${list[@]}"
}

tidy() {
  local list=()
  if [ "${CHANGED:-}" = 1 ]; then
    # A changed header brings the sources beside it.
    mapfile -t list < <(changed '*.cc' '*.h' | while read -r f; do [[ $f == *.h ]] && ls "$(dirname "$f")"/*.cc 2>/dev/null || echo "$f"; done | sort -u)
    [ ${#list[@]} -gt 0 ] || return 0
  fi
  # The C++ client and its runner are projects of their own.
  scripts/test-client-cpp.sh --prepare || return 1
  local dir status=0
  for dir in build/release build/client-cpp/library build/client-cpp/runner; do
    /usr/bin/python3 scripts/clang_tidy.py "$LINT/clang-tidy" "$dir" "${list[@]}" || status=1
  done
  return "$status"
}

# The API as it is now against each of its last two committed versions: the second one is what counts in a fresh clone,
# where the working tree is the last commit. BUF_AGAINST names other commits.
breaking() {
  local commit dir status=0
  for commit in ${BUF_AGAINST:-$(git log -2 --format=%h -- proto)}; do
    dir=$ROOT/build/lint/against
    rm -rf "$dir"
    mkdir -p "$dir/build/tools"
    git archive "$commit" proto | tar -x -C "$dir"
    cp buf.yaml "$dir/"
    cp -r "$TOOLS/googleapis" "$dir/build/tools/"
    "$LINT/buf" breaking --against "$dir" || { note "against $commit"; status=1; }
  done
  return "$status"
}

shell() {
  local list
  mapfile -t list < <({ files '*.sh' '.ci/*'; } | sort -u)
  "$LINT/shellcheck" --severity=info "${list[@]}"
}

go_code() {
  local list dir status=0
  mapfile -t list < <(files '*.go')
  [ -z "$(gofmt -l "${list[@]}")" ] || { gofmt -d "${list[@]}"; status=1; }
  while read -r dir; do
    # tests/tools holds pins and no package
    (cd "$dir" && { [ -z "$(go list ./... 2>/dev/null)" ] || go vet ./...; } && go mod verify >/dev/null) || status=1
  done < <(files '*go.mod' | xargs -r -n1 dirname)
  return "$status"
}

yaml() { files '*.yml' '*.yaml' | xargs -r "$LINT/yamllint" --strict; }
dockerfiles() { files '*Dockerfile*' | grep -v dockerignore | xargs -r "$LINT/hadolint"; }

check clang-format format
check buf-lint "$LINT/buf" lint
check buf-breaking breaking
check shellcheck shell
check yamllint yaml
check hadolint dockerfiles
check ruff "$LINT/ruff" check --quiet .
check gofmt-vet go_code
check house-rules /usr/bin/python3 scripts/check_text.py
check monitoring /usr/bin/python3 scripts/check_monitoring.py
check architecture /usr/bin/python3 scripts/check_architecture.py
check sizes "$LINT/python" scripts/check_size.py
check clang-tidy tidy

end_checks
say "lint: all clean"
