"""A ledger in PostgreSQL: what the start refuses, each with one line that names the flag, before anything is served."""

import struct
import subprocess

import pytest

from support import postgres
from support.gateway import SERVER, Gateway
from support.people import person
from support.process import PATIENCE, wait_for
from support.server import Server


@pytest.fixture
def replica(sandbox, postgres_url):
    """Makes gateways on one empty database; not started yet."""
    made = []

    def make(**flags):
        gateway = Gateway(sandbox, start=False, **{"ledger": postgres_url, "ledger_migrate": True, "ledger_single_node": True,
                                                   **flags})
        if made:  # one ledger, one key
            gateway.flags["ledger_key_file"] = made[0].flags["ledger_key_file"]
        made.append(gateway)
        return gateway

    yield make
    for gateway in made:
        if not gateway.stopped:
            gateway.close()


def assert_refused(ended, *words, flag="--ledger"):
    """It ended by itself, with one line for the operator, which holds all of these words."""
    assert ended.returncode == 1, ended.stderr[-800:]
    plain = [line for line in ended.stderr.splitlines() if not line.startswith("{")]
    assert len(plain) == 1 and flag in plain[0], ended.stderr[-800:]
    for word in words:
        assert word in plain[0], plain[0]


@pytest.fixture
def own_cluster():
    cluster = postgres.Cluster(memory=True)
    yield cluster
    cluster.close()


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
def test_a_server_that_may_forget(replica, own_cluster, setting):
    own_cluster.primary.change(**{setting: "off"})
    wait_for(lambda: own_cluster.primary.value(f"SHOW {setting}") == "off", "the setting holds")
    gateway = replica(ledger=own_cluster.database())
    assert_refused(gateway.start_once(), setting)
    own_cluster.primary.change(**{setting: "on"})
    wait_for(lambda: own_cluster.primary.value(f"SHOW {setting}") == "on", "the setting holds")
    gateway.start()
    gateway.create(person()).ok()


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
def test_a_server_that_comes_to_forget(replica, own_cluster, setting):
    """The same while it runs: health follows, and is back by itself."""
    gateway = replica(ledger=own_cluster.database())
    gateway.start()
    own_cluster.primary.change(**{setting: "off"})
    wait_for(lambda: gateway.health("") == "NOT_SERVING", "health says no")
    assert any("fsync or full_page_writes" in str(entry) for entry in gateway.log())
    own_cluster.primary.change(**{setting: "on"})
    wait_for(lambda: gateway.health("") == "SERVING", "it serves again")
    gateway.create(person()).ok()


def test_no_synchronous_standby(replica):
    """Where nobody has said that one machine is enough."""
    assert_refused(replica().start_once(ledger_single_node=None), "--ledger_single_node")


def test_one_machine_is_warned_of(replica):
    gateway = replica()
    gateway.start()
    assert any("--ledger_single_node" in entry.get("warning", "") for entry in gateway.log()), gateway.log()[:20]


def test_a_server_that_only_reads(replica, postgres_cluster, postgres_url):
    name = postgres_url.partition("?")[0].rpartition("/")[2]
    postgres_cluster.primary.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    assert_refused(replica().start_once())


def test_a_standby(replica):
    """Alone in the URL: it can be read, and nothing can be promised."""
    cluster = postgres.Cluster("sync", memory=True)
    try:
        gateway = replica(ledger=cluster.database(), ledger_single_node=None)
        gateway.start()
        gateway.create(person()).ok()
        gateway.stop()
        url = gateway.flags["ledger"].replace("&target_session_attrs=read-write", "")
        primary, standby = (str(node.directory) for node in cluster.nodes)
        assert_refused(gateway.start_once(ledger=url.replace(f"{primary},{standby}", standby)))
    finally:
        cluster.close()


def test_a_database_that_is_not_there(replica, postgres_url):
    assert_refused(replica(ledger=postgres_url.replace("?", "no?", 1)).start_once())


def test_nobody_listens(replica, tmp_path):
    assert_refused(replica(ledger=f"postgresql://userintent@/ledger?host={tmp_path}").start_once())


def test_an_empty_database_without_the_flag(replica):
    """It is migrated when told so only."""
    assert_refused(replica(ledger_migrate=None).start_once(), "migrate")


def test_a_newer_schema(replica, postgres_cluster, postgres_url):
    name = postgres_url.partition("?")[0].rpartition("/")[2]
    gateway = replica()
    gateway.start()
    gateway.stop()
    postgres_cluster.primary.sql("INSERT INTO userintent.migration (version) VALUES (1000)", name)
    assert_refused(gateway.start_once(), "1000")


def test_replicas_that_disagree(replica):
    """Each of the constants must be the same at all replicas; the first one serves on."""
    one, other = replica(), replica()
    one.start()
    for name, value in (("ledger_lease", "4s"), ("ledger_fence", "12s")):
        assert_refused(other.start_once(**{name: value}), name)
    one.create(person()).ok()
    other.start()
    other.create(person()).ok()


