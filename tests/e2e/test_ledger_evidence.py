"""What userintent-ledger tells an operator about what Astra said: webhooks, conflicts, and outcomes that are accepted.

The rows of webhooks are put into the file of a stopped server, so that each case is exact.
"""

import re
import sqlite3
import time
import uuid

import pytest

from support.check import UNKNOWN
from support.ledger_tool import BESIDE, BY, Down, lose
from support.people import person
from support.process import wait_for
from support.webhook_door import PATH

HOUR = 3600


class File:
    """The ledger file, between two runs of the server."""

    def __init__(self, ledger):
        self.ledger, self.count = ledger, 0

    def write(self, sql, *values):
        database = sqlite3.connect(self.ledger.path)
        with database:
            database.execute(sql, values)
        database.close()

    def webhook(self, attempt=None, ago=0, result="read", waits=False, intent="intent-1"):
        self.count += 1
        received = micros(ago)
        self.write("INSERT INTO webhook (webhook_id, type, resource_id, attempt_id, received_at, due_at, tries, result) "
                   "VALUES (?, 'user_intent_updated', ?, ?, ?, ?, 0, ?)", f"hook-{self.count}", intent,
                   uuid.UUID(attempt).bytes if attempt else None, received, received if waits else None, result)

    def period(self, began_ago, until_ago=0):
        self.write("INSERT INTO receiver_period (began, until) VALUES (?, ?)", micros(began_ago), micros(until_ago))


def micros(ago):
    return int((time.time() - ago) * 1e6)


@pytest.fixture
def lost(durable, ledger, sandbox):
    """A gateway that is stopped, a request whose outcome nobody knows, its attempt id, and the file."""
    gateway = durable()
    request = lose(gateway, sandbox, person())
    attempt = sandbox.posts(request.email)[0]["attempt_id"]
    gateway.stop()
    return gateway, request, attempt, File(ledger)


class Up:
    """The server started for the time of a with block, if the tool is to work beside it."""

    def __init__(self, gateway, beside):
        self.gateway, self.beside = gateway, beside

    def __enter__(self):
        if self.beside:
            self.gateway.restart()

    def __exit__(self, *_):
        if self.beside:
            self.gateway.stop()


@BESIDE
def test_webhooks_that_name_it(ledger, lost, beside):
    gateway, request, attempt, file = lost
    file.webhook(attempt, result="conflict", intent="intent-7")
    file.webhook(attempt, result="", waits=True)
    file.webhook(str(uuid.uuid4()))
    with Up(gateway, beside):
        [entry] = ledger.json("show", request.request_id)["requests"]
        evidence = entry["webhooks"]
        assert [one["webhook_id"] for one in evidence["naming"]] == ["hook-2", "hook-1"]
        assert evidence["naming_count"] == "2" and evidence["other_count"] == "1" and evidence["nameless_count"] == "0"
        assert ledger.json("unresolved")["requests"][0]["webhooks"]["naming"] == evidence["naming"]
        shown = ledger("show", request.request_id).done().out
        assert re.search(r"webhooks +\S+Z hook-2 \(user_intent_updated\), intent intent-1: nothing yet, waits", shown)
        assert "hook-1 (user_intent_updated), intent intent-7: conflict\n" in shown
        assert "2 webhooks name its attempt: nothing yet, waits for another look" in ledger("unresolved").done().out
        # Shown, never acted on.
        assert ledger.unresolved() == [request.request_id]


@pytest.mark.parametrize("began_ago, until_ago, hooks, words", [
    (None, None, [], "none; no webhook could be received yet"),
    (HOUR, 0, [], "up without a gap since then: 0 others came, none for it"),
    (HOUR, 0, [{}], "up without a gap since then: 1 other came, none for it"),
    (HOUR, 0, [{}, {"bare": True}], "2 others came, none for it; of these, 1 without an attempt id"),
    (HOUR, HOUR / 2, [{}], "none, but the receiver is not up since "),
    (-5, -5, [{}, {}], "none, but the receiver is up without a gap only since "),
], ids=["no receiver", "silence", "others", "nameless", "down", "later"])
def test_no_webhook_names_it(ledger, lost, began_ago, until_ago, hooks, words):
    _, request, _, file = lost
    if began_ago is not None:
        file.period(began_ago, until_ago)
    for hook in hooks:
        file.webhook(None if hook.get("bare") else str(uuid.uuid4()), ago=-1)
    shown = ledger("show", request.request_id).done().out
    assert words in shown, shown
    listed = ledger("unresolved").done().out
    assert (f"none of the {len(hooks)} webhook" in listed) == ("though the receiver was up" in shown), listed
    assert ledger.unresolved() == [request.request_id]


def test_beside_a_receiver(durable, ledger, sandbox):
    """The same from Astra's webhooks to the operator's screen: silence first, then one that cannot be proven."""
    gateway = durable(webhook_listen="127.0.0.1:0")
    sandbox.webhooks(f"http://{gateway.webhook_address}{PATH}", retry_ms=50, automatic=False)
    try:
        request = lose(gateway, sandbox, person())
        other = gateway.create(person()).ok().user_intent.id
        assert sandbox.send_webhook(other)["tries"][0]["status"] == 200
        shown = ledger("show", request.request_id).done().out
        assert "up without a gap since then: 1 other came, none for it\n" in shown, shown
        attempt = sandbox.posts(request.email)[0]["attempt_id"]
        assert sandbox.send_webhook(attempt_id=attempt, resource_id="no-such-intent")["tries"][0]["status"] == 200

        def looked():
            return "no-such-intent: not read, waits for another look\n" in ledger("show", request.request_id).done().out

        wait_for(looked, "a look at Astra that finds nothing")
        assert "1 webhook names its attempt: not read, waits" in ledger("unresolved").done().out
        assert ledger.state(request) == UNKNOWN
    finally:
        sandbox.webhooks("")


