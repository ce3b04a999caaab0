"""The page of /status: what it shows a person, and that the commands on it do what they say."""

import html.parser
import http.client
import os
import subprocess
import time

import grpc
import pytest

from support import canary
from support.gateway import clean_environment
from support.ledger_tool import lose
from support.people import again, person
from support.process import BIN_DIR, PATIENCE, wait_for
from support.webhook_door import PATH

TTL = 1.1  # a page is made once a second


class Page(html.parser.HTMLParser):
    """Its text, its rows (name: values) and its commands."""

    def __init__(self, text):
        super().__init__()
        self.html, self.text, self.rows, self.commands = text, "", {}, []
        self._tags, self._name = [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta",):
            self._tags.append(tag)
        if tag == "pre":
            self.commands.append("")

    def handle_endtag(self, tag):
        assert self._tags.pop() == tag

    def handle_data(self, data):
        inside = self._tags[-1] if self._tags else ""
        self.text += data
        if inside == "pre":
            self.commands[-1] += data
        elif inside == "th":
            self._name = data
        elif inside == "td":
            self.rows.setdefault(self._name, []).append(data)

    def value(self, name):
        [value] = self.rows[name]
        return value


def look(gateway, *requests):
    """The page as it is now; it holds nothing of these requests. On a busy machine the ledger's answer may be late."""

    def ask():
        time.sleep(TTL)
        status, text = gateway.http("/status")
        assert status == 200
        return "the ledger did not answer in time" not in text and text

    text = wait_for(ask, "the ledger's answer")
    leak = canary.find(text, [value for request in requests for value in canary.personal_values(request)])
    assert leak is None, f"the page holds {leak}"
    return Page(text)


def paste(command, **environment):
    """Into a shell that knows the tool."""
    known = clean_environment(**{"PATH": f"{BIN_DIR}:{os.environ['PATH']}", "USER": "operator", **environment})
    return subprocess.run(["sh", "-c", command], env=known, cwd="/", capture_output=True, text=True, timeout=PATIENCE + 30)


def settle(command, **environment):
    done = paste(command, EVIDENCE="ticket 4711; it's $5", **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_gateway_at_rest(durable):
    own = durable(replica_name="<b>first</b>")
    own.create(person()).ok()
    wait_for(lambda: own.metric("userintent_ledger_rows") == 1, "the count, which is taken once a second")
    page = look(own)
    assert "Ready." in page.text and "None." in page.text and page.commands == []
    assert page.value("address") == own.address and page.value("replica") == "<b>first</b>" and "<b>" not in page.html
    assert page.value("kind").startswith("SQLite, ") and page.value("requests") == "1" and page.value("can be written") == "yes"
    assert "ago)" in page.value("last commit") and "ago)" in page.value("started")
    assert page.value("POSTs in flight") == "0" and page.value("watch streams") == "0"
    metrics = own.metrics()
    for series, row in (("userintent_upstream_breaker_state", "breaker"), ("userintent_upstream_limit", "limit")):
        assert (row in page.rows) == any(name.startswith(series) for name in metrics)


def test_it_can_only_be_read(gateway):
    host, _, port = gateway.metrics_address.rpartition(":")
    for method in ("POST", "PUT", "DELETE", "HEAD", "PATCH"):
        connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE)
        connection.request(method, "/status", body="x=1" if method == "POST" else None)
        answer = connection.getresponse()
        assert answer.status == 405 and answer.headers["Allow"] == "GET"
        connection.close()
    connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE)
    connection.request("GET", "/status")
    answer = connection.getresponse()
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff" and answer.headers["Cache-Control"] == "no-store"
    page = Page(answer.read().decode())
    connection.close()
    assert "memory" in page.value("kind") and "no tool can look into this ledger" in page.text


def test_what_does_not_exist_is_settled_by_a_pasted_command(durable, ledger, sandbox):
    """Pasted as it stands it asks, and changes nothing; with the evidence it settles, and the page is empty again."""
    own = durable()
    request = lose(own, sandbox, person())
    page = look(own, request)
    [post] = sandbox.posts(request.email)
    assert page.value("caller") == "local" and post["attempt_id"] in page.value("attempt id")
    assert page.value("sent") == "maybe" and page.value("Astra's status line") == "500"
    assert page.value("webhooks") == "none; no webhook could be received yet"
    assert "late answer" not in page.rows, "the answer has come"
    created, not_created = page.commands
    for command in (created, not_created):
        asked = paste(command)
        assert asked.returncode != 0 and "says how it is known" in asked.stderr or "id of the User Intent" in asked.stderr
    assert ledger.state(request) == "UNKNOWN"
    assert settle(not_created).startswith("resolved\n")
    assert ledger.state(request) == "FAILED"
    [entry] = ledger.json("audit")["entries"]
    assert entry["actor"] == "operator" and entry["evidence"] == "ticket 4711; it's $5"
    assert "None." in look(own).text
    own.create(again(request)).failed("UPSTREAM_REJECTED")
    assert len(sandbox.posts(request.email)) == 1


