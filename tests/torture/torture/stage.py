"""The programs of a run: a sandbox, a cluster, and replicas that reach it each by sockets of its own."""

import contextlib
import json
import pathlib
import shutil
import signal
import tempfile

from support import canary, postgres
from support.people import STEMS
from support.process import free_port, write_secret
from support.sandbox import Sandbox
from support.server import SERVER, Server
from torture.judge import Row

# The shortest that are allowed, so that fencing and sweeping happen many times in a run.
LEASE, FENCE, EXCHANGE = 2, 5, 2  # seconds
QUIET = EXCHANGE + 5
FLAGS = {
    "ledger_lease": f"{LEASE}s",
    "ledger_fence": f"{FENCE}s",
    "upstream_timeout": f"{EXCHANGE}s",
    "connect_timeout": "1s",
    "drain_timeout": "15s",
    "metrics_listen": "127.0.0.1:0",
}

# The callers meet at the same addresses all the time, which looks like probing.
POLICY = {"version": 1, "callers": [
    {"name": "local", "methods": ["CreateUserIntent", "GetCreation", "GetUserIntent", "WatchUserIntents"],
     "probe_rate": {"per_second": 100_000, "burst": 1_000_000}}]}


class Stage:
    """`kind` of the standby: "sync", "async" or None. All replicas serve when it is made, each of them a `make` (Server, or
    Gateway where calls are wanted) of `program`."""

    def __init__(self, kind, replicas=3, program=SERVER, make=Server, **flags):
        self.cluster = self.sandbox = None
        self.servers, self.proxies = [], []
        self.logs = []       # of processes that are gone
        self.ended = []      # what gateways said that ended by themselves
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="torture-", dir="/tmp"))
        try:
            self.cluster = postgres.Cluster(kind, memory=True)
            self.url = self.cluster.database()
            # Nobody is refused by Astra for a fourth intent: that there is none is the replicas' doing.
            self.sandbox = Sandbox(attempt_limit=0)
            self._make(kind, replicas, program, make, flags)
        except BaseException:
            self.close()
            raise

    def _make(self, kind, replicas, program, make, flags):
        policy = write_secret(self.directory / "policy.json", json.dumps(POLICY))
        for number in range(replicas):
            proxy = postgres.Proxy(self.cluster)
            self.proxies.append(proxy)
            place = self.directory / f"replica{number}"
            place.mkdir()
            server = make(self.sandbox, start=False, directory=place, program=program, **{
                **FLAGS, "listen": f"127.0.0.1:{free_port()}", "ledger": proxy.url(self.url), "policy_file": policy,
                "replica_name": f"replica{number}", "ledger_migrate": number == 0,
                "ledger_single_node": kind != "sync", **flags})
            if self.servers:  # one ledger, one key
                server.flags["ledger_key_file"] = self.servers[0].flags["ledger_key_file"]
            server.start()
            self.servers.append(server)

    @property
    def addresses(self):
        return [server.flags["listen"] for server in self.servers]

    # -- replicas ------------------------------------------------------------------------------------------------------

    def kill(self, number):
        server = self.servers[number]
        if server.process.running():
            server.kill()

    def look(self, expected=()):
        """Replicas that have ended are to be started again: their numbers. Those that were not `expected` to, by SIGKILL, are
        noted."""
        found = []
        for number, server in enumerate(self.servers):
            if not server.stopped and not server.process.running():
                code = server.process.wait()
                if number not in expected or code != -signal.SIGKILL:
                    self.ended.append(f"replica {number} ended with {code}: {server.process.text()[-700:]}")
                server.stopped = True
                found.append(number)
        return found

    def start(self, number):
        server = self.servers[number]
        if server.process is not None:
            self.logs.append(server.process.text())
        server.start()

    # -- what they leave -----------------------------------------------------------------------------------------------

    def sql(self, text):
        return self.cluster.primary.sql(text, self.url.partition("?")[0].rpartition("/")[2])

    def sending(self):
        return int(self.sql("SELECT count(*) FROM userintent.request WHERE state = 1")[0][0])

    def rows(self):
        """Row by request_id, and the counters by number of the address."""
        rows = {row[0]: Row(int(row[1]), row[2], int(row[3]), row[4] == "t", int(row[5]), int(row[6])) for row in self.sql(
            "SELECT request_id, state, coalesce(user_intent_id, ''), attempts, superseded_by IS NOT NULL, email, "
            "confirmed::int FROM userintent.request")}
        counters = {int(row[0]): (int(row[1]), int(row[2])) for row in self.sql(
            "SELECT id, confirmed, possible FROM userintent.email")}
        return rows, counters

    def leaks(self):
        """T8, as violations. Call it when the replicas have ended."""
        found = []
        for text in [*self.logs, *(server.process.text() for server in self.servers)]:
            if (leak := canary.find(text, ())) is not None:
                found.append(f"T8: a gateway's log holds {leak}")
        for node in self.cluster.nodes:
            if node.process and (leak := canary.find(node.process.text(), ())) is not None:
                found.append(f"T8: the database's log holds {leak}")
            for path in filter(pathlib.Path.is_file, node.data.rglob("*")):
                with contextlib.suppress(FileNotFoundError):  # a database removes some of its files while it runs
                    data = path.read_bytes().lower()
                    if any(stem.encode() in data for stem in STEMS):
                        found.append(f"T8: {path.relative_to(node.directory)} of the database holds personal data")
        return found

    def stop_replicas(self):
        """SIGTERM; each must end with 0 and leave no call."""
        for server in self.servers:
            server.stop()

    def close(self):
        for server in self.servers:
            if server.process and server.process.running():
                server.process.kill()
        for proxy in self.proxies:
            proxy.close()
        if self.cluster:
            self.cluster.close()
        if self.sandbox:
            self.sandbox.stop()
        shutil.rmtree(self.directory, ignore_errors=True)
