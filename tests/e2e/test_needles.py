"""The search for canaries can fail: each of them, written in each way, is found and named; what only looks alike is not.

The writers here are others than those that support/needles.py searches by, where Python's library has others."""

import base64
import binascii
import html
import json
import os
import quopri
import textwrap
import urllib.parse

import pytest

from support import canaries
from support.certs import Authority
from support.protos import REPO, pb

TEXTS = {**{name: value for name, value in canaries.PERSON.items() if isinstance(value, str) and len(value) >= 8},
         "phone": canaries.PHONE, "email": f"{canaries.EMAIL_LOCAL}.1@{canaries.EMAIL_DOMAIN}",
         "a key of metadata": canaries.METADATA_KEY, "a value of metadata": canaries.METADATA_VALUE,
         **{name: getattr(canaries, name) for name in (
             "CLIENT_ID", "CLIENT_SECRET", "WRONG_SECRET", "WEBHOOK_SECRET", "BODY", "HEADER", "CALL_METADATA", "STREAM", "AUTH_STATE",
             "WEBHOOK_BODY", "FILE", "VARIABLE")}}


def percent(text, pattern):
    return "".join(pattern % byte for byte in text.encode())


def units(text, pattern):
    data = text.encode("utf-16-be")
    return "".join(pattern % int.from_bytes(data[at:at + 2], "big") for at in range(0, len(data), 2))


BYTE_WRITERS = {
    "hex": lambda data: binascii.hexlify(data).decode(),
    "hex in capitals": lambda data: binascii.hexlify(data).decode().upper(),
    "hex with blanks": lambda data: " ".join("%02X" % byte for byte in data),
    "hex with colons": lambda data: binascii.hexlify(data, ":").decode(),
    "hex in C": lambda data: "".join("\\x%02X" % byte for byte in data),
    "octal in C": lambda data: "".join("\\%03o" % byte for byte in data),
    "an array": lambda data: "{" + ", ".join("0x%02x" % byte for byte in data) + "}",
    "base64": lambda data: binascii.b2a_base64(data).decode(),
    "base64, one byte later": lambda data: binascii.b2a_base64(b"x" + data + b"y").decode(),
    "base64, two bytes later": lambda data: binascii.b2a_base64(b"xy" + data + b"z").decode(),
    "base64 in lines": lambda data: textwrap.fill(base64.b64encode(b"before " * 9 + data).decode(), 64),
    "base64 for URLs": lambda data: base64.urlsafe_b64encode(data).decode().rstrip("="),
    "base64 for URLs, one byte later": lambda data: base64.urlsafe_b64encode(b"x" + data).decode(),
    "base64 for URLs, two bytes later": lambda data: base64.urlsafe_b64encode(b"xy" + data).decode(),
}

TEXT_WRITERS = {
    "plain": str,
    "small letters": str.lower,
    "capitals": str.upper,
    "swapped case": str.swapcase,
    "JSON": lambda text: json.dumps({"a": text}),
    "JSON in UTF-8": lambda text: json.dumps([text], ensure_ascii=False),
    "JSON in JSON": lambda text: json.dumps({"a": json.dumps({"b": text})}),
    "JSON with slashes escaped": lambda text: json.dumps(text).replace("/", "\\/"),
    "JSON, each escaped": lambda text: units(text, "\\u%04x"),
    "JSON, each escaped, capitals": lambda text: units(text, "\\u%04X"),
    "URL": lambda text: urllib.parse.quote(text, safe=""),
    "a path": urllib.parse.quote,
    "a form": lambda text: urllib.parse.urlencode({"a": text}),
    "a form in small letters": lambda text: urllib.parse.urlencode({"a": text}).lower(),
    "URL, each escaped": lambda text: percent(text, "%%%02x"),
    "URL, each escaped, capitals": lambda text: percent(text, "%%%02X"),
    "HTML": html.escape,
    "Python": ascii,
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16, big end first": lambda text: text.encode("utf-16-be"),
    "cut short": lambda text: text[:-1],
    "cut in front": lambda text: text[1:],
    **{name: lambda text, write=write: write(text.encode()) for name, write in BYTE_WRITERS.items()},
}


@pytest.fixture(scope="module")
def needles():
    return canaries.needles()


def planted(written):
    """In the middle of something."""
    data = written if isinstance(written, bytes) else written.encode()
    return b'{"time":"2024-05-01T12:00:00.000Z","level":"info","detail":"' + data + b'","count":7391}\n'


