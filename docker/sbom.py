#!/usr/bin/env python3
"""sbom.py FILES BUILD VERSION: the bill of materials of the gateway's image, as CycloneDX 1.6 JSON on standard output.

FILES is what pack.sh wrote: each file of the image with the package that it is of. BUILD has a line for each package
that is compiled into the programs (headers): name, version, architecture, source package, its version, with tabs.
VERSION is the gateway's own. The same input gives the same bytes, so there is no time and no random number in it, but
for SOURCE_DATE_EPOCH where that is set.
"""

import hashlib
import json
import os
import pathlib
import sys
import time
import urllib.parse
import uuid


def purl(package):
    quote = urllib.parse.quote
    return (f"pkg:deb/debian/{quote(package['name'], safe='')}@{quote(package['version'], safe='')}"
            f"?arch={quote(package['arch'], safe='')}&distro=debian-13")


def package_of(name, version, arch, source, source_version):
    return {"name": name, "version": version, "arch": arch, "source": source, "source_version": source_version}


def read_files(text):
    """Files of our own, and packages with the files that are in the image of each."""
    own, packages = [], {}
    for line in text.splitlines():
        path, sha256, name, version, arch, source, source_version = line.split("\t")
        entry = {"path": path, "sha256": sha256}
        if name == "-":
            own.append(entry)
        else:
            package = packages.setdefault(name, package_of(name, version, arch, source, source_version) | {"files": []})
            package["files"].append(entry)
    return own, [packages[name] for name in sorted(packages)]


def read_build(text):
    return [package_of(*line.split("\t")) | {"files": []} for line in sorted(text.splitlines()) if line]


def file_component(entry):
    return {"type": "file", "name": entry["path"], "bom-ref": "file:" + entry["path"],
            "hashes": [{"alg": "SHA-256", "content": entry["sha256"]}]}


def package_component(package, role):
    component = {
        "type": "library", "bom-ref": purl(package), "name": package["name"], "version": package["version"],
        "purl": purl(package), "supplier": {"name": "Debian"},
        "properties": [
            {"name": "debian:source", "value": package["source"]},
            {"name": "debian:source-version", "value": package["source_version"]},
            {"name": "userintent:role", "value": role},
        ],
    }
    if package["files"]:
        component["components"] = [file_component(entry) for entry in sorted(package["files"], key=lambda e: e["path"])]
    return component


def bill(files, build, version, made=None):
    """The document as a dict. `made`: seconds since 1970."""
    own, packages = read_files(files)
    compiled_in = read_build(build)
    gateway = f"pkg:generic/userintent-gateway@{urllib.parse.quote(version, safe='')}"
    components = [package_component(package, "in the image") for package in packages]
    components += [package_component(package, "compiled into the programs") for package in compiled_in]
    metadata = {
        "component": {
            "type": "application", "bom-ref": gateway, "name": "userintent-gateway", "version": version, "purl": gateway,
            "components": [file_component(entry) for entry in sorted(own, key=lambda e: e["path"])],
        },
    }
    if made is not None:
        metadata["timestamp"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(made))
    digest = hashlib.sha256("\0".join([files, build, version]).encode()).digest()
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        "serialNumber": "urn:uuid:" + str(uuid.UUID(bytes=digest[:16], version=4)),
        "metadata": metadata,
        "components": components,
        "dependencies": [{"ref": gateway, "dependsOn": [component["bom-ref"] for component in components]}],
    }


def main():
    files, build, version = sys.argv[1:]
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    document = bill(pathlib.Path(files).read_text(), pathlib.Path(build).read_text(), version,
                    int(epoch) if epoch else None)
    json.dump(document, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
