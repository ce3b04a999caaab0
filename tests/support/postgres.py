"""PostgreSQL for tests: real servers in a temporary directory, reached by Unix sockets only, gone afterwards.

    server = Node(directory)                 one server
    cluster = Cluster(standby="sync")        a primary and its standby; kill(), promote(), clone() and fail_over()
    url = cluster.database()                 a fresh database of the role userintent, as the gateway's flag --ledger wants it
    proxy = Proxy(cluster); proxy.url(url)   the same servers by sockets of its own, whose connections can be cut or held up

As root the servers run as the user postgres, otherwise as whoever runs the tests. fsync is on unless told otherwise. Everything
here ends with this process, too: the kernel tells the servers when the thread that started them has ended.
"""

import contextlib
import itertools
import os
import pathlib
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse

from support.pg_proxy import Relay
from support.process import PATIENCE, Process, clean_environment, wait_for

OLDEST = 14
ROLE = "userintent"
PORT = 5432  # the end of a socket's name, no port of the machine
_USER = "postgres"

# What a ledger's server should have, apart from sizes, which are a test's.
SETTINGS = {
    "listen_addresses": "",
    "port": PORT,
    "shared_buffers": "32MB",
    "max_connections": 100,
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "client_connection_check_interval": "2s",
    "wal_receiver_timeout": "10s",
    "wal_retrieve_retry_interval": "100ms",
    "hot_standby_feedback": "off",
    "autovacuum_vacuum_scale_factor": "0.02",
    "log_line_prefix": "%m [%p] ",
}


def _version(directory):
    found = re.search(r"/(\d+)/bin$", str(directory))
    return int(found[1]) if found else 0


def programs():
    """The directory of the newest server's programs; None: there is none."""
    named = os.environ.get("PG_BIN_DIR")
    places = [pathlib.Path(named)] if named else sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=_version)
    places = [place for place in places if (place / "initdb").exists() and (named or _version(place) >= OLDEST)]
    return places[-1] if places else None


def missing():
    """What to say where no server can be started; None: one can."""
    if programs() is None:
        return f"no PostgreSQL {OLDEST} or newer in /usr/lib/postgresql: scripts/deps.sh installs it, or set PG_BIN_DIR"
    if os.geteuid() == 0 and not _account():
        return f"as root the servers need a user {_USER}"
    return None


def require():
    """In a test or a fixture: fails where no server can be started, unless USERINTENT_NO_POSTGRES=1 says that this is known."""
    absent = missing()
    if absent and os.environ.get("USERINTENT_NO_POSTGRES") == "1":
        import pytest  # the rest of this file does without
        pytest.skip(f"USERINTENT_NO_POSTGRES=1: {absent}")
    assert not absent, absent


def _account():
    try:
        return pwd.getpwnam(_USER)
    except KeyError:
        return None


def _as_server(*more):
    """The words before a command that make it the servers' user's."""
    if os.geteuid() != 0:
        return ["setpriv", *more] if more else []
    account = _account()
    return ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups", *more]


def _environment():
    return {name: value for name, value in clean_environment(LC_ALL="C").items() if not name.startswith("PG")}


def run(program, *arguments, cwd="/"):
    """A program of PostgreSQL, to its end, as the servers' user. AssertionError: it failed."""
    ended = subprocess.run([*_as_server(), programs() / program, *map(str, arguments)], capture_output=True, text=True, cwd=cwd,
                           env=_environment())
    assert ended.returncode == 0, f"{program} ended with {ended.returncode}: {ended.stdout[-500:]}{ended.stderr[-1500:]}"
    return ended.stdout


_MEMORY = "/dev/shm"
_ROOM = 1 << 30  # bytes that must be free there


def new_directory(prefix="pg-", memory=False):
    """Short, because a socket's path has 107 bytes, and for the servers' user alone. memory: not on a disk, if there is room."""
    where = _MEMORY if memory and os.path.isdir(_MEMORY) and shutil.disk_usage(_MEMORY).free >= _ROOM else "/tmp"
    path = pathlib.Path(tempfile.mkdtemp(prefix=prefix, dir=where))
    give(path)
    return path


def give(path):
    if os.geteuid() == 0:
        account = _account()
        os.chown(path, account.pw_uid, account.pw_gid)


