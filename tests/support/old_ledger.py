"""A ledger of schema 3, from before people were compared in Unicode NFC. e2e/data/ledger_of_version_one.sql is the dump of
one that a gateway of that time made of old_people()."""

import contextlib
import pathlib
import sqlite3

from support.people import person
from support.process import write_secret

SCHEMA = 3
_KEY = bytes(range(100, 148))
_DUMP = pathlib.Path(__file__).parents[1] / "e2e" / "data" / "ledger_of_version_one.sql"


def old_people():
    """One in ASCII, one whose name came composed, one whose name came decomposed."""
    return [person(request_id=f"0a000000-0000-4000-8000-00000000000{number}",
                   email=f"zorblatt.of.version.one.{number}@quillfeather.example.com", phone="+14152000001",
                   first_name=first_name, last_name="Brackenwhistle", address1="7 Quillfeather Way",
                   metadata={"canary_key": "canary-value-1"})
            for number, first_name in enumerate(["Zoe", "Zo\u00eb", "Zoe\u0308"])]


def make(directory):
    """The ledger, as ledger.db in the directory: the flags of a gateway on it."""
    path = directory / "ledger.db"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.executescript(_DUMP.read_text())
    return dict(ledger=f"sqlite:{path}", ledger_key_file=write_secret(directory / "key", _KEY))
