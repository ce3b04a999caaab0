#!/usr/bin/env python3
"""What a client's README tells its reader to type: readme.py README DIRECTORY writes its files there; --steps README prints
the shell commands of its Install section.

A code block names its file in its first line, as a comment. Blocks of one name are one file, in their order. A block of a
language that a reader would save, without a name, is an error.
"""

import pathlib
import re
import sys

NAME = r"(?://|#|<!--) (\w+\.\w+)(?: -->)?\n"
KEPT = {"cmake", "cpp", "go", "java", "python", "xml"}
FOLDER = {"java": "src/main/java"}


def blocks(text):
    return re.findall(r"^```(\w+)\n(.*?)^```", text, re.M | re.S)


def files(text):
    made = {}
    for language, block in blocks(text):
        if language not in KEPT:
            continue
        named = re.match(NAME, block)
        if not named:
            sys.exit(f"a block of {language} has no file name: {block.splitlines()[0]}")
        path = pathlib.Path(FOLDER.get(language, "."), named[1])
        made[path] = made.get(path, "") + block[named.end():]
    return made


def main():
    if sys.argv[1] == "--steps":
        install = pathlib.Path(sys.argv[2]).read_text(encoding="utf-8").split("\n## Install\n")[1].split("\n## ")[0]
        steps = [block for language, block in blocks(install) if language == "sh"]
        if len(steps) != 1:
            sys.exit("the Install section wants one block of commands")
        print(steps[0], end="")
        return
    for path, content in files(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8")).items():
        out = pathlib.Path(sys.argv[2], path)
        out.parent.mkdir(parents=True, exist_ok=True)
        if not out.exists() or out.read_text(encoding="utf-8") != content:  # what is as it was need not be built again
            out.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