def children(pid):
    """The processes that this one has started."""
    with contextlib.suppress(OSError):
        return [int(word) for word in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def alive(pid):
    """Whether it still runs; who has ended and was not waited for does not."""
    with contextlib.suppress(OSError, IndexError):
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    return False


def children_named(pid, title):
    """Those whose title (what ps shows) has this in it."""
    found = []
    for child in children(pid):
        with contextlib.suppress(OSError):
            if title in pathlib.Path(f"/proc/{child}/cmdline").read_text():
                found.append(child)
    return found


class SqlError(AssertionError):
    pass


class Node:
    """One server: its data, its socket and its process. Not started yet."""

    def __init__(self, directory, name="a", **settings):
        self.name = name
        self.directory = directory / name  # of the socket, too
        self.data = self.directory / "data"
        self.directory.mkdir(mode=0o700)
        give(self.directory)
        self.settings = {**SETTINGS, "unix_socket_directories": self.directory, "cluster_name": name, **settings}
        self.process = None

    def make(self):
        run("initdb", "-D", self.data, "-U", _USER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions",
            "--wal-segsize=4")

    def clone_of(self, other):
        """Whatever there is is replaced by a copy of the other, which it will follow."""
        shutil.rmtree(self.data, ignore_errors=True)
        run("pg_basebackup", "-h", other.directory, "-p", PORT, "-U", _USER, "-D", self.data, "-X", "stream", "-c", "fast",
            "--no-sync", "-R")

    def start(self, wait=True):
        words = [word for name, value in self.settings.items() for word in ("-c", f"{name}={value}")]
        command = [*_as_server("--pdeathsig", "QUIT"), programs() / "postgres", "-D", self.data, *words]
        self.process = Process(command[0], command[1:], env=_environment(), cwd=self.directory)
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self):
        self.process.wait_line("stderr", lambda line: True if "ready to accept" in line else None)

    def running(self):
        return self.process is not None and self.process.running()

    def stop(self):
        """In order."""
        if self.running():
            code = self.process.terminate(PATIENCE)  # waits for those who are connected
            assert code == 0, f"the server ended with {code}: {self.process.text()[-2000:]}"

    def end_at_once(self):
        """As a crash: nothing is written any more, connections end."""
        if self.running():
            self.process.signal(signal.SIGQUIT)
            self.process.wait()

    def kill(self):
        """kill -9 of the server and of every process of its own, in one go."""
        if not self.running():
            return
        pids = [self.process.pid, *children(self.process.pid)]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        # Those that were just being started; the memory that they share must be free before the next start.
        wait_for(lambda: not any(map(alive, pids)), "the end of the server's processes")

    def freeze(self):
        """It stays, with every connection, and says nothing more; kill() ends it."""
        for pid in [self.process.pid, *children(self.process.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def kill_backends(self, title=f"{ROLE} "):
        """kill -9 of processes that serve connections: the server then ends all of them and recovers by itself."""
        pids = children_named(self.process.pid, title)
        for pid in pids[:1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(pids[:1])

    def change(self, **settings):
        """Settings that need no restart, from now on and for the next start."""
        self.settings.update(settings)
        words = [word for name, value in settings.items() for word in ("-c", f"ALTER SYSTEM SET {name} = '{value}'")]
        self._psql(_USER, *words, "-c", "SELECT pg_reload_conf()")

    def _psql(self, database, *words):
        ended = subprocess.run([programs() / "psql", "-h", self.directory, "-p", str(PORT), "-U", _USER, "-d", database, "-XqAt",
                                "-F", "\x1f", "-R", "\x1e", "-v", "ON_ERROR_STOP=1", *words], capture_output=True, text=True, env=_environment())
        if ended.returncode:
            raise SqlError(ended.stderr[-1500:])
        return [tuple(row.split("\x1f")) for row in ended.stdout.removesuffix("\n").split("\x1e")] if ended.stdout else []

    def sql(self, text, database=_USER):
        """Rows of strings, as the superuser."""
        return self._psql(database, "-c", text)

    def value(self, text, database=_USER):
        """The only value of the only row."""
        (row,) = self.sql(text, database)
        (value,) = row
        return value

    def cut(self, title=ROLE):
        """Ends the connections of this role; they are ended by the server, with a message."""
        return int(self.value(f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = '{title}'"))


class Cluster:
    """A primary `a` and, if told, its standby `b`. standby: None, "sync" or "async".

    With a synchronous standby a commit is answered when the other has it on disk, for whoever of the two is the primary.
    memory: the data is kept in memory where there is room. Processes may die as they like then, too; it only spares the disk
    copies of whole clusters."""

    def __init__(self, standby=None, memory=False, **settings):
        assert standby in (None, "sync", "async")
        require()
        self.directory = new_directory(memory=memory)
        self.standby_kind = standby
        self._settings = settings
        self._numbers = itertools.count(1)
        self.failovers = 0
        try:
            self.nodes = [Node(self.directory, "a", **settings)]
            self.primary.make()
            self.primary.start()
            # It may see who follows the primary; others see no more than that somebody does.
            self.primary.sql(f"CREATE ROLE {ROLE} LOGIN IN ROLE pg_read_all_stats")
            if standby:
                self.nodes.append(Node(self.directory, "b", **settings))
                if standby == "sync":
                    self.primary.change(synchronous_standby_names="*")
                self.clone()
        except BaseException:
            self.close()
            raise

    @property
    def primary(self):
        return self.nodes[0]

    @property
    def standby(self):
        return self.nodes[1]

    def database(self, name=None):
        """A fresh database of the role's own; its URL."""
        name = name or f"ledger{next(self._numbers)}"
        self.primary.sql(f"CREATE DATABASE {name} OWNER {ROLE}")
        return self.url(name)

    def url(self, name):
        """Every node, so that it holds after a failover."""
        hosts = ",".join(str(node.directory) for node in sorted(self.nodes, key=lambda node: node.name))
        return _url(name, hosts, len(self.nodes) > 1)

    # -- failover ------------------------------------------------------------------------------------------------------

    def clone(self):
        """The standby anew, as a copy of the primary; returns when commits reach it."""
        self.standby.kill()
        self.standby.clone_of(self.primary)
        self.standby.start()
        wait_for(self.follows, "the standby follows")

    def follows(self):
        states = self.primary.sql("SELECT state, sync_state FROM pg_stat_replication")
        wanted = "sync" if self.standby_kind == "sync" else "async"
        return ("streaming", wanted) in states

    def hold_up(self):
        """The standby hears nothing more of the primary, as on a network that is slow."""
        pids = children_named(self.primary.process.pid, "walsender")
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        assert pids, "nobody follows the primary"

    def promote(self):
        """The standby is the primary from now on, whatever the other does."""
        run("pg_ctl", "promote", "-D", self.standby.data, "-w", "-t", int(PATIENCE))
        self.nodes.reverse()
        self.failovers += 1

    def fail_over(self, behind=0.0, alone=0.0):
        """The primary dies, the standby takes its place; after `alone` seconds the dead one comes back as its standby.
        behind: how long the standby has heard nothing when the primary dies, in seconds."""
        if behind:
            self.hold_up()
            time.sleep(behind)
        self.primary.kill()
        self.promote()
        time.sleep(alone)
        self.clone()

    # ------------------------------------------------------------------------------------------------------------------

    def close(self):
        for node in self.nodes:
            if node.running():
                node.end_at_once()
        shutil.rmtree(self.directory, ignore_errors=True)


def _url(name, hosts, several):
    more = "&target_session_attrs=read-write" if several else ""
    return f"postgresql://{ROLE}@/{name}?host={urllib.parse.quote(hosts, safe='/,')}&port={PORT}{more}"


class Proxy:
    """Sockets of its own before the nodes of a cluster: for one replica, whose connections a test wants to disturb."""

    def __init__(self, cluster):
        self.directory = new_directory("pgp-")
        self._hosts = []
        self.relays = []
        for node in sorted(cluster.nodes, key=lambda node: node.name):
            place = self.directory / node.name
            place.mkdir(mode=0o700)
            self._hosts.append(str(place))
            self.relays.append(Relay(place / f".s.PGSQL.{PORT}", node.directory / f".s.PGSQL.{PORT}"))

    def url(self, url):
        """The URL of the same database, by these sockets."""
        name = urllib.parse.urlparse(url).path.lstrip("/")
        return _url(name, ",".join(self._hosts), len(self._hosts) > 1)

    def cut(self, answers_lost=0.0):
        """Ends every connection. answers_lost: first nothing of what the servers say is passed on for so many seconds, so that
        what was sent has its effect and nobody hears of it."""
        if answers_lost:
            self.hold_answers()
            time.sleep(answers_lost)
        count = sum(relay.cut() for relay in self.relays)
        self.hold_answers(False)
        return count

    def hold_answers(self, held=True):
        """What the servers say is not passed on; what they are told is."""
        for relay in self.relays:
            relay.hold_answers(held)

    def hold(self, held=True):
        """Nothing passes, in either way, and new connections get no answer: a network that is gone. False: it is back."""
        for relay in self.relays:
            relay.hold(held)

    def close(self):
        for relay in self.relays:
            relay.close()
        shutil.rmtree(self.directory, ignore_errors=True)


def main():
    """python3 -m support.postgres [none|sync|async]: a cluster with one database until stdin ends; prints the URL."""
    kind = sys.argv[1] if len(sys.argv) > 1 else "none"
    cluster = Cluster(None if kind == "none" else kind)
    try:
        print(cluster.database(), flush=True)
        sys.stdin.read()
    finally:
        cluster.close()


if __name__ == "__main__":
    main()
