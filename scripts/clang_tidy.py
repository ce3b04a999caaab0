"""Runs clang-tidy over first-party C++ files, several at a time, and remembers what was clean.

A file is looked at again when it, any first-party header, its compile command, .clang-tidy or clang-tidy itself changed;
so a second `make lint` costs nothing. What CMake compiles several sources at a time as (USERINTENT_UNITY) is one file here, too.
Usage: clang_tidy.py CLANG_TIDY BUILD_DIR [FILE ...], where a file stands for the one that includes it
"""

import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FIRST_PARTY = ("server/", "tests/", "client_lib/")
TOGETHER = re.compile(r'^#include "(.+)"$', re.MULTILINE)  # in a file of CMake's that includes sources


def digest(*parts: bytes) -> str:
    sha = hashlib.sha256()
    for part in parts:
        sha.update(hashlib.sha256(part).digest())
    return sha.hexdigest()


def main() -> int:
    tidy, build, *wanted = sys.argv[1:]
    commands = {}
    for entry in json.loads((ROOT / build / "compile_commands.json").read_text()):
        path = pathlib.Path(entry["directory"], entry["file"]).resolve()
        if not path.is_relative_to(ROOT) or not path.exists():
            continue
        name = path.relative_to(ROOT).as_posix()
        sources = [name]
        if "/Unity/" in name:
            sources = [pathlib.Path(source).relative_to(ROOT).as_posix() for source in TOGETHER.findall(path.read_text())]
        if sources and sources[0].startswith(FIRST_PARTY) and (not wanted or set(sources) & set(wanted)):
            commands[name] = (entry["command"], sources)

    headers = sorted(p for top in FIRST_PARTY + ("proto/",) for s in ("*.h", "*.proto") for p in (ROOT / top).rglob(s))
    version = subprocess.run([tidy, "--version"], capture_output=True, check=True).stdout
    shared = digest(version, (ROOT / ".clang-tidy").read_bytes(), *(p.read_bytes() for p in headers))
    clean = ROOT / "build" / "lint" / "tidy"
    clean.mkdir(parents=True, exist_ok=True)

    def check(name: str) -> str | None:
        command, sources = commands[name]
        stamp = clean / digest(shared.encode(), name.encode(), command.encode(), *((ROOT / s).read_bytes() for s in sources))
        if stamp.exists():
            return None
        options = ["--checks=-bugprone-suspicious-include"] if sources != [name] else []
        run = subprocess.run([tidy, "-p", str(ROOT / build), "--quiet", *options, name], cwd=ROOT, capture_output=True, text=True)
        if run.returncode == 0:
            stamp.touch()
            return ""
        return run.stdout + "\n".join(line for line in run.stderr.splitlines() if "error" in line)

    looked = failed = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, output in zip(sorted(commands), pool.map(check, sorted(commands)), strict=True):
            looked += output is not None
            if output:
                failed += 1
                print(f"{name}:\n{output}", flush=True)
    files = sum(len(sources) for _, sources in commands.values())
    print(f"clang-tidy: {files} files in {len(commands)}, {looked} looked at, {failed} with findings")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
