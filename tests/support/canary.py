"""Personal data must not leave the gateway except to Astra: what was sent is remembered here and searched for.

Which fields are personal is read from the proto option personal_data, as the server does.
"""

import base64
import functools
import json
import urllib.parse

from support.needles import SHORTEST, Needles, Spellings
from support.people import SSN, STEMS
from support.protos import options_pb2
from support.sandbox import CLIENT_SECRET

_SHORTEST = 6  # shorter values occur by accident in ids, times and counters

# Values of tests that the gateway's own addresses and texts hold, too.
_ORDINARY = {"127.0.0.1", "0.0.0.0", "localhost", "example.com", "gateway_attempt_id"}

# The stems in every other spelling, and the credentials of the suites.
_SPELLED = Needles()
for _number, _stem in enumerate((*STEMS, CLIENT_SECRET)):
    if len(_stem) >= SHORTEST:
        _SPELLED.add_text(f"stem {_number}", _stem)

_used = set()
_gateways = []


def personal_values(request):
    """Every personal value of a request, with the keys of its metadata."""
    for field, value in request.ListFields():
        if not field.GetOptions().Extensions[options_pb2.personal_data]:
            continue
        if field.name == "metadata":
            for key, text in value.items():
                yield key
                yield text
        else:
            yield value


def record(request):
    _used.update(value for value in personal_values(request) if len(value) >= _SHORTEST and value not in _ORDINARY)


def watch(gateway):
    _gateways.append(gateway)


def spellings(value):
    """A value as it might turn up: plain, escaped for JSON, for a URL, in base64."""
    yield value
    yield json.dumps(value)[1:-1]
    yield urllib.parse.quote(value, safe="")
    yield base64.b64encode(value.encode("utf-8", "surrogatepass")).decode()


@functools.lru_cache(maxsize=4)
def _spellings_of(values):
    found = Spellings()
    for value in values:
        for form, spelled in enumerate(spellings(value)):
            if len(spelled) >= _SHORTEST:
                found.add(spelled.encode("utf-8", "surrogatepass"), f"a value of {len(value)} characters, in form {form}")
    return found


def find(text, values):
    """The name of the first leak in text, or None. Never the value itself: reports must not leak either."""
    lowered = text.lower()
    for number, stem in enumerate(STEMS):
        if stem in lowered:
            return f"stem {number} of people.STEMS"
    for what in _SPELLED.find(text):
        return what
    for quote in ('"', '\\"', "'"):
        if f"{quote}{SSN}{quote}" in text:
            return "the SSN digits"
    return next(iter(_spellings_of(frozenset(values)).found(text.encode("utf-8", "surrogatepass"))), None)


def check():
    """After each test: nothing that was used in it is in any gateway's output. Forgets what was used."""
    values = set(_used)
    _used.clear()
    gateways, _gateways[:] = list(_gateways), [g for g in _gateways if not g.stopped]
    for gateway in gateways:
        leak = find(gateway.new_output(), values)
        assert leak is None, f"the gateway's log or metrics hold {leak}"
