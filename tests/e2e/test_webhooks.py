"""Astra's webhooks from one end to the other: the sandbox signs and sends them, and what the gateway knows changes."""

import resource

import pytest

from support import canary
from support.check import assert_posts
from support.people import again, person
from support.process import wait_for, write_secret
from support.sandbox import CLIENT_SECRET, Sandbox
from support.webhook_door import PATH, Door, ask, body_of, deliver, post


@pytest.fixture(scope="module")
def sandbox():
    """One of this module's own: webhooks of other gateways' intents would come here, too."""
    sandbox = Sandbox()
    yield sandbox
    sandbox.stop()


def connect(sandbox, gateway, **settings):
    """The sandbox's webhooks go to this gateway."""
    sandbox.webhooks(f"http://{gateway.webhook_address}{PATH}", **{"retry_ms": 50, **settings})


@pytest.fixture
def receiver(sandbox, durable):
    """A gateway that receives the sandbox's webhooks, on a ledger file of the test's own."""
    sandbox.clear_faults()
    sandbox.clear_webhook_faults()
    gateway = durable(webhook_listen="127.0.0.1:0", astra_read_rate=200)
    connect(sandbox, gateway)
    yield gateway
    sandbox.webhooks("")


def intent_of(sandbox, request):
    return wait_for(lambda: (sandbox.intents(request.email) or [{}])[0].get("id"), "an intent at the sandbox")


def ended(gateway, result):
    return gateway.metrics()[f'userintent_webhook_ended_total{{result="{result}"}}']


def wait_ended(gateway, result, count=1):
    wait_for(lambda: ended(gateway, result) >= count, f"{count} webhook(s) that ended {result}")


LOST = {
    "500": dict(kind="status", status=500, commit=True),
    "a cut body": dict(kind="cut_body", status=201, commit=True),
    "no answer": dict(kind="close", commit=True),
    "a reset": dict(kind="reset", commit=True),
    "409": dict(kind="status", status=409, commit=True),
    "a redirect of 303": dict(kind="redirect", status=303, commit=True),
}


@pytest.mark.parametrize("name", LOST)
def test_an_unknown_outcome_settles_itself(sandbox, receiver, name):
    """The intent was made, its answer was lost, its webhook came: the caller who asks again has it."""
    request = person()
    sandbox.fault(email=request.email, **LOST[name])
    receiver.create(request).failed("OUTCOME_UNKNOWN")
    intent = intent_of(sandbox, request)
    wait_for(lambda: receiver.state(request.request_id) == "CREATED", "the settled outcome")
    reply = receiver.create(again(request)).ok()
    assert reply.replayed and reply.user_intent.id == intent
    assert_posts(sandbox, request.email, 1)
    entries = [entry for entry in receiver.log() if entry.get("event") == "settled"]
    assert [entry["request_id"] for entry in entries] == [request.request_id]


def test_the_operator_sees_what_settled_it(sandbox, receiver, ledger):
    """An audit entry by astra, with the webhook's id as its evidence."""
    request = person()
    sandbox.fault("status", request.email, status=500, commit=True)
    receiver.create(request).failed("OUTCOME_UNKNOWN")
    wait_for(lambda: receiver.state(request.request_id) == "CREATED", "the settled outcome")
    sent = sandbox.wait_webhooks(intent_of(sandbox, request))[0]
    shown = str(ledger.json("show", request.request_id))
    assert "settle by webhook" in shown and f"webhook {sent['webhook_id']}" in shown
    wait_for(lambda: receiver.metric("userintent_webhook_settled_total") == 1, "the settling to be counted")


def test_nothing_made_stays_unknown(sandbox, receiver):
    """Without an intent no webhook comes, and a webhook about another intent settles nothing."""
    request = person()
    sandbox.fault("status", request.email, status=500)
    receiver.create(request).failed("OUTCOME_UNKNOWN")
    attempt = sandbox.posts(request.email)[0]["attempt_id"]
    other = person()
    receiver.create(other).ok()
    sandbox.send_webhook(intent_of(sandbox, other), attempt_id=attempt)
    wait_ended(receiver, "conflict")
    assert deliver(receiver, "made-up", "no-such-intent", attempt) == 200
    wait_for(lambda: sandbox.gets("no-such-intent"), "the GET of an intent that is not there")
    assert receiver.state(request.request_id) == "UNKNOWN"