def test_what_exists_is_settled_by_a_pasted_command(durable, ledger, sandbox, authority):
    """By a caller with a name of its own."""
    key, certificate = authority.issue("status-server", ["DNS:localhost"])
    own = durable(tls_cert_file=certificate, tls_key_file=key, tls_client_ca_file=authority.ca_file)
    caller = "spiffe://example.test/a&b/c"
    key, certificate = authority.issue("status-caller", [f"URI:{caller}"])
    channel = own.new_channel(grpc.ssl_channel_credentials(authority.ca_file.read_bytes(), key.read_bytes(),
                                                           certificate.read_bytes()))
    request = person()
    sandbox.answer(request.email, 500, "")
    own.create(request, channel=channel).failed("OUTCOME_UNKNOWN")
    page = look(own)
    assert page.value("caller").endswith(caller)
    assert page.value("server").startswith("ends 20") and page.value("client_ca").startswith("ends 20")
    settle(page.commands[0], INTENT_ID="intent of 'mine'")
    assert own.create(again(request), channel=channel).ok().user_intent.id == "intent of 'mine'"
    assert len(sandbox.posts(request.email)) == 1


def test_the_intent_that_a_webhook_names_is_in_the_command(durable, ledger, sandbox):
    own = durable(webhook_listen="127.0.0.1:0")
    sandbox.webhooks(f"http://{own.webhook_address}{PATH}", retry_ms=50, automatic=False)
    try:
        request = lose(own, sandbox, person())
        attempt = sandbox.posts(request.email)[0]["attempt_id"]
        assert sandbox.send_webhook(attempt_id=attempt, resource_id="no-such-intent")["tries"][0]["status"] == 200
        wait_for(lambda: own.metric("userintent_webhook_unprocessed") == 0
                 or "not read" in ledger("show", request.request_id).done().out, "a look at Astra that finds nothing")
        page = look(own)
        assert "intent no-such-intent" in page.value("webhooks") and "ago)" in page.value("last received")
        assert "--created=no-such-intent" in page.commands[0]
    finally:
        sandbox.webhooks("")


def test_a_slow_answer_may_still_come(durable, sandbox):
    own = durable(upstream_timeout="500ms", connect_timeout="400ms", late_answer_window="1h")
    request = person()
    sandbox.fault("hang", request.email)
    own.create(request).failed("OUTCOME_UNKNOWN")
    page = look(own)
    assert page.value("late answer").startswith("none yet; if it is only slow, it is listened for until 20")
    assert page.value("POSTs listened to after their time") == "1"


def test_more_than_a_page_holds(durable, ledger, sandbox):
    """The oldest hundred, and how many more; not those that their caller replaced."""
    own = durable(upstream_breaker=False)
    lost = [lose(own, sandbox, person()) for _ in range(104)]
    own.create(person(email=lost[0].email, supersedes_request_id=lost[0].request_id)).ok()
    page = look(own)
    assert "The oldest 100; 3 more: userintent-ledger unresolved --not_superseded" in page.text
    assert [request.request_id in page.text for request in lost] == [False] + [True] * 100 + [False] * 3
    assert len(page.commands) == 200 and len(page.html) < 300_000


def test_a_ledger_that_replicas_share(new_gateway, sandbox, postgres_cluster, postgres_url):
    own = new_gateway(ledger=postgres_url, ledger_migrate=True, ledger_single_node=True)
    request = lose(own, sandbox, person())
    page = look(own)
    assert page.value("kind").startswith("PostgreSQL, ") and page.value("replicas") == "1"
    assert page.value("this replica may begin requests") == "yes"
    assert postgres_url not in page.html and "USERINTENT_LEDGER must be" in page.text
    settle(page.commands[1], USERINTENT_LEDGER=postgres_url)
    own.create(again(request)).failed("UPSTREAM_REJECTED")
    assert "None." in look(own).text


def test_while_it_stops(new_gateway):
    own = new_gateway(lame_duck="60s", drain_timeout="120s")
    own.signal()
    wait_for(lambda: "Not ready: it will drain in a moment." in look(own).text, "the page")
    own.signal()
    own.process.wait()
    own.stopped = True


@pytest.mark.parametrize("path", ["/status/", "/status.html", "/statusx", "/STATUS"])
def test_no_other_page(gateway, path):
    assert gateway.http(path)[0] == 404
