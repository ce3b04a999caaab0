"""One failure at a time, and what each replica then says: the rows of the failure table that can be brought about at will."""

import signal
import time

import pytest

from support import canary, postgres
from support.check import SUCCEEDED, UNKNOWN, assert_posts, assert_row
from support.gateway import Gateway
from support.people import person, same_email
from support.process import PATIENCE, wait_for
from torture.stage import FENCE, LEASE, QUIET, Stage

SWEPT = FENCE + QUIET + 5 + PATIENCE


@pytest.fixture(scope="module")
def shared():
    postgres.require()
    made = Stage("sync", replicas=2, make=Gateway, upstream_timeout="2s")
    yield made
    made.close()


@pytest.fixture
def stage(shared):
    """Whole again before each test: both serve, the standby follows, and nothing waits."""
    yield shared
    shared.sandbox.clear_faults()
    canary.check()
    for number, proxy in enumerate(shared.proxies):
        proxy.hold(False)
        if not shared.servers[number].process.running():
            shared.start(number)
    for gateway in shared.servers:
        wait_for(lambda: gateway.health("") == "SERVING", "it serves again")


def on_its_way(stage, gateway, delay_ms=1000):
    """A request that Astra has and has not answered: (request, the running call)."""
    request = person()
    stage.sandbox.fault("delay", request.email, delay_ms=delay_ms)

    def sent():
        running = gateway.begin(request)
        wait_for(lambda: running.done() or stage.sandbox.posts(request.email), "a POST or an answer")
        return None if running.done() else running  # an answer: the ledger was not there yet

    return request, wait_for(sent, "a POST")


def test_one_id_at_two_replicas(stage):
    """One POST; who came second hears its outcome."""
    one, other = stage.servers
    request, first = on_its_way(stage, one, 500)
    second = other.create(request).ok()
    assert first.reply().ok().user_intent.id == second.user_intent.id
    assert_posts(stage.sandbox, request.email, 1)


def test_one_address_at_two_replicas(stage):
    one, other = stage.servers
    request, first = on_its_way(stage, one, 800)
    other.create(same_email(request)).failed("EMAIL_BUSY")
    first.reply().ok()
    assert other.create(same_email(request)).ok().attempts.used_min == 2


def test_a_replica_is_killed_after_the_send(stage):
    """In progress until it is fenced and its exchange must be over; then unknown, and never sent again."""
    one, other = stage.servers
    request, _ = on_its_way(stage, one)
    one.kill()
    killed = time.monotonic()
    other.create(same_email(request)).failed("EMAIL_BUSY")
    assert other.state(request.request_id) == "IN_PROGRESS"
    wait_for(lambda: other.state(request.request_id) == "UNKNOWN", "the row is given up", SWEPT)
    assert time.monotonic() - killed > FENCE - LEASE, "before the dead one's lease could be over"
    other.create(same_email(request)).failed("EMAIL_UNRESOLVED", unresolved_request_id=request.request_id)
    other.create(request).failed("OUTCOME_UNKNOWN", replayed="true")
    assert_posts(stage.sandbox, request.email, 1)
    assert other.metric("userintent_ledger_swept_total") >= 1 and other.metric("userintent_ledger_in_doubt") == 0


def test_a_replica_is_frozen_for_less_than_the_fence(stage):
    one, other = stage.servers
    request, running = on_its_way(stage, one, 1000)
    one.process.signal(signal.SIGSTOP)
    time.sleep(1.5)
    one.process.signal(signal.SIGCONT)
    running.reply().ok()
    assert_row(other, stage.sandbox, request, SUCCEEDED)


def test_a_replica_is_frozen_until_its_rows_are_given_up(stage):
    """What it heard meanwhile is the best evidence there is, and is taken; then it goes on under another epoch."""
    one, other = stage.servers
    request, running = on_its_way(stage, one, 300)
    one.process.signal(signal.SIGSTOP)
    try:
        wait_for(lambda: other.state(request.request_id) == "UNKNOWN", "the row is given up", SWEPT)
    finally:
        one.process.signal(signal.SIGCONT)
    running.reply()  # one or the other: the call's time may be over
    wait_for(lambda: other.state(request.request_id) in ("CREATED", "UNKNOWN"), "a final state")
    wait_for(lambda: one.health("") == "SERVING", "it serves again", SWEPT)
    one.create(person()).ok()
    assert_posts(stage.sandbox, request.email, 1)


def test_a_replica_is_cut_off_from_the_database(stage):
    """Nothing new leaves it, it says so within three seconds, and is back by itself; the other goes on."""
    one, other = stage.servers
    stage.proxies[0].hold()
    request = person()
    one.create(request, timeout=10)
    wait_for(lambda: one.health("") == "NOT_SERVING", "health says no")
    assert_posts(stage.sandbox, request.email, 0)
    other.create(person()).ok()
    time.sleep(LEASE + 1)
    one.create(person(), timeout=5).failed("LEDGER_UNAVAILABLE", sent="no")
    stage.proxies[0].hold(False)
    wait_for(lambda: one.health("") == "SERVING", "it serves again", SWEPT)
    one.create(request).ok()
    assert_posts(stage.sandbox, request.email, 1)


def test_connections_are_cut(stage):
    one, _ = stage.servers
    for _ in range(5):
        stage.proxies[0].cut()
        request = person()
        wait_for(lambda: one.create(request).response is not None, "it is created")
        assert_posts(stage.sandbox, request.email, 1)


