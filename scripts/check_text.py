"""House rules that no linter knows, checked over every file of the project. Prints each breach as file:line and exits 1.

  print       server/ never turns a message into text: personal data would end up in a log or an error (but for the
              operators' tool, whose messages hold none)
  todo        a TODO or FIXME names its issue: TODO(#12)
  mail        e-mail addresses only at domains reserved for examples (RFC 2606)
  ssn         no nine-digit Social Security Number that could have been issued
  path        no path of one machine
  wide        prose of pages fits in 120 columns (a table's row is one line, code is as typed, a long word stands alone)
  gone        a file of server/, scripts/ or docs/ that a text names exists
  text        UTF-8, no tabs outside Makefiles, Go and its examples, no trailing blanks, a newline at the end, at most 1 MiB
  corpus      an input of a fuzz target is at most 4 KiB, all together 500 KiB; what it is made of is free but for the
              rules mail, ssn and path
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

PRINTS = re.compile(r"\b(\w*DebugString|MessageToJsonString|PrintToString|TextFormat::Print\w*)\b")
TODO = re.compile(r"\b(TODO|FIXME|XXX)\b(?!\(#\d+\))")
MAIL = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9._%+-]*@((?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,})")
RESERVED = re.compile(r"(^|\.)(example|test|invalid|localhost)$|(^|\.)example\.(com|net|org)$", re.I)
# 000, 666 and 9xx were never given out; 078-05-1120 and 123-45-6789 are well-known specimens.
SSN = re.compile(r"(?<![\w-])(?!000|666|9\d\d|078-05-1120|123-45-6789)\d{3}-\d{2}-\d{4}(?![\w-])")
PATH = re.compile(r"(?<![\w.$}/-])/(?:home|Users|work)/\w")
NAMED = re.compile(r"(?<![\w/.$}*-])((?:server|scripts|docs)/[\w/-]+\.(?:cc|h|py|sh|md|cmake))\b")
BINARY = {".png", ".gz", ".bin", ".db", ".jar", ".binpb", ".ico"}
CORPUS = "tests/fuzz/corpus/"
CORPUS_FILE, CORPUS_ALL = 4 << 10, 500 << 10
TABS_OK = {".go", ".mod", ".sum", ".tsv", ".md"}


def wide(name: str, lines: list[str]):
    """Numbers of the lines of prose that are too long."""
    if not name.endswith(".md"):
        return
    code = False
    for number, line in enumerate(lines, 1):
        code ^= line.startswith("```")
        if len(line) > 120 and not code and not line.startswith(("|", "    ")) and max(map(len, line.split())) < 100:
            yield number


def secrets(number: int, line: str):
    """What must not stand in a line of any file: (line, rule, why)."""
    for hit in MAIL.finditer(line):
        # In Go and npm file names "package@v1.2" is a version, not an address.
        if not RESERVED.search(hit[1]) and not re.match(r"v?\d", hit[1]):
            yield number, "mail", f"domain {hit[1]} is not reserved for examples"
    if SSN.search(line):
        yield number, "ssn", "looks like a real number"
    if PATH.search(line):
        yield number, "path", "path of one machine"


def breaches(name: str, data: bytes, names: set[str] | None = None):
    """(line, rule, why) of one file. `names` are all files of the project; without them rule "gone" is left out."""
    suffix = pathlib.PurePath(name).suffix
    if name.startswith(CORPUS):
        if len(data) > CORPUS_FILE:
            yield 0, "corpus", "larger than 4 KiB"
        for number, line in enumerate(data.decode("latin-1").split("\n"), 1):
            yield from secrets(number, line)
        return
    if len(data) > 1 << 20:
        yield 0, "text", "larger than 1 MiB"
    if suffix in BINARY:
        return
    try:
        text = data.decode()
    except UnicodeDecodeError:
        yield 0, "text", "not UTF-8"
        return
    if text and not text.endswith("\n"):
        yield 0, "text", "no newline at the end"
    for number in wide(name, text.split("\n")):
        yield number, "wide", "more than 120 columns"
    checker = name == "scripts/check_text.py"
    for number, line in enumerate(text.split("\n"), 1):
        if line != line.rstrip():
            yield number, "text", "trailing blanks"
        go_page = name.startswith("client_lib/go/") and suffix == ".md"  # its examples are Go
        if "\t" in line and suffix not in TABS_OK and not name.endswith("Makefile") and not go_page:
            yield number, "text", "tab"
        if checker:
            continue
        quiet = name.startswith("server/") and name != "server/admin/tool.cc"
        if quiet and (hit := PRINTS.search(line)) and not line.lstrip().startswith("//"):
            yield number, "print", hit[0]
        if TODO.search(line):
            yield number, "todo", "without an issue"
        yield from secrets(number, line)
        for hit in NAMED.finditer(line) if names and name != "tests/e2e/test_scripts.py" else ():
            if hit[1] not in names:
                yield number, "gone", f"{hit[1]} does not exist"


def main() -> int:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    ).stdout
    names = [n for n in sorted(set(listed.decode().split("\0"))) if n and (ROOT / n).is_file()]
    found = 0
    for name in names:
        for number, rule, why in breaches(name, (ROOT / name).read_bytes(), set(names)):
            found += 1
            print(f"{name}:{number}: [{rule}] {why}")
    corpus = sum((ROOT / name).stat().st_size for name in names if name.startswith(CORPUS))
    if corpus > CORPUS_ALL:
        found += 1
        print(f"{CORPUS}:0: [corpus] {corpus >> 10} KiB in all, at most {CORPUS_ALL >> 10}")
    print(f"text rules: {len(names)} files, {found} breaches")
    return 1 if found or not names else 0


if __name__ == "__main__":
    sys.exit(main())
