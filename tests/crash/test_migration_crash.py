"""Kills the gateway while it brings a ledger of an older version to the schema from which there is no way back.

Twice, at every point of it: the next start finishes it, everybody who was known is known, and what is kept is the
ledger as it was. tests/unit/ledger/migration_test.cc does the same at every write and at every power cut.
"""

import contextlib
import signal
import sqlite3

import pytest
from crash_server import PROGRAM, TALLY
from support import old_ledger
from support.check import assert_posts
from support.gateway import Gateway, clean_environment
from support.ledger_tool import run
from support.people import person

POINTS = ["migration-begun", "migration-copied", "migration-written", "migration-committed"]


class Old:
    """A ledger of an older version, and the processes that are started on it."""

    def __init__(self, sandbox, directory):
        self.path = directory / "ledger.db"
        self.kept = directory / "ledger.db.before-schema-9"
        flags = old_ledger.make(directory)
        self.rows = self.read(self.path)
        self.gateway = Gateway(sandbox, start=False, program=PROGRAM, **flags)

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
            for request in old_ledger.old_people():
                assert self.gateway.create(request).ok().replayed
                assert_posts(sandbox, request.email, 0)
            self.gateway.create(person()).ok()
        finally:
            self.gateway.stop()
        self.look_at_kept()
        assert self.rows[0] == old_ledger.SCHEMA and self.read(self.path)[0] == 9
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
