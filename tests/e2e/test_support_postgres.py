"""What the tests on PostgreSQL stand on: its servers are real, a failover of the synchronous kind keeps what was confirmed, one
that is asynchronous does not, and a connection can be cut while an answer is on its way."""

import subprocess

import pytest

from support import postgres
from support.process import PATIENCE, wait_for


@pytest.fixture
def cluster(request):
    made = postgres.Cluster(getattr(request, "param", None), memory=True)
    yield made
    made.close()


def psql(url, *commands):
    words = [word for command in commands for word in ("-c", command)]
    return subprocess.run([postgres.programs() / "psql", url, "-XAtq", "-v", "ON_ERROR_STOP=1", *words], capture_output=True,
                          text=True)


def test_databases_are_apart(cluster):
    """Each database is empty, and its owner may make tables in it."""
    one, other = cluster.database(), cluster.database()
    assert psql(one, "CREATE TABLE t(i int)").returncode == 0
    assert "does not exist" in psql(other, "SELECT * FROM t").stderr
    assert cluster.primary.value("SHOW fsync") == "on"


@pytest.mark.parametrize("cluster", ["sync"], indirect=True)
def test_a_synchronous_standby_has_what_was_confirmed(cluster):
    url = cluster.database()
    assert psql(url, "CREATE TABLE t(i int)").returncode == 0
    for number in range(2):
        assert psql(url, f"INSERT INTO t VALUES ({number})").returncode == 0
        cluster.fail_over()
    assert psql(url, "SELECT count(*) FROM t").stdout == "2\n"
    assert cluster.follows()


@pytest.mark.parametrize("cluster", ["async"], indirect=True)
def test_an_asynchronous_one_may_not(cluster):
    url = cluster.database()
    assert psql(url, "CREATE TABLE t(i int)").returncode == 0
    cluster.clone()  # so that the table is there
    cluster.hold_up()
    assert psql(url, "INSERT INTO t VALUES (1)").returncode == 0
    cluster.fail_over()
    assert psql(url, "SELECT count(*) FROM t").stdout == "0\n"


def test_a_lost_answer(cluster):
    """The statement has its effect, and who sent it hears that the connection is gone."""
    url = cluster.database()
    assert psql(url, "CREATE TABLE t(i int)").returncode == 0
    proxy = postgres.Proxy(cluster)
    try:
        slow = "INSERT INTO t SELECT 1 FROM pg_sleep(0.5)"
        client = subprocess.Popen([postgres.programs() / "psql", proxy.url(url), "-XAtqc", slow], stderr=subprocess.PIPE)
        running = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'userintent' AND wait_event = 'PgSleep'"
        wait_for(lambda: cluster.primary.value(running) == "1", "the statement runs")
        proxy.hold_answers(True)
        wait_for(lambda: psql(url, "SELECT count(*) FROM t").stdout == "1\n", "it has its effect")
        assert client.poll() is None, "the answer came through"
        assert proxy.cut() == 1
        assert client.wait(PATIENCE) == 2
        assert psql(proxy.url(url), "SELECT count(*) FROM t").stdout == "1\n"
    finally:
        proxy.close()


def test_a_network_that_is_gone_and_back(cluster):
    url = cluster.database()
    proxy = postgres.Proxy(cluster)
    try:
        proxy.hold()
        client = subprocess.Popen([postgres.programs() / "psql", proxy.url(url), "-XAtqc", "SELECT 1"], stdout=subprocess.PIPE)
        with pytest.raises(subprocess.TimeoutExpired):
            client.wait(0.5)
        proxy.hold(False)
        assert client.communicate(timeout=PATIENCE)[0] == b"1\n"
    finally:
        proxy.close()


def test_a_killed_server_comes_back_with_what_it_had(cluster):
    url = cluster.database()
    assert psql(url, "CREATE TABLE t(i int)").returncode == 0
    cluster.primary.kill()
    assert psql(url, "SELECT 1").returncode == 2
    cluster.primary.start()
    assert psql(url, "SELECT count(*) FROM t").stdout == "0\n"
