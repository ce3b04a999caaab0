"""Kills userintent-ledger copy at every point where the two ledgers could be torn apart, and goes on as it says.

Whatever was killed: at most one of the two is ever served, and the one that is has everything.
"""

import os
import random
import signal
import subprocess
import time

import pytest

from crash_server import TALLY
from support import postgres
from support.gateway import Gateway, clean_environment
from support.ledger_copy import DATABASE, Moving, assert_kept, fill, leave_running
from support.ledger_tool import run
from support.people import person
from support.process import BIN_DIR, PATIENCE, wait_for
from support.sandbox import Sandbox

PROGRAM = BIN_DIR / "crash-ledger"
ROUNDS = int(os.environ.get("CRASH_ROUNDS", "20"))


@pytest.fixture(scope="module")
def readings():
    """A sandbox whose attempt limit and readings are as Astra's."""
    sandbox = Sandbox()
    yield sandbox
    sandbox.stop()


@pytest.fixture(scope="module")
def cluster():
    cluster = postgres.Cluster(memory=True)
    yield cluster
    cluster.close()


class Stage:
    """A ledger in a file whose server was killed, a database for it, and the gateways of both."""

    def __init__(self, sandbox, directory, cluster):
        self.cluster, self.url = cluster, cluster.database()
        self.sandbox, self.moving = sandbox, Moving(directory / "ledger" / "ledger.db", self.url)
        self.on_file = Gateway(sandbox, ledger=f"sqlite:{self.moving.path}", webhook_listen="127.0.0.1:0", astra_read_rate=200)
        self.kept = fill(self.on_file, sandbox, self.moving.file)
        leave_running(self.on_file, sandbox, self.kept)
        self.on_database = Gateway(sandbox, start=False, ledger=self.url, astra_read_rate=200, **DATABASE,
                                   ledger_key_file=self.on_file.flags["ledger_key_file"])

    def begin(self, point=None):
        environment = clean_environment(**({"CRASH_AT": point} if point else {}))
        return subprocess.Popen([str(PROGRAM), *self.moving.words()], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True, env=environment)

    def crash(self, point):
        assert self.begin(point).wait(PATIENCE + 60) == -signal.SIGKILL, point
        TALLY["kills"] += 1

    def refuses(self, gateway, *words):
        ended = gateway.start_once()
        assert ended.returncode == 1 and all(word in ended.stderr for word in words), ended.stderr[-800:]

    def serve(self, gateway):
        gateway.start()
        assert_kept(gateway, self.sandbox, self.kept)
        gateway.create(person()).ok()
        gateway.stop()

    def close(self):
        for gateway in (self.on_file, self.on_database):
            if not gateway.stopped:
                gateway.close()


@pytest.fixture
def stage(readings, cluster, tmp_path):
    stage = Stage(readings, tmp_path, cluster)
    yield stage
    stage.close()


def copy_patiently(stage, *more):
    """Until what is left of the killed one has gone from the database."""
    def once():
        ended = stage.moving.copy("--json", *more)
        return None if "try again in a moment" in ended.err else ended
    return wait_for(once, "the end of the killed one's session", 60)


def test_before_the_mark_nothing_has_happened(stage):
    stage.crash("copy-written")
    stage.serve(stage.on_file)
    assert copy_patiently(stage).json()["was_there"] is False
    stage.refuses(stage.on_file, "was copied to postgresql")


@pytest.mark.parametrize("how", ["again", "undo"])
def test_marked_and_not_committed(stage, how):
    stage.crash("copy-marked")
    stage.refuses(stage.on_file, "was cut off", "userintent-ledger copy", "--undo")
    if how == "undo":
        assert copy_patiently(stage, "--undo").json() == {"undone": True}
        stage.serve(stage.on_file)
        return
    told = copy_patiently(stage).json()
    assert told["was_there"] is False and told["became_unknown"] == "0"  # it was the first one's to say
    stage.refuses(stage.on_file, "was copied to postgresql")
    stage.serve(stage.on_database)


@pytest.mark.parametrize("served", [False, True])
def test_committed_and_not_said(stage, served):
    stage.crash("copy-committed")
    stage.refuses(stage.on_file, "was cut off", "userintent-ledger copy")
    if served:  # it may be: everything is there
        stage.serve(stage.on_database)
    copy_patiently(stage, "--undo").refused("DROP SCHEMA userintent CASCADE")
    assert copy_patiently(stage).json()["was_there"] is True
    stage.refuses(stage.on_file, "was copied to postgresql")
    stage.moving.copy().refused("was copied to postgresql")
    stage.serve(stage.on_database)


def test_killed_at_any_time(stage, seed):
    """From outside, again and again, until one gets through."""
    dice = random.Random(f"{seed}/copy")
    begun = time.monotonic()
    assert stage.begin().wait(PATIENCE + 60) == 0
    whole = time.monotonic() - begun
    for _ in range(ROUNDS):
        take_back(stage)
        running = stage.begin()
        time.sleep(dice.uniform(0, whole))
        running.kill()
        running.wait(PATIENCE)
        TALLY["kills"] += 1
        ended = copy_patiently(stage)
        if ended.code:  # the killed one had done everything
            ended.refused("was copied to postgresql")
        stage.refuses(stage.on_file, "was copied to postgresql")
    stage.serve(stage.on_database)


def take_back(stage):
    """As an operator does, before any gateway was started on it."""
    stage.cluster.primary.sql("DROP SCHEMA userintent CASCADE", stage.url.partition("?")[0].rpartition("/")[2])
    stage.moving.copy("--undo").done()
    run(stage.moving.database, "migrate").done()


def test_a_commit_that_is_still_on_its_way(readings, tmp_path):
    """The tool is killed while the database waits for its standby: nobody may take the file for free before that ends."""
    cluster = postgres.Cluster("sync", memory=True)
    stage = None
    try:
        stage = Stage(readings, tmp_path, cluster)
        running = stage.begin("never")
        held = hold_standby_at_commit(cluster)
        running.kill()
        running.wait(PATIENCE)
        TALLY["kills"] += 1
        stage.refuses(stage.on_file, "was cut off")
        stage.moving.copy("--undo").refused("another copy is under way")
        stage.moving.copy().refused("another copy is under way")
        for pid in held:
            os.kill(pid, signal.SIGCONT)
        assert copy_patiently(stage).json()["was_there"] is True
        stage.serve(stage.on_database)
    finally:
        if stage:
            stage.close()
        cluster.close()


def hold_standby_at_commit(cluster):
    """Holds the standby up until the copy's commit waits for it; the processes that are stopped."""
    held = postgres.children_named(cluster.primary.process.pid, "walsender")
    for pid in held:
        os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: cluster.primary.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' "
                                           "AND application_name = 'userintent-ledger copy'") == "1", "the commit waits")
    return held
