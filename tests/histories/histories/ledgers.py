"""The ledgers that a history can have: the gateway's flags for each, and what of it can be read from outside."""

import contextlib
import sqlite3
import uuid

from support import postgres

# As short as they may be: so long after a kill the rows of the dead process are SENDING.
_REPLICA = {"ledger_migrate": True, "ledger_single_node": True, "ledger_lease": "2s", "ledger_fence": "5s"}


class OnDisk:
    """SQLite, in a directory of the gateway's."""

    def __init__(self, directory):
        self._path = directory / "ledger"
        self.flags = {"ledger": f"sqlite:{self._path}/ledger.db"}

    def files(self):
        """To be searched. The ledger's own file must be among them."""
        files = [path for path in self._path.iterdir() if path.is_file()]
        assert any(path.name == "ledger.db" for path in files), "there is no ledger.db to search"
        return files

    def rows(self, columns, rest):
        """Of a gateway that has ended: ids as text, everything else as it is."""
        with contextlib.closing(sqlite3.connect(f"file:{self._path}/ledger.db?mode=ro", uri=True)) as database:
            for row in database.execute(f"SELECT {columns} FROM {rest}"):
                yield tuple(str(uuid.UUID(bytes=value)) if isinstance(value, bytes) else value for value in row)

    def sending(self):
        """How many rows are SENDING though nothing runs; where there is one process alone, none can be."""
        return 0

    def close(self):
        pass


class InPostgres:
    """A server of its own."""

    def __init__(self, _):
        self._cluster = postgres.Cluster(memory=True)
        self.flags = {"ledger": self._cluster.database("history"), **_REPLICA}

    def files(self):
        return [path for path in self._cluster.primary.data.rglob("*") if path.is_file()]

    def rows(self, columns, rest):
        for row in self._cluster.primary.sql(f"SELECT {columns} FROM userintent.{rest}", "history"):
            yield tuple(self._plain(value) for value in row)

    @staticmethod
    def _plain(value):
        with contextlib.suppress(ValueError):
            return int(value)
        return {"t": True, "f": False}.get(value, value)

    def sending(self):
        return int(self._cluster.primary.value("SELECT count(*) FROM userintent.request WHERE state = 1", "history"))

    def close(self):
        self._cluster.close()


KINDS = {"sqlite": OnDisk, "postgres": InPostgres}

