#!/usr/bin/env bash
# make sbom: the bill of materials of the gateway's image (CycloneDX JSON), out of the image, which is built where it is not up
# to date, to build/sbom/userintent-gateway.cdx.json; and the image held to it.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"
docker version >/dev/null 2>&1 || die "needs Docker"
say "Image"
docker build --quiet --target gateway --tag userintent-gateway . >/dev/null
mkdir -p build/sbom
container=$(docker create userintent-gateway)
trap 'docker rm "$container" >/dev/null' EXIT
docker export "$container" | /usr/bin/python3 tests/compose/image_content.py build/sbom/userintent-gateway.cdx.json
say "build/sbom/userintent-gateway.cdx.json"
