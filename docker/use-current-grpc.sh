#!/bin/sh
# In an image of Debian 13: adds the suites that the current gRPC comes from, by the mirror and the keys that the image has
# already, and says what may come from them (current-grpc.pref).
set -eu
here=$(dirname "$0")
for suite in forky experimental; do
  awk 'BEGIN { RS = ""; ORS = "\n\n" } NR == 1' /etc/apt/sources.list.d/debian.sources |
    sed "s/^Suites:.*/Suites: $suite/" >"/etc/apt/sources.list.d/$suite.sources"
done
cp "$here/current-grpc.pref" /etc/apt/preferences.d/current-grpc.pref