@pytest.mark.parametrize("flags", [{"ledger_lease": "1s"}, {"ledger_lease": "5s", "ledger_fence": "7s"}], ids=str)
def test_constants_out_of_bounds(replica, flags):
    """Config refuses them without asking any server."""
    assert_refused(replica(**flags, ledger="postgresql://userintent@/ledger?host=/nonexistent").start_once("--check_config"),
                   flag="--ledger_")


@pytest.mark.parametrize("url", [
    "postgresql://userintent:password@/ledger?host=/tmp",
    "postgresql://userintent@/ledger?host=/tmp&password=word",
    "postgresql://userintent@db.example.com/ledger",
    "postgresql://userintent@db.example.com/ledger?sslmode=require",
], ids=["a password", "a password as a parameter", "no TLS", "TLS that checks no name"])
def test_a_url_that_is_not_safe(replica, url):
    ended = replica(ledger=url).start_once("--check_config")
    assert_refused(ended)
    assert "word" not in ended.stderr.replace("password", "")


class Pooler(postgres.Proxy):
    """Tells clients another process id than that of the one that serves them, as a pooler does."""

    @staticmethod
    def change(data):
        at = data.find(b"K\0\0\0\x0c")  # BackendKeyData: process id, secret
        if at < 0:
            return data
        (pid,) = struct.unpack_from("!i", data, at + 5)
        return data[:at + 5] + struct.pack("!i", pid + 1) + data[at + 9:]

    def __init__(self, cluster):
        super().__init__(cluster)
        for relay in self.relays:
            relay.change_answers(self.change)


def test_a_pooler(replica, postgres_cluster, postgres_url):
    pooler = Pooler(postgres_cluster)
    try:
        assert_refused(replica(ledger=pooler.url(postgres_url)).start_once(), "pool")
    finally:
        pooler.close()


def test_check_config_leaves_the_database_alone(replica, postgres_cluster, postgres_url):
    ended = replica().start_once("--check_config")
    assert ended.returncode == 0, ended.stderr
    name = postgres_url.partition("?")[0].rpartition("/")[2]
    assert postgres_cluster.primary.value("SELECT to_regclass('userintent.migration') IS NULL", name) == "t"


def test_replicas_start_on_an_empty_database_at_once(sandbox, postgres_url):
    """All of them may migrate; one does."""
    first = Server(sandbox, start=False)
    made = [Server(sandbox, start=False, ledger=postgres_url, ledger_migrate=True, ledger_single_node=True,
                   ledger_key_file=first.ledger_key_file) for _ in range(3)]
    try:
        started = [subprocess.Popen([str(SERVER), *server.arguments()], stderr=subprocess.PIPE, text=True, env=server.environment,
                                    cwd=server.directory) for server in made]
        for process in started:
            assert any('"listening"' in line for line in process.stderr), "it does not serve"
        for process in started:
            process.terminate()
            process.stderr.read()
            assert process.wait(PATIENCE) == 0
    finally:
        for server in [first, *made]:
            server.close()


def database_of(url):
    return url.partition("?")[0].rpartition("/")[2]


def test_a_ledger_that_was_restored_from_a_dump(replica, sandbox, postgres_cluster, postgres_url):
    """It may have forgotten what was sent since. Nothing is served until somebody says that nothing is missing."""
    gateway = replica()
    gateway.start()
    request = person()
    gateway.create(request).ok()
    gateway.stop()
    name = database_of(postgres_url)
    restored = f"{name}_restored"
    postgres_cluster.primary.sql(f"CREATE DATABASE {restored} TEMPLATE {name}")
    try:
        url = postgres_url.replace(f"/{name}?", f"/{restored}?")
        for _ in range(2):  # a refused start accepts nothing
            assert_refused(gateway.start_once(ledger=url), "another database", "name = 'database'")
        postgres_cluster.primary.sql("DELETE FROM userintent.setting WHERE name = 'database'", restored)
        gateway.flags["ledger"] = url
        gateway.start()
        assert gateway.create(request).ok().replayed
        gateway.stop()
        assert len(sandbox.posts(request.email)) == 1
    finally:
        gateway.close()
        postgres_cluster.primary.sql(f"DROP DATABASE {restored} WITH (FORCE)")


def test_a_new_timeline_is_told_of(replica):
    """A failover while nobody ran loses nothing with a synchronous standby; a restore to a point in time looks the same."""
    cluster = postgres.Cluster("sync", memory=True)
    try:
        gateway = replica(ledger=cluster.database())
        gateway.start()
        gateway.create(person()).ok()
        gateway.stop()
        gateway.start()
        gateway.stop()
        assert not [entry for entry in gateway.log() if "timeline" in str(entry)]
        cluster.fail_over()
        gateway.start()
        gateway.create(person()).ok()
        assert len([entry for entry in gateway.log() if "timeline 2, it was on 1" in str(entry)]) == 1
        gateway.stop()
    finally:
        cluster.close()
