"""Canaries: values that stand for nothing but themselves, one for every field of a person, every credential and every part of
Astra's answers, and the search for them in whatever a program leaves behind.

Each text holds words that occur nowhere else, and characters that JSON, URLs and HTML write in another way.
"""

import base64
import contextlib
import ipaddress
import os
import pathlib
import re
import uuid

from support.needles import Digits, Needles

FIRST_NAME = 'Quorvendal "Jøxmithor" b/c'
LAST_NAME = "Trëzlumbraxen-Ovkildane d'A"
PREFERRED_FIRST_NAME = "Yibberquost \u0141ukvarmish"
PREFERRED_LAST_NAME = "Hasqueldorf+Wimprolzy"
PREFERRED_PRONOUNS = "zelquarn/zelquims"
ADDRESS1 = "4172 Hembruxley & Plonkwethy Row"
ADDRESS2 = "Unit Pyxvolbrand <7>"
CITY = "Ostrevyndal=Kwimblethorpe"
STATE = "GU"
POSTAL_CODE = "96931-7284"
PHONE = "+13479082615"
DATE_OF_BIRTH = "1957-08-23"
SSN = "7391"
IP_ADDRESS = "2600:1f18:47ab:9e03:c5d1:6a2:7b29:31d4"
METADATA_KEY = "Thrumvexil.k_Gorblanque"
METADATA_VALUE = "Bryndolvex Åkstarmiqu&=?%/+ \\x"
EMAIL_DOMAIN = "dwarvikelt.example.com"
EMAIL_LOCAL = "kvostrelim.gynbaxor+Flomquire"

CLIENT_ID = "client-Zanquibulver-3kd8"
CLIENT_SECRET = "Secret/Mulvornaxis+Pqzwyl=dT40xk"
WRONG_SECRET = "Secret/Harnvoskelim+Bqwolt=eN71rz"
WEBHOOK_SECRET = "Webhook Dremquolvast/9xk+wQtyz="
LEDGER_KEY = bytes((37 * at + 101) % 251 for at in range(48))

BODY = "Glimvorstrax says: Oznackelbirth"       # of an answer of Astra's
HEADER = "Ubbequarlinth-Swozzleminder"           # in the head of an answer
CALL_METADATA = "Fremulqvadic Lobstrunquay"      # of a call's gRPC metadata
STREAM = "Crivvulmasqe-Jintropaxle"              # in bytes that are no call
AUTH_STATE = "Wolfrintaque-Dzemblovari~19"       # of GetAuthorizationUrl
WEBHOOK_BODY = "Nimbraquoltes/Vashkorilund"
FILE = "Pladquimorset Yantrelwoqs"               # in a file that a setting names by mistake
VARIABLE = "Skoffelbrint-Quaddimurzel"           # value of a variable of the environment

PERSON = dict(phone=PHONE, first_name=FIRST_NAME, last_name=LAST_NAME, preferred_first_name=PREFERRED_FIRST_NAME,
              preferred_last_name=PREFERRED_LAST_NAME, preferred_pronouns=PREFERRED_PRONOUNS, address1=ADDRESS1,
              address2=ADDRESS2, city=CITY, state=STATE, postal_code=POSTAL_CODE, date_of_birth=DATE_OF_BIRTH,
              ssn_last_four=SSN, ip_address=IP_ADDRESS, metadata={METADATA_KEY: METADATA_VALUE})

# Four digits and a date: what surrounds them where a person is written down, as JSON, as text and on the wire (the fields' tags
# are those of the proto).
NUMBERS = (
    Digits("ssn_last_four", SSN, words=("ssn", "last_four", "lastFour", "four"),
           members=(f'"ssn":"{SSN}"', f'"ssn": "{SSN}"', f'ssn_last_four: "{SSN}"', f"ssn_last_four={SSN}"),
           wire=(b"z\x04" + SSN.encode(),)),
    Digits("state", STATE, words=("state:", '"state"', "state="), members=(f'"state":"{STATE}"', f'"state": "{STATE}"')),
    Digits("date_of_birth", DATE_OF_BIRTH.replace("-", ""), words=("birth", "dob")),
)

_run = int.from_bytes(os.urandom(6), "big")
_count = 0


def email():
    """A new one: an address has three attempts."""
    global _count
    _count += 1
    return f"{EMAIL_LOCAL}.{_run:x}.{_count}@{EMAIL_DOMAIN}"


