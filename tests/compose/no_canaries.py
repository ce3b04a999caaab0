"""Whether what is written on stdin holds a person of the suites or a secret of theirs, in any spelling (support/needles.py):

    docker logs GATEWAY 2>&1 | build/tools/venv/bin/python tests/compose/no_canaries.py

Exit status 0: nothing, 1: it names what it found, never the value, and the line's number; 2: there was nothing to read.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from support.needles import SHORTEST, Digits, Needles  # noqa: E402
from support.people import PERSON, SSN, STEMS  # noqa: E402
from support.sandbox import CLIENT_SECRET  # noqa: E402

# Stems that occur by accident where they are written otherwise, or in other letters: they are looked for as they are.
SHORT = [stem.encode() for stem in STEMS if len(stem) < SHORTEST]


def needles():
    found = Needles()
    for number, text in enumerate((*(stem for stem in STEMS if len(stem) >= SHORTEST), CLIENT_SECRET, PERSON["address1"])):
        found.add_text(f"value {number} of people.py", text)
    found.add_digits(Digits("ssn_last_four", SSN, words=("ssn", "last_four"), members=(f'"ssn":"{SSN}"', f'"ssn": "{SSN}"')))
    return found


def main():
    data = sys.stdin.buffer.read()
    if not data.strip():
        print("no_canaries: nothing on stdin", file=sys.stderr)
        return 2
    looked_for = needles()
    found = 0
    # The whole, too: base64 may be broken into lines.
    for number, line in enumerate([data, *data.splitlines()]):
        what = looked_for.find(line) + [f"short stem {at}" for at, stem in enumerate(SHORT) if stem in line.lower()]
        if what:
            found += 1
            print(f"{f'line {number}' if number else 'the text'} holds {', '.join(what)}")
    print(f"no_canaries: {len(data.splitlines())} lines, {'nothing found' if not found else 'personal data or a secret found'}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
