"""Kills the gateway while it brings a ledger of an older version to the schema from which there is no way back.

Twice, at every point of it: the next start finishes it, everybody who was known is known, and what is kept is the
ledger as it was. tests/unit/ledger/migration_test.cc does the same at every write and at every power cut.
"""

import contextlib
import pathlib
import signal
import sqlite3

import pytest
from crash_server import PROGRAM, TALLY
from support.check import assert_posts
from support.gateway import Gateway, clean_environment
from support.ledger_tool import run
from support.people import person
from support.process import write_secret

POINTS = ["migration-begun", "migration-copied", "migration-written", "migration-committed"]
# What e2e/test_upgrade_people.py says of it.
DUMP = pathlib.Path(__file__).parents[1] / "e2e" / "data" / "ledger_of_version_one.sql"
KEY = bytes(range(100, 148))
OLD_SCHEMA = 3


def old_requests():
    return [person(request_id=f"0a000000-0000-4000-8000-00000000000{number}",
                   email=f"zorblatt.of.version.one.{number}@quillfeather.example.com", phone="+14152000001",
                   first_name=first_name, last_name="Brackenwhistle", address1="7 Quillfeather Way",
                   metadata={"canary_key": "canary-value-1"})
            for number, first_name in enumerate(["Zoe", "Zo\u00eb", "Zoe\u0308"])]


class Old:
    """A ledger of an older version, and the processes that are started on it."""

    def __init__(self, sandbox, directory):
        self.path = directory / "ledger.db"
        self.kept = directory / "ledger.db.before-schema-9"
        with contextlib.closing(sqlite3.connect(self.path)) as database:
            database.executescript(DUMP.read_text())
        self.rows = self.read(self.path)
        self.gateway = Gateway(sandbox, start=False, program=PROGRAM, ledger=f"sqlite:{self.path}",
                               ledger_key_file=write_secret(directory / "key", KEY))

    @staticmethod
    def read(path):
        """Schema and rows of a file without a log; nothing is written."""
        with contextlib.closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as database:
            return (database.execute("PRAGMA user_version").fetchone()[0],
                    database.execute("SELECT * FROM request ORDER BY id").fetchall(),
                    database.execute("SELECT * FROM email ORDER BY id").fetchall())

    def kill(self, point, nth=1):
        """A start that ends itself there."""
        self.gateway.environment = clean_environment(CRASH_AT=f"{point}:{nth}")
        ended = self.gateway.start_once()
        self.gateway.environment = clean_environment()
        assert ended.returncode == -signal.SIGKILL, (point, ended.returncode, ended.stderr[-800:])
        TALLY["kills"] += 1
        if self.kept.exists():
            self.look_at_kept()

    def look_at_kept(self):
        assert self.read(self.kept) == self.rows
        run("check", str(self.kept)).done()

    def serve(self, sandbox):
        self.gateway.start()
        try:
            for request in old_requests():
                assert self.gateway.create(request).ok().replayed
                assert_posts(sandbox, request.email, 0)
            self.gateway.create(person()).ok()
        finally:
            self.gateway.stop()
        self.look_at_kept()
        assert self.rows[0] == OLD_SCHEMA and self.read(self.path)[0] == 9
        run("check", str(self.path)).done()
        left = {entry.name for entry in self.path.parent.iterdir() if "before-schema" in entry.name}
        assert left == {self.kept.name}


@pytest.fixture
def old(sandbox, tmp_path):
    sandbox.reset()
    directory = tmp_path / "ledger"
    directory.mkdir(mode=0o700)
    old = Old(sandbox, directory)
    yield old
    if not old.gateway.stopped:
        old.gateway.close()


@pytest.mark.parametrize("first, second", [(first, second) for first in POINTS[:-1] for second in POINTS])
def test_killed_twice(old, sandbox, first, second):
    old.kill(first)
    old.kill(second)
    old.serve(sandbox)


@pytest.mark.parametrize("nth", [1, 2, 9, 20])
def test_killed_while_its_log_is_copied(old, sandbox, nth):
    """And once more at the next start, at whatever page it stands."""
    old.kill("migration-committed")
    old.kill("during-checkpoint", nth)
    old.kill("during-checkpoint", 1)
    old.serve(sandbox)