def fields(**changes):
    """Of a valid CreateUserIntentRequest; a change to None leaves the field out. Persons differ by their e-mail address."""
    values = {**PERSON, "request_id": str(uuid.uuid4()), "email": email(), **changes}
    return {name: value for name, value in values.items() if value is not None}


def person(**changes):
    from support.protos import pb  # not above: the rest needs no more than Python's own library
    return pb.CreateUserIntentRequest(**fields(**changes))


def body():
    """An answer of Astra's that says all that it knows of the person."""
    echo = {"ssn" if name == "ssn_last_four" else name: value for name, value in PERSON.items()}
    return {"code": 400, "name": BODY, "description": f"{BODY}: bad phone {PHONE} of {FIRST_NAME}, ssn {SSN}",
            "error": BODY, "message": [BODY], "email": f"{EMAIL_LOCAL}@{EMAIL_DOMAIN}", **echo}


def headers():
    """The head of such an answer; Request-Id, which is told to callers and to operators, is a plain one."""
    return {"X-Debug": HEADER, "Set-Cookie": f"session={HEADER}", "Server": HEADER, "Request-Id": "req-4711",
            "Location": f"https://{HEADER}.example.com/?of={HEADER}", "Warning": f"199 - {HEADER}"}


def private_key_numbers(pem):
    """The secret numbers of private keys in PEM: what is in the DER of each beyond its public parts."""
    for block in re.findall(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----(.*?)-----END", pem, re.DOTALL):
        der = base64.b64decode(b"".join(block.split()))
        at = der.find(b"\x02\x01\x01\x04\x20")  # ECPrivateKey, version 1, 32 octets
        assert at >= 0, "no key on P-256"
        yield der[at + 5:at + 37]


def needles(keys=()):
    """All of them. `keys`: files of private keys, in PEM."""
    found = Needles()
    for name, value in PERSON.items():
        if name == "metadata":
            found.add_text("a key of metadata", METADATA_KEY)
            found.add_text("a value of metadata", METADATA_VALUE)
        elif len(value) >= 8:
            found.add_text(name, value)
    found.add_text("phone", PHONE[2:])
    found.add_text("email", EMAIL_LOCAL)
    found.add_text("email", EMAIL_DOMAIN)
    found.add_bytes("ip_address", ipaddress.ip_address(IP_ADDRESS).packed)
    for digits in NUMBERS:
        found.add_digits(digits)
    for name in ("CLIENT_ID", "CLIENT_SECRET", "WRONG_SECRET", "WEBHOOK_SECRET", "BODY", "HEADER", "CALL_METADATA", "STREAM",
                 "AUTH_STATE", "WEBHOOK_BODY", "FILE", "VARIABLE"):
        found.add_text(name, globals()[name])
    found.add_bytes("LEDGER_KEY", LEDGER_KEY)
    for path in keys:
        pem = pathlib.Path(path).read_bytes()
        for number in private_key_numbers(pem):
            found.add_bytes("a private key", number)
        for line in pem.splitlines()[1:-1]:
            if len(line) == 64:
                found.add_text("a private key", line.decode())
    return found


PROC = ("environ", "cmdline", "comm", "maps", "status", "stat", "limits", "mountinfo", "cgroup", "wchan")


def of_process(pid):
    """(name, bytes) of what /proc shows of a process, its threads and its descriptors."""
    root = pathlib.Path(f"/proc/{pid}")
    for name in PROC:
        with contextlib.suppress(OSError):
            yield f"/proc/{name}", (root / name).read_bytes()
    for thread in (root / "task").iterdir():
        for name in ("comm", "status", "stat", "wchan"):
            with contextlib.suppress(OSError):
                yield f"/proc/task/{name}", (thread / name).read_bytes()
    for descriptor in (root / "fd").iterdir():
        with contextlib.suppress(OSError):
            yield "/proc/fd", os.readlink(descriptor).encode()
            yield "/proc/fdinfo", (root / "fdinfo" / descriptor.name).read_bytes()


def of_directory(directory, but=()):
    """(name, bytes) of every file below it, with its name; `but`: files in which an operator put a secret."""
    but = {pathlib.Path(path).resolve() for path in but}
    for path in sorted(pathlib.Path(directory).rglob("*")):
        yield "a file's name", path.name.encode()
        if path.is_file() and path.resolve() not in but:
            yield path.name, path.read_bytes()
