"""Searches bytes for what the requests of a history hold. Every personal value of plan and runner holds one of these
stems, so a few searches cover all of them: plain and in capitals, in hex, in UTF-16, in base64."""

import base64
import re

STEMS = (b"zorblatt", b"quillfeather", b"vexmoor", b"mirandolyn", b"brackenwhistle", b"+1415", b"1987-03-14",
         b"8.8.4.4", b"canary-value", b"canary_key", b"customer_ref", b"sandbox-secret")
_SSN = re.compile(rb"""(?<![0-9A-Za-z.+/-])\\?["']8259\\?["']""")
_LONG_ENOUGH = 7  # in another spelling a shorter stem occurs by accident


def _base64_cores(stem):
    """What base64 makes of it, wherever it begins, without the characters that depend on the neighbours."""
    for before in range(3):
        text = base64.b64encode(b"\0" * before + stem)
        core = text[(0, 2, 3)[before]:len(text) // 4 * 4 - 4]
        if len(core) >= _LONG_ENOUGH:
            yield core


def _spellings(stem):
    """What is searched for in the text in small letters, and what in the text as it is."""
    if len(stem) < _LONG_ENOUGH:
        return [stem], []
    written = {stem, stem.capitalize(), stem.upper()}
    return ([stem, stem.decode().encode("utf-16-le"), *(text.hex().encode() for text in written)],
            [core for text in written for core in _base64_cores(text)])


_SPELLINGS = [(number, *_spellings(stem)) for number, stem in enumerate(STEMS)]


def find(data):
    """Names of what was found, never the values."""
    small = data.lower()
    found = [f"stem {number}" for number, folded, exact in _SPELLINGS
             if any(text in small for text in folded) or any(text in data for text in exact)]
    if b"8259" in data and _SSN.search(data):
        found.append("the SSN digits")
    return found