def test_another_unknown_outcomes_intent_is_no_proof(sandbox, receiver):
    """Two outcomes are unknown, and a webhook names the attempt of one and the intent of the other: Astra's answer to
    the GET tells whose intent it is. The right webhooks settle both."""
    requests = [person(), person()]
    for request in requests:
        sandbox.fault("status", request.email, status=500, commit=True)
        sandbox.webhook_fault(request.email, lose=True)
        receiver.create(request).failed("OUTCOME_UNKNOWN")
    intents = [intent_of(sandbox, request) for request in requests]
    attempts = [sandbox.posts(request.email)[0]["attempt_id"] for request in requests]
    sandbox.send_webhook(intents[1], attempt_id=attempts[0])
    wait_ended(receiver, "conflict")
    assert [receiver.state(request.request_id) for request in requests] == ["UNKNOWN", "UNKNOWN"]
    for intent in intents:
        sandbox.send_webhook(intent)
    wait_ended(receiver, "settled", 2)
    for request, intent in zip(requests, intents, strict=True):
        assert receiver.get(request.request_id).ok().user_intent.id == intent


def test_a_webhook_before_the_posts_own_answer(sandbox, receiver):
    """Astra's webhook overtakes its answer: the answer counts."""
    request = person()
    sandbox.webhook_fault(request.email, before_answer=True)
    assert not receiver.create(request).ok().replayed
    wait_ended(receiver, "read")
    assert receiver.state(request.request_id) == "CREATED"
    assert receiver.metric("userintent_webhook_settled_total") == 0


def test_a_change_is_read(sandbox, receiver):
    """Each change of status reaches the record by a webhook and a GET, without a caller's asking."""
    request = person()
    intent = receiver.create(request).ok().user_intent.id
    for status in ("approved", "converted_to_user"):
        sandbox.review(intent, status=status)
        wait_for(lambda s=status: receiver.get(request.request_id).ok().user_intent.astra_status == s, f"status {status}")
    assert receiver.get(request.request_id).ok().user_intent.user_id


@pytest.mark.parametrize("form", ["python", "raw", "compact"])
def test_both_forms_of_the_signature(sandbox, receiver, form):
    """As json.dumps wrote it, as it is, and rewritten; with metadata outside of ASCII."""
    connect(sandbox, receiver, form=form)
    request = person(metadata={"customer": "Zoë Ünlü 😀 \"quoted\" / <b>"})
    intent = receiver.create(request).ok().user_intent.id
    sandbox.review(intent, status="approved")
    wait_for(lambda: receiver.get(request.request_id).ok().user_intent.astra_status == "approved", "the new status")
    label = "python" if form == "compact" else "raw"
    assert receiver.metrics()[f'userintent_webhook_signature_total{{form="{label}",key="current"}}'] >= 2


def test_doubled_reordered_and_replayed(sandbox, receiver):
    """Every one is answered 200, a repeat does nothing, and the last status holds."""
    request = person()
    sandbox.webhook_fault(request.email, status="pending", duplicate=3, replay_ms=300)
    sandbox.webhook_fault(request.email, status="approved", delay_ms=400)
    intent = receiver.create(request).ok().user_intent.id
    sandbox.review(intent, status="approved")
    sandbox.review(intent, status="rejected")
    account = sandbox.wait_webhooks(intent, 7)
    assert {one["tries"][-1]["status"] for one in account} == {200}
    wait_for(lambda: receiver.get(request.request_id).ok().user_intent.astra_status == "rejected", "the last status")
    wait_ended(receiver, "read", 3)
    assert ended(receiver, "read") == 3, "three webhooks, however often they came"
    assert len(sandbox.gets(intent)) <= 4


def test_a_repeat_of_a_done_one_is_not_read_again(sandbox, receiver):
    request = person()
    intent = receiver.create(request).ok().user_intent.id
    wait_ended(receiver, "read")
    first = sandbox.wait_webhooks(intent)[0]
    before = len(sandbox.gets(intent))
    for _ in range(3):
        again_sent = sandbox.send_webhook(intent, webhook_id=first["webhook_id"])
        assert again_sent["tries"][0]["status"] == 200
    assert receiver.metrics()['userintent_webhooks_total{result="done"}'] == 3
    assert len(sandbox.gets(intent)) == before