def test_a_request_that_is_known_has_no_evidence(durable, ledger):
    gateway = durable()
    request = person()
    gateway.create(request).ok()
    gateway.read(request.request_id).ok()
    [entry] = ledger.json("show", request.request_id)["requests"]
    assert "webhooks" not in entry
    assert entry["astra_status"] == "pending" and entry["status_time"] <= entry["read_time"] and entry["user_id"] == ""
    shown = ledger("show", request.request_id).done().out
    assert "webhooks" not in shown and re.search(r"status since +\S+Z, read \S+Z\n", shown)


def test_a_user_and_a_later_status(durable, ledger, sandbox):
    """show tells Astra's last word, and not that of the creation."""
    gateway = durable()
    request = person()
    intent = gateway.create(request).ok().user_intent.id
    sandbox.answer_get(intent, 200, {"id": intent, "status": "converted_to_user", "user_id": "user-77"})
    gateway.read(request.request_id).ok()
    [entry] = ledger.json("show", request.request_id)["requests"]
    assert entry["astra_status"] == "converted_to_user" and entry["user_id"] == "user-77"
    shown = ledger("show", request.request_id).done().out
    assert f"{intent} (converted_to_user)" in shown and re.search(r"user +user-77\n", shown)


@BESIDE
def test_conflicts(ledger, lost, beside):
    gateway, request, attempt, file = lost
    assert ledger("conflicts").done().out == "none\n"
    for number in range(3):
        file.write("INSERT INTO conflict (at, caller, request_id, attempt_id, recorded_state, recorded_intent, "
                   "claimed_state, claimed_intent, action, evidence) VALUES (?, 'local', ?, ?, 3, '', 2, ?, "
                   "'settle by webhook', ?)", micros(10 - number), uuid.UUID(request.request_id).bytes,
                   uuid.UUID(attempt).bytes, f"intent-{number}", f"webhook hook-{number}")
    with Up(gateway, beside):
        listed = ledger.json("conflicts")
        assert [one["claimed_user_intent_id"] for one in listed["conflicts"]] == ["intent-2", "intent-1", "intent-0"]
        first = listed["conflicts"][0]
        assert first["caller"] == "local" and first["request_id"] == request.request_id
        assert first["gateway_attempt_id"] == attempt and first["evidence"] == "webhook hook-2"
        assert (first["recorded_state"], first["claimed_state"]) == ("REQUEST_STATE_FAILED", "REQUEST_STATE_SUCCEEDED")
        some = ledger.json("conflicts", "--limit=2")
        assert len(some["conflicts"]) == 2 and some["more"] and not listed["more"]
        assert "there are more than these 2" in ledger("conflicts", "--limit=2").done().out
        assert ledger.json("show", request.request_id)["conflicts"] == listed["conflicts"]
        assert ledger.json("show", request.request_id, "--caller=local")["conflicts"] == listed["conflicts"]
        shown = ledger("show", request.request_id).done().out
        assert "\nCONFLICT: Astra said otherwise, and nothing was changed\n" in shown
        assert "recorded FAILED, but SUCCEEDED with the intent intent-2" in shown
    for words in (["conflicts", "--limit=0"], ["conflicts", "--limit=1001"], ["conflicts", "more"],
                  ["conflicts", "--caller=x"]):
        ledger(*words).refused(code=2)


@BESIDE
def test_resolve_lists_what_is_accepted(durable, ledger, sandbox, beside):
    gateway = durable()
    unknown, confirmed = lose(gateway, sandbox, person()), lose(gateway, sandbox, person(), status=201)
    done, released = person(), person()
    gateway.create(done).ok()
    sandbox.answer(released.email, 404, "")
    gateway.create(released).failed("UPSTREAM_MISCONFIGURED")
    with Down(gateway, beside):
        def outcomes(request, code):
            return ledger("resolve", request.request_id, "--caller=local").refused(code=code).err

        assert "accepted: created, with the intent's id, or not created\n" in outcomes(unknown, 2)
        told = outcomes(confirmed, 2)
        assert "accepted: created, with the intent's id; Astra answered with a 2xx" in told and "not created" not in told
        ledger.resolve(confirmed, "--not_created").refused("2xx", "accepted: created, with the intent's id")
        assert "SUCCEEDED: what is recorded is never changed" in outcomes(done, 1)
        assert "RELEASED, nothing was created" in outcomes(released, 1)
        ledger("resolve", unknown.request_id, "--caller=another").refused("this caller has no such request")
        # Who and how belong to an outcome, and make none.
        ledger("resolve", unknown.request_id, "--caller=local", *BY).refused("accepted: created", code=2)
        assert sorted(ledger.unresolved()) == sorted([unknown.request_id, confirmed.request_id])
        assert ledger.json("audit")["entries"] == []
