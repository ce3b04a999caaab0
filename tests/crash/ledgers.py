"""The ledgers that a crash-server can have: its flags for each, and what a process left in it, read from outside."""

import collections
import contextlib
import dataclasses
import pathlib
import shutil
import sqlite3
import tempfile
import uuid

from support.people import STEMS
from support.process import wait_for

SENDING, SUCCEEDED, FAILED, UNKNOWN, RELEASED = range(1, 6)
STATE_NAMES = {SENDING: "SENDING", SUCCEEDED: "SUCCEEDED", FAILED: "FAILED", UNKNOWN: "UNKNOWN", RELEASED: "RELEASED"}


@dataclasses.dataclass(frozen=True)
class Row:
    state: int
    reason: int
    confirmed: int
    intent: str
    attempts: int
    attempt_id: str
    superseded: bool
    email: int


@dataclasses.dataclass
class Files:
    """What a process left behind: rows by request_id, and the counters (confirmed, possible) of each e-mail's number."""
    rows: dict
    counters: dict

    def in_state(self, state):
        return {request_id for request_id, row in self.rows.items() if row.state == state}


def _needles(values):
    """What must not be found, in lower case. Values come in other spellings, too."""
    needles = [stem.encode() for stem in STEMS]
    for value in values:
        raw = value.lower().encode()
        needles += [raw, raw.hex().encode(), raw.decode().encode("utf-16-le")]
    return needles


def _leak_in(paths, values):
    needles = _needles(values)
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # a database removes some of its files while it runs
            data = path.read_bytes().lower()
            if any(needle in data for needle in needles):
                return path.name
    return None


def _settled(entries):
    """How often each request was settled, by the audit."""
    assert all(actor == "astra" for _, actor in entries), "an operator was at work"
    return collections.Counter(request_id for request_id, _ in entries)


class OnDisk:
    """SQLite. Everything here is read from a copy, because opening a database with a log writes to it. The ledger's own
    process must be dead."""

    def __init__(self, directory):
        self.directory = directory / "ledger"
        self.flags = {"ledger": f"sqlite:{self.directory}/ledger.db"}

    @contextlib.contextmanager
    def _copy(self):
        with tempfile.TemporaryDirectory(prefix="crash-ledger-") as copy:
            for path in self.directory.iterdir():
                if path.is_file() and not path.name.endswith(".lock"):  # the administrators' socket is none
                    shutil.copy(path, copy)
            with contextlib.closing(sqlite3.connect(pathlib.Path(copy) / "ledger.db")) as database:
                database.execute("PRAGMA synchronous = OFF")  # of the copy: closing it copies the log
                yield database

    def read(self):
        with self._copy() as database:
            if not database.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                return Files({}, {})
            rows = {str(uuid.UUID(bytes=row[0])): Row(*row[1:6], str(uuid.UUID(bytes=row[6])), row[7] is not None, row[8])
                    for row in database.execute(
                        "SELECT request_id, state, reason, confirmed, user_intent_id, attempts, attempt_id, superseded_by, "
                        "email FROM request")}
            counters = {row[0]: row[1:] for row in database.execute("SELECT id, confirmed, possible FROM email")}
        return Files(rows, counters)

    def settled(self):
        """({request_id: how often it was settled}, conflicts)."""
        with self._copy() as database:
            entries = [(str(uuid.UUID(bytes=request_id)), actor)
                       for request_id, actor in database.execute("SELECT request_id, actor FROM audit")]
            return _settled(entries), database.execute("SELECT count(*) FROM conflict").fetchone()[0]

    def leak(self, values=()):
        """The name of a file that holds personal data, or None."""
        return _leak_in(filter(pathlib.Path.is_file, self.directory.iterdir()), values)


class InPostgres:
    """A database of its own in a cluster. Other replicas may live; whoever died must be `buried` before anything is read."""

    LEASE, FENCE = 2, 5  # seconds; the shortest that are allowed

    def __init__(self, cluster, _directory):
        self._cluster = cluster
        url = cluster.database()
        self._name = url.partition("?")[0].rpartition("/")[2]
        self.flags = {"ledger": url, "ledger_migrate": True, "ledger_single_node": True, "ledger_lease": f"{self.LEASE}s",
                      "ledger_fence": f"{self.FENCE}s", "replica_name": "mortal"}

    def _sql(self, text):
        return self._cluster.primary.sql(text, self._name)

    def _number(self, text):
        return int(self._sql(text)[0][0])

    def buried(self):
        """What the process that is gone had sent is done: a commit that was on its way takes effect after its death."""
        def nobody():
            return not self._number("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                                    "AND application_name = 'userintent mortal'")
        wait_for(nobody, "the sessions of the process that was killed end")

    def read(self):
        """Rows and counters of one moment, though another replica may be at work."""
        rows, counters = {}, {}
        for row in self._sql(
                "SELECT request_id, state, reason, confirmed::int, user_intent_id, attempts, attempt_id, "
                "(superseded_by IS NOT NULL)::int, email FROM userintent.request UNION ALL "
                "SELECT NULL, 0, 0, confirmed, '', possible, NULL, 0, id FROM userintent.email"):
            state, reason, confirmed, attempts, superseded, email = (int(row[index]) for index in (1, 2, 3, 5, 7, 8))
            if row[0]:
                rows[row[0]] = Row(state, reason, confirmed, row[4], attempts, row[6], bool(superseded), email)
            else:
                counters[email] = (confirmed, attempts)
        return Files(rows, counters)

    def settled(self):
        return _settled(self._sql("SELECT request_id, actor FROM userintent.audit")), self._number(
            "SELECT count(*) FROM userintent.conflict")

    def left(self):
        """The ids of those that killed processes have left SENDING. None of them may live."""
        return {row[0] for row in self._sql("SELECT request_id FROM userintent.request r JOIN userintent.replica p "
                                            "ON p.epoch = r.owner WHERE r.state = 1 AND p.name = 'mortal'")}

    def alive(self):
        """How many replicas nobody has fenced."""
        return self._number("SELECT count(*) FROM userintent.replica WHERE ended IS NULL")

    def let_claims_end(self):
        """As if the minute were over for which nobody else works on a webhook that one replica has stored."""
        self._sql("UPDATE userintent.webhook SET claimed_until = 0 WHERE due_at IS NOT NULL")

    def leak(self, values=()):
        """Takes a while: the whole cluster's files and its log are searched."""
        for node in self._cluster.nodes:
            if any(needle in node.process.text().lower().encode() for needle in _needles(values)):
                return "the server's log"
            if (name := _leak_in(filter(pathlib.Path.is_file, node.data.rglob("*")), values)) is not None:
                return name
        return None
