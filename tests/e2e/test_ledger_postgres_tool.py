"""userintent-ledger on a ledger in PostgreSQL: with the database's credentials, beside gateways and without any."""

import uuid

import pytest

from support.check import UNKNOWN, assert_posts, assert_row
from support.gateway import Gateway
from support.ledger_tool import Ledger, lose, run
from support.people import again, person, same_email


class DatabaseLedger(Ledger):
    def __call__(self, *words, **how):
        ended = run(f"--ledger={self.path}", *words, **how)
        self.said += ended.out + ended.err
        return ended


@pytest.fixture
def tool(postgres_url):
    return DatabaseLedger(postgres_url)


@pytest.fixture
def two(sandbox, tool):
    """Two gateways on one ledger, whose tables the tool made."""
    tool("migrate").done()
    one = Gateway(sandbox, ledger=tool.path, ledger_single_node=True, replica_name="one")
    other = Gateway(sandbox, ledger=tool.path, ledger_single_node=True, replica_name="other",
                    ledger_key_file=one.flags["ledger_key_file"])
    yield one, other
    for gateway in (other, one):
        gateway.close()


def test_an_empty_database_and_its_tables(tool):
    tool("stats").refused("userintent-ledger migrate makes one")
    tool("replicas").refused("userintent-ledger migrate makes one")
    assert tool.json("migrate") == {"before": 0, "schema_version": 1}
    assert tool("migrate").done().out.startswith("nothing to do")
    assert tool.json("replicas") == {"replicas": []}


@pytest.mark.parametrize("created", [True, False])
def test_an_unknown_outcome_is_settled_for_all_replicas(two, tool, sandbox, created):
    one, other = two
    request = lose(one, sandbox, person())
    other.create(same_email(request)).failed("EMAIL_UNRESOLVED")
    assert_row(other, sandbox, request, UNKNOWN, "OUTCOME_UNKNOWN")
    assert tool.unresolved() == [request.request_id] and tool.state(request) == "UNKNOWN"
    intent = str(uuid.uuid4())
    how = f"--created={intent}" if created else "--not_created"
    assert tool.resolve(request, how).done().out.startswith("resolved\n")
    assert tool.resolve(request, how).done().out.startswith("it was so already")
    assert tool.unresolved() == []
    [deed] = tool.json("show", request.request_id)["audit"]
    assert deed["actor"] == "operator" and deed["evidence"] == "ticket 4711"
    if created:
        tool.resolve(request, "--not_created").refused("SUCCEEDED: what is recorded is never changed")
        repeat = other.create(request).ok()
        assert repeat.replayed and repeat.user_intent.id == intent
        other.create(again(request, request_id=str(uuid.uuid4()))).failed("PERSON_EXISTS", user_intent_id=intent)
        assert_posts(sandbox, request.email, 1)
    else:
        other.create(request).failed("UPSTREAM_REJECTED", recovery="FIX_WITH_NEW_ID", replayed="true")
        assert_posts(sandbox, request.email, 1)
        other.create(same_email(request)).ok()
        assert_posts(sandbox, request.email, 2)


def test_who_shares_the_ledger(two, tool):
    one, other = two
    shown = tool.json("replicas")["replicas"]
    assert sorted((replica["name"], replica["state"], replica["under_way"]) for replica in shown) == \
        [("one", "beats", "0"), ("other", "beats", "0")]
    one.stop()
    states = {replica["name"]: (replica["state"], replica["swept"]) for replica in tool.json("replicas")["replicas"]}
    assert states == {"one": ("gone", True), "other": ("beats", False)}


@pytest.mark.parametrize("words", [["backup", "/tmp/copy.db"], ["restore", "/tmp/copy.db"]])
def test_what_the_database_has_itself(tool, words):
    tool(*words).refused("the database has its own", code=2)


@pytest.mark.parametrize("command", ["migrate", "replicas"])
def test_what_a_file_does_not_need(ledger, command):
    ledger(command).refused("needs --ledger=postgresql://", code=2)


def test_no_password_in_the_url(tool):
    run("--ledger=postgresql://userintent:example@db.example.com/ledger?sslmode=verify-full", "stats").refused(
        "password", code=2)
