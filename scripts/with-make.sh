#!/usr/bin/env bash
# ./run and ./test: brings make, which a bare Debian lacks, and hands over to it. with-make.sh TARGET [MAKE ARGUMENT ...]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
if ! command -v make >/dev/null; then
  say "apt: installing make, which a bare Debian lacks"
  run=()
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || die "make is missing, and this is neither root nor a user with sudo; as root run: apt-get install make"
    run=(sudo)
  fi
  command -v apt-get >/dev/null || die "make is missing, and there is no apt-get to install it"
  patiently "apt-get update" "${run[@]}" apt-get update -qq
  patiently "apt-get install make" "${run[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends make
fi
exec make --no-print-directory -C "$ROOT" "$@"
