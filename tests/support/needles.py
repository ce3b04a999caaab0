"""Finds a value in bytes however it is written there: plain, in another case, escaped for JSON, C, HTML or a URL, in hex, in
base64 wherever it begins, in UTF-16.

A needle shorter than eight characters would be found by accident, so a text counts by its words of that length. Digits that
are shorter, or that occur in numbers, are looked for as a token: see Digits. Python's own library is enough; with
pyahocorasick many needles take a fraction of the time.
"""

import base64
import dataclasses
import functools
import html
import json
import re
import urllib.parse

try:
    import ahocorasick
except ImportError:
    ahocorasick = None

SHORTEST = 8       # of a needle; in base64 some of its characters depend on what stands before and behind
_PIECE = 12        # bytes of a key that count by themselves
_FEW = 20          # so many needles are found sooner one by one,
_LITTLE = 10_000   # and in so few bytes, unless all is made for the search already
_STANDARD_TO_URL = bytes.maketrans(b"+/", b"-_")


@dataclasses.dataclass(frozen=True, order=True)
class Needle:
    """`data` as it stands in the bytes searched; `folded`: in small letters, to be found in any case."""
    data: bytes
    folded: bool
    name: str
    form: str

    @property
    def what(self):
        """For a report, which must not leak either."""
        return f"{self.name} ({self.form})"


def _base64_cores(data, shortest=SHORTEST):
    """What base64 makes of it, wherever it begins, without the characters that depend on the neighbours."""
    for before in range(3):
        text = base64.b64encode(b"\0" * before + data)
        core = text[(0, 2, 3)[before]:(before + len(data)) // 3 * 4]
        if len(core) >= shortest:
            yield core
            yield core.translate(_STANDARD_TO_URL)


def _units(text):
    """Its UTF-16 code units."""
    data = text.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(data[at:at + 2], "big") for at in range(0, len(data), 2)]


def _text_forms(text):
    """(form, spelling) of those whose letters may change case without becoming something else."""
    raw = text.encode("utf-8", "surrogatepass")
    escaped = json.dumps(text)[1:-1]
    yield "plain", text
    for form, spelling in (("JSON", escaped), ("JSON with \\/", escaped.replace("/", "\\/")),
                           ("JSON, UTF-8", json.dumps(text, ensure_ascii=False)[1:-1]),
                           ("JSON, all escaped", "".join(f"\\u{unit:04x}" for unit in _units(text)))):
        yield form, spelling
        yield f"{form}, twice", spelling.replace("\\", "\\\\").replace('"', '\\"')
    yield "URL", urllib.parse.quote(text, safe="")
    yield "form", urllib.parse.quote_plus(text)
    yield "path", urllib.parse.quote(text, safe="/:@!$&'()*+,;=")
    yield "URL, all escaped", "".join(f"%{byte:02x}" for byte in raw)
    yield "HTML", html.escape(text)
    printable = [chr(byte) if 0x20 <= byte < 0x7f else None for byte in raw]
    yield "C, hex", "".join(char or f"\\x{byte:02x}" for char, byte in zip(printable, raw))
    yield "C, octal", "".join(char or f"\\{byte:03o}" for char, byte in zip(printable, raw))


def _byte_forms(data):
    """The same of bytes, whose hex may be in either case."""
    yield "hex", data.hex()
    for separator in " :,":
        yield f"hex with {separator!r}", data.hex(separator)
    yield "hex with '\\x'", "".join(f"\\x{byte:02x}" for byte in data)
    yield "hex with ', 0x'", ", ".join(f"0x{byte:02x}" for byte in data)
    yield "octal", "".join(f"\\{byte:03o}" for byte in data)


def of_text(name, text):
    """Every spelling of a text as a whole."""
    assert len(text) >= SHORTEST, f"{name} is too short to be looked for"
    for case in {text, text.lower(), text.upper(), text.title(), text.swapcase()}:
        raw = case.encode("utf-8", "surrogatepass")
        for form, spelling in _text_forms(case):
            yield Needle(spelling.encode("utf-8", "surrogatepass").lower(), True, name, form)
        for form, spelling in _byte_forms(raw):
            yield Needle(spelling.lower().encode(), True, name, form)
        for order in ("le", "be"):
            yield Needle(case.encode(f"utf-16-{order}", "surrogatepass").lower(), True, name, f"UTF-16{order.upper()}")
        for core in _base64_cores(raw):
            yield Needle(core, False, name, "base64")


def words_of(text):
    """The parts of a text that are needles by themselves: it may be cut, or put together from parts."""
    return [word for word in re.split(r"[^0-9A-Za-z\u0080-\uffff]+", text) if len(word) >= SHORTEST]


