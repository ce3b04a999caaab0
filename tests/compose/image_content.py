"""image_content.py: reads the gateway's image as a tar archive (docker export) from standard input and holds it to its bill
of materials (/usr/share/doc/userintent/sbom.cdx.json), which it needs Python's own library only for. Prints what is
wrong; the exit status is 1 then.

    docker export CONTAINER | image_content.py [COPY]     COPY: where the bill is left, too
"""

import hashlib
import json
import pathlib
import re
import stat
import sys
import tarfile

SBOM = "usr/share/doc/userintent/sbom.cdx.json"
# By the name of the file: what runs other programs, or fetches them.
UNWANTED = re.compile(r"(?:.*/)?(?:sh|bash|dash|busybox|env|perl|python[0-9.]*|apt|apt-get|dpkg|curl|wget|su|sudo|mount)")
REQUIRED_SOURCES = {"grpc", "protobuf", "abseil", "openssl", "curl", "nghttp2", "sqlite3", "postgresql-17", "glibc", "gcc-14", "jemalloc"}


def files_of(archive):
    """Path -> (mode, content) of every regular file."""
    with tarfile.open(fileobj=archive, mode="r|") as tar:
        for member in tar:
            if member.isfile():
                yield member.name.removeprefix("./"), member.mode, tar.extractfile(member).read()


def problems_of_form(bill):
    """What the format asks for, and what this project promises beside it."""
    component = bill.get("metadata", {}).get("component", {})
    checks = {
        "bomFormat": bill.get("bomFormat") == "CycloneDX",
        "specVersion": bill.get("specVersion") == "1.6",
        "version": bill.get("version") == 1,
        "serialNumber": bool(re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", bill.get("serialNumber", ""))),
        "metadata.component": component.get("name") == "userintent-gateway" and bool(component.get("version")),
        "components": len(bill.get("components", [])) >= 20,
    }
    for check, good in checks.items():
        if not good:
            yield f"{check} is not as it must be"
    seen = set()
    for one in bill.get("components", []):
        for key in ("type", "name", "version", "purl", "bom-ref"):
            if not one.get(key):
                yield f"a component without {key}: {one.get('name')}"
        if not one.get("purl", "").startswith("pkg:deb/debian/"):
            yield f"{one.get('name')}: not a package URL of Debian"
        if one.get("bom-ref") in seen:
            yield f"{one.get('name')} is there twice"
        seen.add(one.get("bom-ref"))
    sources = {entry["value"] for one in bill.get("components", []) for entry in one.get("properties", [])
               if entry["name"] == "debian:source"}
    if missing := REQUIRED_SOURCES - sources:
        yield f"nothing of {', '.join(sorted(missing))}"
    for edge in bill.get("dependencies", []):
        if unknown := set(edge.get("dependsOn", [])) - seen:
            yield f"depends on what is not listed: {sorted(unknown)[0]}"


def listed_files(bill):
    for owner in [bill["metadata"]["component"], *bill["components"]]:
        for entry in owner.get("components", []):
            yield entry["name"].removeprefix("/"), entry["hashes"][0]["content"]


def problems(files):
    """`files`: (path, mode, content) of each regular file."""
    sums, programs, bill = {}, set(), None
    for path, mode, content in files:
        sums[path] = hashlib.sha256(content).hexdigest()
        if content[:4] == b"\x7fELF":
            programs.add(path)
        if path == SBOM:
            bill = json.loads(content)
        if UNWANTED.fullmatch(path):
            yield f"{path} is in the image"
        if mode & (stat.S_ISUID | stat.S_ISGID):
            yield f"{path} changes the user"
    if bill is None:
        yield f"no {SBOM}"
        return
    yield from problems_of_form(bill)
    listed = dict(listed_files(bill))
    for path, wanted in listed.items():
        if sums.get(path) != wanted:
            yield f"{path} is listed, and is {'another' if path in sums else 'not there'}"
    for path in sorted(programs - set(listed)):
        yield f"{path} is not listed"


def main():
    kept = None

    def remembered():
        nonlocal kept
        for path, mode, content in files_of(sys.stdin.buffer):
            if path == SBOM:
                kept = content
            yield path, mode, content

    found = list(problems(remembered()))
    for problem in found:
        print(problem)
    if len(sys.argv) > 1 and kept is not None:
        pathlib.Path(sys.argv[1]).write_bytes(kept)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