def found_as(needles, name, written):
    return any(what.startswith(name) for what in needles.find(planted(written)))


@pytest.mark.parametrize("writer", TEXT_WRITERS)
def test_each_text_is_found(needles, writer):
    for name, text in TEXTS.items():
        if name in ("phone", "postal_code", "date_of_birth", "ip_address") and writer.startswith("cut"):
            continue  # one word of digits
        assert found_as(needles, name, TEXT_WRITERS[writer](text)), f"{name} as {writer} is not found"


@pytest.mark.parametrize("writer", ["raw", *BYTE_WRITERS])
def test_each_key_is_found(writer):
    authority = Authority()
    key, _ = authority.issue("it", ["DNS:localhost"])
    needles = canaries.needles([key])
    [number] = canaries.private_key_numbers(key.read_bytes())
    write = BYTE_WRITERS.get(writer, bytes)
    for name, data in {"LEDGER_KEY": canaries.LEDGER_KEY, "a private key": number}.items():
        for part in (data, data[:30], data[len(data) // 2 - 11:]):
            assert found_as(needles, name, write(part)), f"{name} as {writer} is not found"
    assert found_as(needles, "a private key", key.read_bytes())
    authority.close()


NUMBER_WRITERS = {
    "JSON": lambda name, digits: json.dumps({name: digits}),
    "JSON without blanks": lambda name, digits: json.dumps({name: digits}, separators=(",", ":")),
    "JSON in JSON": lambda name, digits: json.dumps(json.dumps({name: digits})),
    "a token": lambda name, digits: f"refused '{digits}' there",
    "a log's word": lambda name, digits: f"{name}={digits}",
    "a form": lambda name, digits: urllib.parse.urlencode({name: digits}),
    "JSON in a URL": lambda name, digits: urllib.parse.quote(json.dumps({name: digits})),
    "JSON in base64": lambda name, digits: base64.b64encode(b'{"a":1,' + f'"{name}":"{digits}"'.encode() + b',"b":2}').decode(),
    "JSON in hex": lambda name, digits: f'"{name}":"{digits}"'.encode().hex(),
    "JSON in UTF-16": lambda name, digits: f'"{name}":"{digits}"'.encode("utf-16-le"),
}


@pytest.mark.parametrize("writer", NUMBER_WRITERS)
def test_the_digits_of_an_ssn_are_found_where_they_are_said_to_be_one(needles, writer):
    for name in ("ssn", "ssn_last_four"):
        if name == "ssn" or writer not in ("JSON in base64", "JSON in hex", "JSON in UTF-16"):
            assert found_as(needles, "ssn_last_four", NUMBER_WRITERS[writer](name, canaries.SSN)), name


@pytest.mark.parametrize("name", list(pb.CreateUserIntentRequest.DESCRIPTOR.fields_by_name))
def test_one_field_of_a_message_is_found(needles, name):
    """As protobuf prints it and as it is sent, in base64 and hex too. What stands for no person is not."""
    value = canaries.fields().get(name)
    if value is None or name == "request_id":
        assert needles.find(str(pb.CreateUserIntentRequest(request_id=canaries.fields()["request_id"]))) == []
        return
    message = pb.CreateUserIntentRequest(**{name: value})
    data = message.SerializeToString()
    written = [str(message)]
    if name != "state":  # two letters, which say nothing without the field's name
        written += [data, b"before" + data, base64.b64encode(data).decode(), base64.b64encode(b"x" + data).decode(), data.hex()]
    for one in written:
        what = needles.find(one)
        assert any(found.startswith((name, "a key of metadata")) for found in what), what


def test_what_looks_alike_is_not_found(needles):
    port = canaries.SSN
    for text in (f"127.0.0.1:{port}", f'{{"line":{port},"count":{port},"latency_ms":{port}}}', f'"address":"[::1]:{port}"', f"pid {port}",
                 f"userintent_posts_total {port}", f'"time":"2024-05-01T12:00:00.{port}Z"', f"5f0c{port}-{port}-4000", '"state":"SUCCEEDED"',
                 "GUARD", "+1", "1957", "19570823123456", quopri.encodestring(b"nothing").decode()):
        assert needles.find(text) == [], text
    assert needles.find(os.urandom(300_000)) == []
    for page in sorted((REPO / "docs").glob("*.md")):
        assert needles.find(page.read_bytes()) == [], page.name
