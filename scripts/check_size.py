"""Functions of server/ that are too long or too branched, and files that are too long. Prints each and exits 1.

A function has at most 60 lines without blanks and comments, and a cyclomatic complexity of at most 20, in which a switch
counts once: its cases are a table. A file has at most 400 lines. What may be larger stands below with its reason; a row
that is not needed any more is an error too. Runs in the venv of the linters, which has lizard.
"""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FUNCTION_LINES, COMPLEXITY, FILE_LINES = 60, 20, 400

# "path: Class::Function", or a path alone -> why it is larger.
EXCEPTIONS = {
    "server/http/curl_options.cc: CurlClient::SetOptions": "a table: one line an option of libcurl",
    "server/intent/po_box.cc: WorthALook": "a table: one line a spelling, in one pass over the text",
    "server/ledger/sqlite_schema.cc: Migrations": "a table: one statement a step of the schema",
}


def breaches(functions, files, exceptions):
    """(place, what is wrong): `functions` are (path, line, qualified name, lines, complexity), `files` (path, lines)."""
    needed = set()

    def check(place, key, faults):
        if not faults:
            return
        if key in exceptions:
            needed.add(key)
        else:
            yield place, f"{key.split(': ')[-1]} has {' and '.join(faults)}"

    for path, line, name, lines, complexity in functions:
        # Without the namespaces, which the path tells.
        short = "::".join(part for part in name.split("::") if not part.islower() or "::" not in name)
        faults = [f"{lines} lines, at most {FUNCTION_LINES}"] if lines > FUNCTION_LINES else []
        faults += [f"complexity {complexity}, at most {COMPLEXITY}"] if complexity > COMPLEXITY else []
        yield from check(f"{path}:{line}", f"{path}: {short}", faults)
    for path, lines in files:
        yield from check(f"{path}:{lines}", path, [f"{lines} lines, at most {FILE_LINES}"] if lines > FILE_LINES else [])
    for key in exceptions.keys() - needed:
        yield "scripts/check_size.py", f"the exception for {key} is not needed any more: take it out"


def main() -> int:
    import lizard

    paths = sorted(p for suffix in ("*.cc", "*.h") for p in (ROOT / "server").rglob(suffix))
    names = [path.relative_to(ROOT).as_posix() for path in paths]
    measured = lizard.analyze_files([str(path) for path in paths], exts=lizard.get_extensions(["modified"]))
    functions = [
        (pathlib.Path(file.filename).relative_to(ROOT).as_posix(), f.start_line, f.name, f.nloc, f.cyclomatic_complexity)
        for file in measured for f in file.function_list
    ]
    files = [(name, len(path.read_text().splitlines())) for name, path in zip(names, paths, strict=True)]
    found = sorted(breaches(functions, files, EXCEPTIONS))
    for place, why in found:
        print(f"{place}: {why}")
    print(f"sizes: {len(functions)} functions in {len(files)} files, {len(EXCEPTIONS)} exceptions, {len(found)} breaches")
    return 1 if found or not functions else 0


if __name__ == "__main__":
    sys.exit(main())
