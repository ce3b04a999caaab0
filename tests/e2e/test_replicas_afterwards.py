"""What comes after a creation when two gateways share a ledger in PostgreSQL: joins, webhooks, watches and follow-up, each
at the replica that did not send the request."""

import datetime
import itertools
import secrets
import time

import pytest

from support.check import assert_posts
from support.gateway import Gateway
from support.people import again, person
from support.process import wait_for, write_secret
from support.sandbox import Sandbox
from support.watch import Watch
from support.webhook_door import PATH

# A dead replica's rows are UNKNOWN after fence + quiet, which is the exchange's limit and 5 s.
SHORT = dict(ledger_lease="2s", ledger_fence="5s", upstream_timeout="3s")


@pytest.fixture(scope="module")
def sandbox():
    """One of this module's own: webhooks of other gateways' intents would come here, too."""
    sandbox = Sandbox()
    yield sandbox
    sandbox.stop()


@pytest.fixture(scope="module")
def replicas(sandbox, postgres_cluster, tmp_path_factory):
    """Makes replicas on one ledger of the module's, with one key."""
    made = []
    key = write_secret(tmp_path_factory.mktemp("key") / "ledger.key", secrets.token_bytes(48))
    shared = dict(ledger=postgres_cluster.database(), ledger_migrate=True, ledger_single_node=True, ledger_key_file=key)

    def make(**flags):
        made.append(Gateway(sandbox, **shared, astra_read_rate=200, **flags))
        return made[-1]

    yield make
    for gateway in made:
        gateway.close()


@pytest.fixture(scope="module")
def pair(replicas):
    """The first one sends, the second one has the door for webhooks."""
    return replicas(**SHORT), replicas(**SHORT, webhook_listen="127.0.0.1:0")


@pytest.fixture(scope="module")
def followed(pair):
    """Intents that nobody watches, made at both before anything else; and when that was."""
    intents = [pair[n % 2].create(person()).ok().user_intent.id for n in range(12)]
    return intents, time.monotonic()


@pytest.fixture
def connected(sandbox, pair, followed):
    """Webhooks come to the second replica while the test runs."""
    sandbox.clear_faults()
    sandbox.webhooks(f"http://{pair[1].webhook_address}{PATH}", retry_ms=50)
    yield sandbox
    sandbox.webhooks("")


def test_a_repeat_elsewhere_waits_for_the_one_that_runs(sandbox, pair, followed):
    sender, other = pair
    request = person()
    sandbox.fault("delay", request.email, delay_ms=1500)
    running = sender.begin(request)
    sandbox.wait_posts(request.email)
    begun = time.monotonic()
    joined = other.create(again(request)).ok()
    assert joined.replayed and time.monotonic() - begun < 15
    assert running.reply().ok().user_intent.id == joined.user_intent.id
    assert_posts(sandbox, request.email, 1)


def test_a_webhook_here_settles_what_was_sent_there(connected, pair):
    sender, receiver = pair
    request = person()
    connected.fault("status", request.email, status=500, commit=True)
    sender.create(request).failed("OUTCOME_UNKNOWN")
    sender.wait_state(request.request_id, "CREATED")
    wait_for(lambda: receiver.metric("userintent_webhook_settled_total") >= 1, "the settling to be counted")
    assert sender.create(again(request)).ok().replayed
    assert_posts(connected, request.email, 1)


def test_what_a_killed_replica_sent_is_settled(connected, replicas, pair):
    """SENDING until its owner is fenced and quiet; the webhook waits for that."""
    receiver = pair[1]
    sender = replicas(**SHORT)
    request = person()
    connected.fault("hang", request.email, commit=True)
    running = sender.begin(request)  # it would be cancelled if nobody held it
    connected.wait_posts(request.email)
    sender.kill()
    assert running.reply().raw
    assert receiver.state(request.request_id) == "IN_PROGRESS"
    receiver.wait_state(request.request_id, "CREATED", timeout=60)
    assert receiver.create(again(request)).ok().replayed
    assert_posts(connected, request.email, 1)


def test_a_token_goes_on_at_the_other(sandbox, pair, followed):
    """Whoever told it, and at once: what the other one has not heard of yet, it looks up."""
    requests = []
    stream = Watch(pair[0]).wait("synced")
    for n in range(6):
        requests.append(person())
        pair[n % 2].create(requests[-1]).ok()
        stream.wait((requests[-1].request_id, "CREATED", "pending"))
        seen = stream.close()
        stream = Watch(pair[(n + 1) % 2], token=seen).wait("synced")
        assert "reset" not in stream.events
    seen = stream.close()
    missed = person()
    pair[0].create(missed).ok()
    for gateway in pair:
        stream = Watch(gateway, token=seen)
        stream.wait((missed.request_id, "CREATED", "pending"))
        stream.close()
        assert "reset" not in stream.events


def test_each_intent_is_followed_by_one(sandbox, pair, followed):
    """The first reading is due after a minute, within a fifth; two who read would do so within 25 s of each other."""
    intents, made = followed
    wait_for(lambda: all(sandbox.gets(intent) for intent in intents), "a reading of each", timeout=150)
    wait_for(lambda: time.monotonic() - made > 80, "the time at which either would have read", timeout=100)
    for intent in intents:
        arrived = [datetime.datetime.fromisoformat(get["arrived"][:19]) for get in sandbox.gets(intent)]
        apart = [(after - before).total_seconds() for before, after in itertools.pairwise(arrived)]
        assert min(apart, default=40) >= 35, f"GETs of one intent, s apart: {apart}"
    reads = [gateway.metrics()['userintent_upstream_reads_total{asker="follow_up",verdict="read"}'] for gateway in pair]
    assert min(reads) >= 1