def of_bytes(name, data):
    """Every spelling of a key's bytes, and of its pieces."""
    assert len(data) >= _PIECE, f"{name} is too short to be looked for"
    for at in range(0, len(data) - _PIECE + 1, _PIECE):
        piece = data[at:at + _PIECE]
        yield Needle(piece, False, name, "raw")
        yield Needle(urllib.parse.quote_from_bytes(piece, safe="").lower().encode(), True, name, "URL")
        for form, spelling in _byte_forms(piece):
            yield Needle(spelling.lower().encode(), True, name, form)
        for core in _base64_cores(piece):
            yield Needle(core, False, name, "base64")


@dataclasses.dataclass(frozen=True)
class Digits:
    """Digits, four of an SSN for instance, that stand by accident in ports, lines, times and sizes. They count where they are
    a whole token in quotes of any kind, and where one of `words` stands right before them; `members` are texts that hold them
    together with what surrounds them on the wire, and count as any text does."""
    name: str
    digits: str
    words: tuple = ()
    members: tuple = ()   # texts
    wire: tuple = ()      # bytes

    @functools.cached_property
    def _token(self):
        digits = re.escape(self.digits.encode())
        quote = rb"""(?:\\*["'`]|\\u0022|%22|&quot;|&#3[49];)"""
        before = [quote]
        if self.words:
            words = b"|".join(re.escape(word.encode()) for word in self.words)
            before.append(rb"(?:" + words + rb")[^0-9A-Za-z\n]{1,12}")
        return re.compile(rb"(?:" + rb"|".join([quote + digits + quote, *(b + digits for b in before[1:])]) + rb")(?![0-9])",
                          re.IGNORECASE)

    def is_token_in(self, data):
        """The pattern is tried around the digits alone: it is slow, and what is searched may be a core file."""
        digits = self.digits.encode()
        around = max(map(len, (*self.words, ""))) + 32
        at = data.find(digits)
        while at >= 0:
            if self._token.search(data, max(0, at - around), at + len(digits) + around):
                return True
            at = data.find(digits, at + 1)
        return False


class Spellings:
    """Bytes to look for, each with what it is. One pass over the bytes searched, whatever their number."""

    def __init__(self):
        self._whats = {}  # data -> what
        self._automaton = None

    def add(self, data, what):
        """What was added first stays."""
        self._whats.setdefault(data, what)
        self._automaton = None

    def found(self, data):
        """What stands in the bytes; the same may come more than once."""
        if ahocorasick is None or len(self._whats) <= _FEW or (self._automaton is None and len(data) < _LITTLE):
            return [what for spelling, what in self._whats.items() if spelling in data]
        if self._automaton is None:
            self._automaton = ahocorasick.Automaton()
            for spelling, what in self._whats.items():
                self._automaton.add_word(spelling.decode("latin-1"), what)
            self._automaton.make_automaton()
        return [what for _, what in self._automaton.iter(data.decode("latin-1"))]

    def whats(self):
        return list(self._whats.values())


class Needles:
    """A set of values to look for."""

    def __init__(self):
        self._needles = {True: Spellings(), False: Spellings()}  # by whether they are folded, of Needle
        self._short = Spellings()  # of Needle, as they are
        self._digits = set()

    def add_text(self, name, text):
        self._take(of_text(name, text))
        for word in words_of(text):
            self._take(of_text(name, word))

    def add_bytes(self, name, data):
        self._take(of_bytes(name, data))

    def add_digits(self, digits):
        self._digits.add(digits)
        for text in digits.members:
            self._take(of_text(digits.name, text))
        for data in digits.wire:
            self._short.add(data, Needle(data, False, digits.name, "wire"))
            self._take(Needle(text.encode(), True, digits.name, f"wire, {form}") for form, text in _byte_forms(data))
            for core in _base64_cores(data, 6):
                self._short.add(core, Needle(core, False, digits.name, "wire, base64"))

    def _take(self, needles):
        for needle in needles:
            self._needles[needle.folded].add(needle.data, needle)

    def find(self, data):
        """What stands in the bytes (or text), by name and form, never the value; [] if nothing does."""
        if isinstance(data, str):
            data = data.encode("utf-8", "surrogatepass")
        folded, exact = self._needles[True], self._needles[False]
        needles = [*folded.found(data.lower()), *exact.found(data), *self._short.found(data)]
        if b"\n" in data:
            needles += exact.found(data.replace(b"\r", b"").replace(b"\n", b""))  # base64 is broken into lines
        found = {needle.what for needle in needles}
        found |= {f"{digits.name} (as a token)" for digits in self._digits if digits.is_token_in(data)}
        return sorted(found)

    def all(self):
        """Every spelling, for the test that each is found."""
        return [needle for folded in self._needles.values() for needle in folded.whats()]
