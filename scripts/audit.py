#!/usr/bin/env python3
"""make audit: known faults of what the gateway's image holds, as far as sources can be reached.

    audit.py SBOM            SBOM: build/sbom/userintent-gateway.cdx.json (make sbom)

  1. Debian's archive: does it offer a newer version of a package, as its security team's fixes come? Asked in a
     container, with the sources of the image's own build.
  2. OSV (api.osv.dev, OSV_URL names another): faults known of the packages of Debian 13, by Debian's own records; and of
     gRPC, protobuf, Abseil and RE2 by those of their projects, because Debian keeps none for experimental.

A source that cannot be reached is said to be not checked. Exit status: 0 nothing is known; 1 something is known, or
newer; 2 nothing is known, but a source was not checked; 3 wrong use.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
OSV = "https://api.osv.dev"
# Source packages that do not come from Debian 13 (docker/current-grpc.pref): the project, and how it names versions.
UPSTREAM = {
    "grpc": ("https://github.com/grpc/grpc", "v{}"),
    "protobuf": ("https://github.com/protocolbuffers/protobuf", "v{}"),
    "abseil": ("https://github.com/abseil/abseil-cpp", "{}"),
    "re2": ("https://github.com/google/re2", "{}"),
}
AHEAD = {*UPSTREAM, "utf8-range"}  # which is a part of protobuf


class NotReached(Exception):
    pass


def packages(bill):
    """(package, its version, source package, its version) of each component."""
    for component in bill["components"]:
        properties = {entry["name"]: entry["value"] for entry in component["properties"]}
        yield (component["name"], component["version"], properties["debian:source"],
               properties["debian:source-version"])


def upstream_version(version):
    """Of Debian's version: without epoch, revision and what was repacked."""
    without_epoch = version.partition(":")[2] or version
    without_revision = without_epoch.rpartition("-")[0] or without_epoch
    return re.sub(r"[+~](dfsg|ds|git|really).*", "", without_revision)


def queries(bill):
    """Source package -> the question to OSV."""
    asked = {}
    for _, _, source, version in packages(bill):
        if source in UPSTREAM:
            name, form = UPSTREAM[source]
            asked[source] = {"package": {"ecosystem": "GIT", "name": name},
                             "version": form.format(upstream_version(version))}
        elif source not in AHEAD:
            asked[source] = {"package": {"ecosystem": "Debian:13", "name": source}, "version": version}
    return asked


def osv_faults(bill, url, patience=30):
    """[(source package, fault)]; raises NotReached."""
    asked = queries(bill)
    request = urllib.request.Request(f"{url}/v1/querybatch", json.dumps({"queries": list(asked.values())}).encode(),
                                     {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=patience) as answer:
            results = json.load(answer)["results"]
    except (OSError, ValueError, KeyError) as error:
        raise NotReached(type(error).__name__) from error
    if len(results) != len(asked):
        raise NotReached("an answer that is not one for each question")
    return sorted((source, fault["id"]) for source, result in zip(asked, results, strict=True)
                  for fault in result.get("vulns", []))


def newer(bill, policy):
    """[(package, version of the image, what Debian offers)], from what `apt-cache policy` says."""
    offered = dict(re.findall(r"^(\S+):\n(?:  .*\n)*?  Candidate: (\S+)", policy, re.M))
    found = []
    for name, version, _, _ in packages(bill):
        offer = offered.get(name)
        if offer is None or offer == "(none)":
            raise NotReached(f"Debian does not know {name}")
        if offer != version:
            found.append((name, version, offer))
    return sorted(found)


def ask_archive(bill, image="debian:trixie-slim"):
    names = " ".join(sorted({name for name, *_ in packages(bill)}))
    script = f"/opt/docker/use-current-grpc.sh && apt-get update -qq -o APT::Update::Error-Mode=any >&2 && apt-cache policy {names}"
    try:
        run = subprocess.run(["docker", "run", "--rm", "--volume", f"{ROOT}/docker:/opt/docker:ro", image, "sh", "-euc", script],
                             capture_output=True, text=True, timeout=600)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotReached(type(error).__name__) from error
    if run.returncode != 0:
        raise NotReached("apt-get update failed, or there is no docker")
    return run.stdout


def main():
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 3
    try:
        bill = json.loads(pathlib.Path(sys.argv[1]).read_text())
    except (OSError, ValueError):
        print(f"{sys.argv[1]} is no bill of materials: make sbom", file=sys.stderr)
        return 3
    known = unchecked = 0
    try:
        found = newer(bill, ask_archive(bill))
        known += len(found)
        print(f"Debian's archive: {len(found)} packages of {len(bill['components'])} have a newer version")
        for name, version, offer in found:
            print(f"  {name} {version} -> {offer}")
    except NotReached as error:
        unchecked += 1
        print(f"Debian's archive: offline: not checked ({error})")
    try:
        faults = osv_faults(bill, os.environ.get("OSV_URL", OSV))
        known += len(faults)
        print(f"OSV: {len(faults)} known faults in {len(queries(bill))} source packages")
        for source, fault in faults:
            print(f"  {source}: {fault}")
    except NotReached as error:
        unchecked += 1
        print(f"OSV: offline: not checked ({error})")
    return 1 if known else 2 if unchecked else 0


if __name__ == "__main__":
    sys.exit(main())