def test_evidence_that_contradicts_changes_nothing(sandbox, receiver, ledger):
    """Another intent for a row that has one, and an intent for a row that Astra refused: marked, shown, kept."""
    made, refused, other = person(), person(), person()
    mine = receiver.create(made).ok().user_intent.id
    sandbox.answer(refused.email, 400)
    receiver.create(refused).failed("UPSTREAM_REJECTED", sent="yes", http_status="400")
    theirs = receiver.create(other).ok().user_intent.id
    for request in (made, refused):
        sandbox.send_webhook(theirs, attempt_id=sandbox.posts(request.email)[0]["attempt_id"])
    wait_ended(receiver, "conflict", 2)
    assert receiver.get(made.request_id).ok().user_intent.id == mine
    assert receiver.state(refused.request_id) == "REJECTED"
    told = [entry for entry in receiver.log() if entry.get("event") == "settle_conflict"]
    assert {entry["request_id"] for entry in told} == {made.request_id, refused.request_id}


def test_members_that_mean_nothing_here(sandbox, receiver):
    """Unknown types and members: 200, and nothing comes of it. Without an attempt id: by the intent alone."""
    request = person()
    intent = receiver.create(request).ok().user_intent.id
    wait_ended(receiver, "read")
    for parameters in (dict(type="user_updated"), dict(type="brand_new"), dict(extra={"more": {"deep": [1, None]}}),
                       dict(attempt_id=""), dict(attempt_id="not-a-uuid")):
        assert sandbox.send_webhook(intent, **parameters)["tries"][0]["status"] == 200
    wait_ended(receiver, "ignored", 2)
    wait_ended(receiver, "read", 4)
    assert sandbox.send_webhook(resource_id="not-the-gateways")["tries"][0]["status"] == 200
    wait_ended(receiver, "foreign")
    assert sandbox.send_webhook(intent, extra={"webhook_id": "twice"})["tries"][0]["status"] in (400, 401)


def test_wrong_keys_and_forged_ones(sandbox, receiver):
    """401, again and again, and nothing happens."""
    request = person()
    intent = receiver.create(request).ok().user_intent.id
    wait_ended(receiver, "read")
    before = len(sandbox.gets(intent))
    for parameters in (dict(key="wrong"), dict(key="previous"), dict(signature=""), dict(signature="x" * 44)):
        assert sandbox.send_webhook(intent, **parameters)["tries"][0]["status"] == 401
    assert len(sandbox.gets(intent)) == before


def test_rotation_of_the_client_secret(sandbox, receiver):
    """After the file was replaced, what was signed before still counts; and it is told."""
    request = person()
    intent = receiver.create(request).ok().user_intent.id
    write_secret(receiver.client_secret_file, "the next secret")
    wait_for(lambda: ask(receiver, post(body_of("signed-after", intent), secret="the next secret")) == 200, "the new key")
    assert ask(receiver, post(body_of("signed-before", intent))) == 200
    assert receiver.metrics()['userintent_webhook_signature_total{form="raw",key="previous"}'] >= 1
    receiver.announced("webhook_signed_with_previous_key")


def test_keys_of_their_own(new_gateway, tmp_path):
    """--webhook_previous_secret_file beside the client secret, and --webhook_secret_file instead of both."""
    beside = new_gateway(webhook_listen="127.0.0.1:0",
                         webhook_previous_secret_file=write_secret(tmp_path / "previous", "an older one\n"))
    for secret, status in ((CLIENT_SECRET, 200), ("an older one", 200), ("another", 401)):
        assert ask(beside, post(body_of(f"key-{status}-{secret}", "x"), secret=secret)) == status
    own = write_secret(tmp_path / "own", "only this\n")
    alone = new_gateway(webhook_listen="127.0.0.1:0", webhook_secret_file=own)
    assert ask(alone, post(body_of("w1", "x"))) == 401
    assert ask(alone, post(body_of("w1", "x"), secret="only this")) == 200
    write_secret(own, "and now this\n")
    alone.announced("webhook_keys_reloaded")
    assert ask(alone, post(body_of("w2", "x"), secret="and now this")) == 200
    assert ask(alone, post(body_of("w3", "x"), secret="only this")) == 401


