#!/bin/sh
# check-grpc.sh FLOOR: says which gRPC is installed in this image, and fails when it is older than FLOOR (as in 1.83) or when
# there are several. Debian experimental keeps one version, and another one later.
set -eu
floor=$1
# shellcheck disable=SC2016 # dpkg-query's own variables
versions=$(dpkg-query -W -f '${source:Package} ${source:Version}\n' | sort -u)
got=$(printf '%s\n' "$versions" | sed -n 's/^grpc //p')
echo "gRPC: ${got:-none}; $(printf '%s\n' "$versions" | grep -E '^(protobuf|abseil|re2|openssl) ' | tr '\n' ',')"
[ "$(printf '%s\n' "$got" | grep -c .)" = 1 ] || { echo "there must be one gRPC" >&2; exit 1; }
dpkg --compare-versions "$got" ge "$floor" || { echo "gRPC $got is older than $floor" >&2; exit 1; }