def test_the_answer_to_a_commit_is_lost(stage):
    """The caller hears that nothing was sent, which is so, and the same id may be asked again."""
    one, _ = stage.servers
    for _ in range(3):
        request = person()
        stage.proxies[0].hold_answers()
        running = one.begin(request, timeout=15)
        time.sleep(0.3)
        stage.proxies[0].cut()
        stage.proxies[0].hold_answers(False)
        reply = running.reply()
        if reply.response is None:
            reply.failed("LEDGER_UNAVAILABLE", sent="no", recovery="RETRY_SAME_ID")
            assert_posts(stage.sandbox, request.email, 0)
        wait_for(lambda: one.create(request).response is not None, "it is created")
        assert_posts(stage.sandbox, request.email, 1)


def test_the_standby_dies(stage):
    """Commits hang: not serving within three seconds; when a standby is back they are confirmed, and nothing was sent twice."""
    one, other = stage.servers
    stage.cluster.standby.kill()
    killed = time.monotonic()
    request = person()
    running = one.begin(request, timeout=30)
    for gateway in (one, other):
        wait_for(lambda: gateway.health("") == "NOT_SERVING", "health says no")
    assert time.monotonic() - killed < 10, "that is to take three seconds; a busy machine has more"
    stage.cluster.standby.start()
    reply = running.reply()
    for gateway in (one, other):
        wait_for(lambda: gateway.health("") == "SERVING", "it serves again", SWEPT)
    if reply.response is None:
        wait_for(lambda: one.create(request).response is not None, "it is created")
    assert_posts(stage.sandbox, request.email, 1)


def test_a_wait_for_the_standby_is_cancelled(stage):
    """The server then says COMMIT with a warning, and only this machine has the row: nothing is sent."""
    one, _ = stage.servers
    stage.cluster.standby.kill()
    request = person()
    running = one.begin(request, timeout=30)
    waiting = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    wait_for(lambda: stage.cluster.primary.value(waiting) != "0", "a commit waits for the standby")
    time.sleep(0.3)
    assert_posts(stage.sandbox, request.email, 0)
    stage.cluster.standby.start()
    reply = running.reply()
    if reply.response is None:
        wait_for(lambda: one.create(request).response is not None, "it is created")
    assert_posts(stage.sandbox, request.email, 1)


def test_the_primary_dies(stage):
    """What was answered is there after the standby took over; what was on its way has its outcome written down."""
    one, other = stage.servers
    done = person()
    first = one.create(done).ok()
    request, running = on_its_way(stage, other, 1500)
    stage.cluster.fail_over()
    running.reply()
    for gateway in (one, other):
        wait_for(lambda: gateway.health("") == "SERVING", "it serves again", SWEPT)
        again = wait_for(lambda: gateway.create(done).response, "the ledger is there")
        assert again.user_intent == first.user_intent
    wait_for(lambda: one.state(request.request_id) == "CREATED", "the outcome is written", SWEPT)
    assert_posts(stage.sandbox, request.email, 1)


def test_the_primary_is_frozen_and_its_standby_promoted(stage):
    """It keeps its connections and takes new ones, and answers none. Whoever waits there finds the new primary by itself."""
    cluster = postgres.Cluster("sync", memory=True)
    gateway = Gateway(stage.sandbox, ledger=cluster.database(), ledger_migrate=True, ledger_single_node=True)
    try:
        done, request = person(), person()
        first = gateway.create(done).ok()
        cluster.primary.freeze()
        running = gateway.begin(request, timeout=30)
        wait_for(lambda: gateway.health("") == "NOT_SERVING", "health says no")
        cluster.promote()
        cluster.primary.change(synchronous_standby_names="")  # its standby is the frozen one
        running.reply()
        wait_for(lambda: gateway.health("") == "SERVING", "it serves again")
        assert gateway.create(done).ok().user_intent == first.user_intent
        wait_for(lambda: gateway.create(request).response is not None, "it is created")
        assert_posts(stage.sandbox, request.email, 1)
        assert_posts(stage.sandbox, done.email, 1)
        assert any("another server has become the primary" in str(entry) for entry in gateway.log())
    finally:
        gateway.close()
        for node in cluster.nodes:
            node.kill()
        cluster.close()


def test_the_database_is_away_for_all(stage):
    """Everything is LEDGER_UNAVAILABLE; when it is back nobody was fenced, and outcomes that waited are written."""
    one, other = stage.servers
    before = stage.sql("SELECT count(*) FROM userintent.replica WHERE ended IS NULL")
    request, running = on_its_way(stage, one, 1500)
    stage.cluster.primary.kill()
    for gateway in (one, other):
        wait_for(lambda: gateway.health("") == "NOT_SERVING", "health says no")
        gateway.create(person(), timeout=5).failed("LEDGER_UNAVAILABLE", sent="no")
    running.reply()
    time.sleep(FENCE)
    stage.cluster.primary.start()
    for gateway in (one, other):
        wait_for(lambda: gateway.health("") == "SERVING", "it serves again", SWEPT)
    wait_for(lambda: one.state(request.request_id) == "CREATED", "the outcome is written", SWEPT)
    assert stage.sql("SELECT count(*) FROM userintent.replica WHERE ended IS NULL") == before
    assert_posts(stage.sandbox, request.email, 1)


def test_all_replicas_die(stage):
    """The first to start gives up the rows of the dead."""
    one, other = stage.servers
    request, _ = on_its_way(stage, one)
    one.kill()
    other.kill()
    stage.start(1)
    wait_for(lambda: other.state(request.request_id) == "UNKNOWN", "the row is given up", SWEPT)
    assert_row(other, stage.sandbox, request, UNKNOWN, "OUTCOME_UNKNOWN")
    assert_posts(stage.sandbox, request.email, 1)
