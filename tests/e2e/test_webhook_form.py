"""The text that Astra signs is what CPython's json.dumps writes. The server writes it by itself (server/webhook/json_object.cc);
here it is held against the real CPython, by a small program around that code. E2E_FORMS: how many objects, E2E_SEED: which."""

import base64
import os
import random
import subprocess

import pytest

from support.process import BIN_DIR
from support.webhook_form import python_form

PROGRAM = BIN_DIR / "webhook-python-form"
COUNT = int(os.environ.get("E2E_FORMS", "100000"))
RANGES = [(0x20, 0x7e), (0x20, 0x7e), (0x00, 0x1f), (0x7f, 0x9f), (0xa0, 0x7ff), (0x800, 0xd7ff), (0xe000, 0xffff),
          (0x10000, 0x10ffff), (0xd800, 0xdfff), (0x22, 0x22), (0x5c, 0x5c), (0x2f, 0x2f)]


def server_forms(bodies):
    lines = b"\n".join(map(base64.b64encode, bodies)) + b"\n"
    done = subprocess.run([PROGRAM], input=lines, stdout=subprocess.PIPE, check=True, timeout=600)
    answers = done.stdout.split(b"\n")[:-1]
    assert len(answers) == len(bodies)
    return [None if answer == b"-" else base64.b64decode(answer) for answer in answers]


def differences(bodies):
    """How many had a form; asserts that both agree on every one."""
    forms = 0
    for body, ours in zip(bodies, server_forms(bodies), strict=True):
        theirs = python_form(body)
        assert ours == theirs, f"body {body!r}\nserver {ours!r}\npython {theirs!r}"
        forms += theirs is not None
    return forms


def random_text(rng):
    return "".join(chr(rng.randint(*rng.choice(RANGES))) for _ in range(rng.choice((0, 1, 2, 5, 12, 40))))


def written(rng, text):
    """The string as some JSON library might write it: each character plain, by name or by number."""
    out = ['"']
    for character in text:
        code = ord(character)
        names = {'"': '\\"', "\\": "\\\\", "/": "\\/", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
        units = character.encode("utf-16-be", "surrogatepass").hex()
        number = "".join("\\u" + units[i:i + 4] for i in range(0, len(units), 4))
        ways = [number, number.upper().replace("\\U", "\\u")]
        if character in names:
            ways.append(names[character])
        if code >= 0x20 and character not in '"\\' and not 0xd800 <= code <= 0xdfff:
            ways += [character] * 4
        out.append(rng.choice(ways))
    return "".join([*out, '"'])


def random_object(rng):
    def space():
        return "".join(rng.choice(" \t\r\n") for _ in range(rng.choice((0, 0, 0, 1, 3))))

    def members(count, value):
        names = {random_text(rng) for _ in range(count)}
        inside = [space() + written(rng, name) + space() + ":" + space() + value() + space() for name in rng.sample(sorted(names), len(names))]
        return "{" + (",".join(inside) or space()) + "}"

    def text():
        return written(rng, random_text(rng))

    def value():
        return members(rng.choice((0, 1, 3)), text) if rng.random() < 0.2 else text()

    return (space() + members(rng.choice((0, 1, 2, 5, 9)), value) + space()).encode()


@pytest.fixture(scope="module")
def rng():
    seed = os.environ.get("E2E_SEED") or str(random.randrange(1 << 32))
    print(f"E2E_SEED={seed}")
    return random.Random(seed)


def test_random_objects_have_the_same_form(rng):
    bodies = [random_object(rng) for _ in range(COUNT)]
    # Halves of pairs that meet are one character in CPython, so a few names may turn out equal: no form then.
    assert differences(bodies) > COUNT * 0.95


def test_damaged_objects_are_judged_alike(rng):
    """A byte more, less or another: what CPython takes, the server takes, and nothing else."""
    bodies = []
    for _ in range(COUNT // 5):
        body = bytearray(random_object(rng))
        for _ in range(rng.choice((1, 1, 2))):
            at = rng.randrange(len(body) + 1)
            piece = rng.choice((b"", b'"', b"\\", b",", b"{", b"}", b":", b"null", b"1", b"[]", b"\x00", b"\xed\xa0\x80",
                                bytes([rng.randrange(256)])))
            body[at:at + rng.choice((0, 1))] = piece
        bodies.append(bytes(body))
    differences(bodies)


def test_what_astra_documents_has_its_form():
    body = (b'{"webhook_type":"user_intent_updated","webhook_id":"w-1","user_id":"i-1","resource_id":"i-1",'
            b'"metadata":{"customer":"J\xc3\xb6rg \xf0\x9f\x98\x80"}}')
    assert server_forms([body]) == [
        b'{"webhook_type": "user_intent_updated", "webhook_id": "w-1", "user_id": "i-1", "resource_id": "i-1", '
        b'"metadata": {"customer": "J\\u00f6rg \\ud83d\\ude00"}}']
