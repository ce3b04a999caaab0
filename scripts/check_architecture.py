"""docs/architecture.md against the code: prints each difference as file:line and exits 1.

  room        every directory of server/ has a row in "Rooms of the server", and every row is one
  arrow       a room includes only itself and what its row names; the row names only rooms above it, and none in vain
  header      an exception of "Single headers" is used
  library     a library's headers are included only by the files that "Libraries" names; none of these in vain
  directory   every top-level directory and every one of tests/ has a row in "Directories", and every row is one
  script      every file of scripts/ is named on the page, by itself or by a pattern

"every room" in a row stands for all rooms above it.
"""

import fnmatch
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = "docs/architecture.md"
INCLUDE = re.compile(r'^\s*#\s*include\s+(["<])([^">]+)[">]')
CODE = re.compile(r"`([^`]+)`")


class Page:
    """The tables, each under its heading: rows of cells, with the line they stand in."""

    def __init__(self, text: str):
        self.text = text
        self.tables: dict[str, list[tuple[int, list[str]]]] = {}
        heading = ""
        for number, line in enumerate(text.split("\n"), 1):
            if line.startswith("#"):
                heading = line.lstrip("# ")
            elif line.startswith("| `"):
                cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
                self.tables.setdefault(heading, []).append((number, cells))

    def rows(self, heading: str) -> list[tuple[int, list[str]]]:
        return self.tables.get(heading, [])


def includes(name: str, text: str):
    """(line, header, whether it is quoted) of each include of one file."""
    for number, line in enumerate(text.split("\n"), 1):
        if hit := INCLUDE.match(line):
            yield number, hit[2], hit[1] == '"'


class Server:
    """server/ by the page: the arrows and who uses them."""

    def __init__(self, page: Page):
        self.problems: list[tuple[str, int, str, str]] = []
        self.below: dict[str, set[str]] = {}
        self.unused: dict[tuple[str, str], int] = {}  # arrow -> line of the page
        for line, (room, _, arrows) in page.rows("Rooms of the server"):
            room = room.strip("`")
            named = list(self.below) if arrows == "every room" else CODE.findall(arrows)
            for other in named:
                if other not in self.below:
                    self.say(PAGE, line, "arrow", f"{room} names {other}, which does not stand above it")
                if arrows != "every room":
                    self.unused[room, other] = line
            self.below[room] = set(named)
        self.headers = {(room.strip("`"), header.strip("`")): line
                        for line, (room, header, _) in page.rows("Single headers")}
        self.unused_headers = dict(self.headers)
        self.libraries: dict[str, list[str]] = {}  # a header may have several rows
        for _, (header, files, _) in page.rows("Libraries"):
            self.libraries.setdefault(CODE.findall(header)[0], []).extend(CODE.findall(files))
        self.unused_files = {(header, pattern): line
                             for line, (header, files, _) in page.rows("Libraries")
                             for header in CODE.findall(header) for pattern in CODE.findall(files)}

    def say(self, name: str, line: int, rule: str, why: str) -> None:
        self.problems.append((name, line, rule, why))

    def look(self, name: str, text: str) -> None:
        """One file of server/, by its path from there."""
        room = name.split("/")[0] if "/" in name else ""
        for line, header, quoted in includes(name, text):
            if quoted and header.startswith("server/") and room:
                self.arrow(name, room, line, header.removeprefix("server/"))
            for prefix, patterns in self.libraries.items():
                if header.startswith(prefix):
                    self.library(name, line, header, prefix, patterns)

    def arrow(self, name: str, room: str, line: int, header: str) -> None:
        other = header.split("/")[0]
        if other == room:
            return
        if (room, header) in self.headers:
            self.unused_headers.pop((room, header), None)
        elif other in self.below.get(room, ()):
            self.unused.pop((room, other), None)
        else:
            self.say(f"server/{name}", line, "arrow", f"{room} may not include {header}")

    def library(self, name: str, line: int, header: str, prefix: str, patterns: list[str]) -> None:
        matching = [pattern for pattern in patterns if fnmatch.fnmatchcase(name, pattern)]
        for pattern in matching:
            self.unused_files.pop((prefix, pattern), None)
        if not matching:
            self.say(f"server/{name}", line, "library", f"{header} belongs in {', '.join(patterns)}")

    def end(self, rooms: set[str]) -> None:
        for room in sorted(rooms - set(self.below)):
            self.say(PAGE, 0, "room", f"server/{room} has no row")
        for room in sorted(set(self.below) - rooms):
            self.say(PAGE, 0, "room", f"server/{room} does not exist")
        for (room, other), line in self.unused.items():
            self.say(PAGE, line, "arrow", f"{room} does not include {other}")
        for (room, header), line in self.unused_headers.items():
            self.say(PAGE, line, "header", f"{room} does not include {header}")
        for (header, pattern), line in self.unused_files.items():
            self.say(PAGE, line, "library", f"{pattern} does not include {header}")


def directories(page: Page, names: list[str]):
    """Problems of the table of directories and of the list of scripts."""
    there = {name.split("/")[0] for name in names if "/" in name}
    there |= {"/".join(name.split("/")[:2]) for name in names if name.startswith("tests/") and name.count("/") > 1}
    rows = {cells[0].strip("`"): line for line, cells in page.rows("Directories")}
    for missing in sorted(there - set(rows)):
        yield PAGE, 0, "directory", f"{missing} has no row"
    for gone in sorted(set(rows) - there):
        yield PAGE, rows[gone], "directory", f"{gone} does not exist"
    words = CODE.findall(page.text)
    for name in names:
        if name.startswith("scripts/") and name.count("/") == 1:
            if not any(fnmatch.fnmatchcase(name.removeprefix("scripts/"), word) for word in words):
                yield PAGE, 0, "script", f"{name} is not named"


def main() -> int:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    ).stdout
    names = [n for n in sorted(set(listed.decode().split("\0"))) if n and (ROOT / n).is_file()]
    page = Page((ROOT / PAGE).read_text())
    server = Server(page)
    files = [n for n in names if n.startswith("server/") and n.endswith((".cc", ".h"))]
    for name in files:
        server.look(name.removeprefix("server/"), (ROOT / name).read_text())
    server.end({n.split("/")[1] for n in files if n.count("/") > 1})
    problems = server.problems + list(directories(page, names))
    for name, line, rule, why in problems:
        print(f"{name}:{line}: [{rule}] {why}")
    print(f"architecture: {len(server.below)} rooms, {len(files)} files, {len(problems)} breaches")
    return 1 if problems or not files or not server.below else 0


if __name__ == "__main__":
    sys.exit(main())
