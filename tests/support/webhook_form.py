"""What CPython makes of a webhook's body: the text that Astra signs. Run by itself it answers bodies that come a line each
in base64: the form in base64, or "-" where there is none. Python's own library is enough for it."""

import base64
import json
import sys


def python_form(body: bytes):
    """What json.dumps writes of the body, or None: it is not JSON, or not an object of strings with one level below, or
    an object has a name twice."""
    def pairs(members):
        if len(dict(members)) != len(members):
            raise ValueError("a name comes twice")
        return dict(members)

    def refuse(word):
        raise ValueError(word)

    try:
        value = json.loads(body.decode(), object_pairs_hook=pairs, parse_constant=refuse)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    for below in value.values():
        if isinstance(below, dict):
            if not all(isinstance(text, str) for text in below.values()):
                return None
        elif not isinstance(below, str):
            return None
    return json.dumps(value).encode()


def main():
    for line in sys.stdin.buffer:
        form = python_form(base64.b64decode(line))
        sys.stdout.buffer.write((b"-" if form is None else base64.b64encode(form)) + b"\n")


if __name__ == "__main__":
    main()
