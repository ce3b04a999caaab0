"""docs/flags.md and docs/metrics.md from the program: the tables between their markers are written from `--help` and from
what /metrics says of itself. The prose around them is by hand.

  reference_pages.py           writes the tables anew
  reference_pages.py --check   prints each row that is missing, or that the program does not know; exit status 1 if there is one

GATEWAY_BIN_DIR: where userintent-server and userintent-ledger are (build/release/bin).
"""

import difflib
import os
import pathlib
import re
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
BIN = pathlib.Path(os.environ.get("GATEWAY_BIN_DIR", ROOT / "build" / "release" / "bin")).resolve()
FLAGS = ROOT / "docs" / "flags.md"
METRICS = ROOT / "docs" / "metrics.md"

ENTRY = re.compile(r"^  (?:-\w, )?--(\w+)(?:=(\S+))?(?:  \(default: (.*)\))?$")
MOST_VALUES = 12  # of a label; a longer list says less than the name alone
PATIENCE = 30  # seconds for a start, on a machine that is busy


def code(text: str) -> str:
    """As code in a cell of a table; a bar in it would end the cell."""
    return "`" + text.replace("|", "\\|") + "`"


def cell(text: str) -> str:
    """As prose in a cell. Bars as above; what looks like a flag, a variable or a placeholder is left as it is."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("_", "\\_").replace("*", "\\*")


def entries(help_text: str):
    """(flag, value's form, default, meaning) of each flag, in the order of --help."""
    found = []
    for line in help_text.splitlines():
        if match := ENTRY.match(line):
            found.append([match[1], match[2] or "", match[3] or "", ""])
        elif found and line.startswith("      "):
            found[-1][3] = f"{found[-1][3]} {line.strip()}".strip()
    return found


def flag_table(help_text: str) -> str:
    rows = ["| flag | default | meaning |", "|---|---|---|"]
    for name, form, default, meaning in entries(help_text):
        written = f"--{name}={form}" if form else f"--{name}"
        plain = default == "none" or " " in default or not default
        rows.append(f"| {code(written)} | {default if plain else code(default)} | {cell(meaning)} |")
    return "\n".join(rows) + "\n"


def metric_table(text: str) -> str:
    """A row for each family. A histogram's buckets, sum and count are its own and get none."""
    rows = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    helps, types, labels = {}, {}, {}
    for line in text.splitlines():
        if line.startswith("# HELP "):
            _, _, name, meaning = line.split(" ", 3)
            helps[name] = meaning
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ", 3)
            types[name] = kind
        elif match := re.match(r"(\w+)\{(.*)\} ", line):
            family = next((f for f in (match[1], re.sub(r"_(bucket|sum|count)$", "", match[1])) if f in types), match[1])
            for label, value in re.findall(r'(\w+)="([^"]*)"', match[2]):
                if label != "le":
                    labels.setdefault(family, {}).setdefault(label, []).append(value)
    for name in sorted(types):
        words = []
        for label, values in labels.get(name, {}).items():
            distinct = sorted(set(values))
            fixed = len(distinct) <= MOST_VALUES and not name.endswith("_info")
            words.append(f"{code(label)}: {cell(', '.join(distinct))}" if fixed else code(label))
        rows.append(f"| {code(name)} | {types[name]} | {'; '.join(words)} | {cell(helps.get(name, ''))} |")
    return "\n".join(rows) + "\n"


def output(program: str, *arguments: str) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("USERINTENT_")}
    return subprocess.run([BIN / program, *arguments], env=clean, capture_output=True, text=True, timeout=PATIENCE).stdout


def metrics_text() -> str:
    """/metrics of a server that was just started; it calls nobody."""
    with tempfile.TemporaryDirectory() as directory:
        files = pathlib.Path(directory)
        files.chmod(0o700)
        for name in ("id", "secret", "key"):
            (files / name).write_text(secrets.token_hex(32))
            (files / name).chmod(0o600)
        clean = {name: value for name, value in os.environ.items() if not name.startswith("USERINTENT_")}
        server = subprocess.Popen(
            [BIN / "userintent-server", "--listen=127.0.0.1:0", "--metrics_listen=127.0.0.1:0", "--astra_base_url=https://127.0.0.1:1",
             f"--astra_client_id_file={files / 'id'}", f"--astra_client_secret_file={files / 'secret'}",
             f"--ledger_key_file={files / 'key'}", f"--ledger=sqlite:{files / 'ledger' / 'ledger.db'}"],
            env=clean, stderr=(files / "log").open("w"), cwd=files)
        try:
            end = time.monotonic() + PATIENCE
            while not (match := re.search(r'"metrics_listening".*?"address": ?"([^"]+)"|"address": ?"([^"]+)".*?"metrics_listening"',
                                          (files / "log").read_text())):
                if server.poll() is not None or time.monotonic() > end:
                    sys.exit("userintent-server does not start: " + (files / "log").read_text())
                time.sleep(0.05)
            with urllib.request.urlopen(f"http://{match[1] or match[2]}/metrics", timeout=PATIENCE) as answer:
                return answer.read().decode()
        finally:
            server.terminate()
            server.wait(PATIENCE)


def with_block(page: str, name: str, block: str) -> str:
    """The page with this block between its markers."""
    begin, end = f"<!-- begin {name}: written by scripts/reference_pages.py -->\n", f"<!-- end {name} -->\n"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        sys.exit(f"the page has no markers for {name}")
    return f"{before}{begin}\n{block}\n{end}{after}"


def pages() -> dict[pathlib.Path, str]:
    """Each page as it should be."""
    flags = with_block(FLAGS.read_text(), "server", flag_table(output("userintent-server", "--help")))
    tool = output("userintent-ledger", "--help").rstrip()
    flags = with_block(flags, "tool", f"```text\n{tool}\n```\n")
    metrics = with_block(METRICS.read_text(), "metrics", metric_table(metrics_text()))
    return {FLAGS: flags, METRICS: metrics}


def differences(path: pathlib.Path, wanted: str) -> list[str]:
    lines = difflib.ndiff(path.read_text().splitlines(), wanted.splitlines())
    words = {"+": "missing", "-": "not the program's"}
    return [f"{path.name}: {words[line[0]]}: {line[2:]}" for line in lines if line[0] in words and line[2:]]


def main() -> int:
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        sys.exit("usage: reference_pages.py [--check]")
    wrong = []
    for path, wanted in pages().items():
        wrong += differences(path, wanted)
        if not check:
            path.write_text(wanted)
    for line in wrong:
        print(line)
    if wrong and check:
        print("`make docs` writes these pages anew")
    return 1 if wrong and check else 0


if __name__ == "__main__":
    sys.exit(main())