def test_what_waits_outlives_the_process(sandbox, receiver):
    """Stored and answered, and killed before Astra could be asked: the next process asks."""
    request = person()
    intent = receiver.create(request).ok().user_intent.id
    wait_ended(receiver, "read")
    sandbox.get_fault("status", intent, times=0, status=503)
    sandbox.review(intent, status="approved")
    sandbox.wait_webhooks(intent, 2)
    wait_for(lambda: receiver.metric("userintent_webhook_unprocessed") == 1, "a webhook that waits")
    receiver.kill()
    sandbox.clear_faults()
    receiver.start()
    connect(sandbox, receiver)
    wait_for(lambda: receiver.get(request.request_id).ok().user_intent.astra_status == "approved", "the status")
    wait_ended(receiver, "read")


def test_a_drain_closes_the_door_first(sandbox, receiver):
    """Connections end, and Astra sends again to whoever opens the door next."""
    with Door(receiver) as idle:
        idle.send(post(body_of("before-the-drain", "nobodys")))
        assert idle.answer()[0] == 200
        receiver.stop()
        assert idle.closed()
    request = person()
    receiver.start()
    connect(sandbox, receiver)
    intent = receiver.create(request).ok().user_intent.id
    sandbox.wait_webhooks(intent)


def test_a_full_queue(sandbox, new_gateway):
    """503 with Retry-After, /readyz says why, health stays; a known one is still answered."""
    gateway = new_gateway(webhook_listen="127.0.0.1:0", webhook_queue=3)
    request = person()
    intent = gateway.create(request).ok().user_intent.id
    sandbox.get_fault("status", intent, times=0, status=503)
    statuses = [deliver(gateway, f"full-{n}", intent) for n in range(6)]
    assert statuses == [200, 200, 200, 503, 503, 503]
    assert deliver(gateway, "full-0", intent) == 200
    with Door(gateway) as door:
        door.send(post(body_of("full-9", intent)))
        status, headers, _ = door.answer()
        assert status == 503 and int(headers["retry-after"]) > 0
    wait_for(lambda: "the queue of webhooks is full" in gateway.http("/readyz")[1], "the reason")
    assert gateway.http("/readyz")[0] == 503
    assert gateway.health() == "SERVING"
    sandbox.clear_faults()
    wait_for(lambda: gateway.http("/readyz")[0] == 200, "room in the queue")


def test_a_disk_that_is_full(sandbox, durable):
    """What cannot be stored is not answered with 200, and comes in when there is room again."""
    # A limit of file size stands for the full disk: writes fail, and the signal that comes with it is ignored.
    gateway = durable(webhook_listen="127.0.0.1:0", wrapper=["env", "--ignore-signal=XFSZ"])
    gateway.create(person()).ok()
    pid = gateway.process.pid
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    try:
        assert deliver(gateway, "on-a-full-disk", "an-intent") == 503
        assert deliver(gateway, "on-a-full-disk", "an-intent") == 503
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    wait_for(lambda: deliver(gateway, "on-a-full-disk", "an-intent") == 200, "200")


def test_no_value_of_a_person_stays(sandbox, receiver, ledger):
    """Webhook bodies hold metadata, GET answers hold names, e-mail and phone: none of it is in ledger, log or metrics."""
    request = person(metadata={"customer-canary": "metadata value of a person"})
    sandbox.fault("status", request.email, status=500, commit=True)
    receiver.create(request).failed("OUTCOME_UNKNOWN")
    wait_for(lambda: receiver.state(request.request_id) == "CREATED", "the settled outcome")
    intent = intent_of(sandbox, request)
    sandbox.review(intent, status="approved")
    wait_for(lambda: receiver.get(request.request_id).ok().user_intent.astra_status == "approved", "the new status")
    assert request.email in str(sandbox.wait_webhooks(intent)) or sandbox.intents(request.email)
    receiver.stop()
    values = {value for value in canary.personal_values(request) if len(value) >= 6}
    for path in ledger.path.parent.iterdir():
        if path.is_file():
            leak = canary.find(path.read_bytes().decode("latin-1"), values)
            assert leak is None, f"{path.name} holds {leak}"
