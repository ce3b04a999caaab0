"""The retry-safety table: for every way in which a POST can end, how many POSTs Astra sees, and what the ledger keeps.

Each row runs over HTTP/2 by nghttp2, over HTTP/2 by libcurl and over HTTP/1.1, on a fresh and on a reused connection:
libcurl re-sends by itself on reused connections, and differently for each version; nghttp2 tells refused streams apart.
The rows about a crash are in test_durable.py.
"""

import dataclasses
import subprocess
import time

import pytest

from support import names
from support.check import FAILED, RELEASED, SUCCEEDED, UNKNOWN, assert_posts, assert_row
from support.gateway import Gateway, write_secret
from support.people import person
from support.process import refusing_address, wait_for
from support.sandbox import Sandbox
from support.wire import TcpTap


@dataclasses.dataclass
class Path:
    """A gateway and a sandbox, and how they speak."""
    name: str
    http2: bool
    gateway: Gateway
    sandbox: Sandbox

    def fresh(self):
        self.sandbox.drop_connections()

    def reused(self):
        # With several shards, each has connections of its own; then one warm call may warm another shard.
        self.gateway.create(person()).ok()


@pytest.fixture(scope="module")
def path_process(transport):
    gateway = Gateway(transport.upstream, upstream_timeout="2s", connect_timeout="2s", shards=1, upstream_breaker=False, **transport.flags)
    path = Path(transport.name, transport.http2, gateway, transport.upstream)
    yield path
    path.gateway.close()
    for email, expected in _expected.pop(path.name, {}).items():
        assert len(path.sandbox.posts(email)) == expected, "a POST came after the answer was given"


@pytest.fixture
def path(path_process):
    yield path_process
    path_process.gateway.assert_alive()


_expected = {}

CREATED = "created"


def S(code, headers=None, body="", **more):
    return ("status", dict(status=code, body=body, headers=headers or {}, **more))


# (row of the table, fault kind and parameters, reason or CREATED, POSTs, row of the ledger, http_status, used_min)
ROWS = [
    # 6, 7: the connection dies after the body was handed over
    (6, ("close", {}), "OUTCOME_UNKNOWN", 1, UNKNOWN, None, 0),
    (6, ("reset", {}), "OUTCOME_UNKNOWN", 1, UNKNOWN, None, 0),
    (6, ("close", {"delay_ms": 300, "commit": True}), "OUTCOME_UNKNOWN", 1, UNKNOWN, None, 0),
    (7, ("garbage", {}), "OUTCOME_UNKNOWN", 1, UNKNOWN, None, 0),
    # 8: no answer in time; and one whose end comes too late
    (8, ("hang", {}), "OUTCOME_UNKNOWN", 1, UNKNOWN, None, 0),
    # 11: HTTP/2 (over HTTP/1.1 the sandbox resets or closes); 9 and 10 are below
    (11, ("goaway", {"below": False}), "OUTCOME_UNKNOWN", 1, UNKNOWN, None, 0),
    (11, ("rst_stream", {"code": "INTERNAL_ERROR"}), "OUTCOME_UNKNOWN", 1, UNKNOWN, None, 0),
    (11, ("rst_stream", {"code": "CANCEL"}), "OUTCOME_UNKNOWN", 1, UNKNOWN, None, 0),
    (11, ("rst_stream", {"code": "HTTP_1_1_REQUIRED"}), "OUTCOME_UNKNOWN", 1, UNKNOWN, None, 0),
    (11, ("rst_stream", {"code": "NO_ERROR"}), "OUTCOME_UNKNOWN", 1, UNKNOWN, None, 0),
    (11, ("rst_stream", {"code": "ENHANCE_YOUR_CALM"}), "OUTCOME_UNKNOWN", 1, UNKNOWN, None, 0),
    # 12: cut short; the status line decides
    (12, ("cut_body", {"status": 201, "commit": True}), "OUTCOME_UNKNOWN", 1, UNKNOWN, 201, 1),
    (12, ("cut_head", {"status": 201}), "OUTCOME_UNKNOWN", 1, UNKNOWN, ..., ...),
    (12, ("cut_body", {"status": 400}), "UPSTREAM_REJECTED", 1, FAILED, 400, 0),
    (12, ("cut_body", {"status": 404}), "UPSTREAM_MISCONFIGURED", 1, RELEASED, 404, 0),
    (12, ("cut_body", {"status": 500}), "OUTCOME_UNKNOWN", 1, UNKNOWN, 500, 0),
    # 13: 2xx without a usable id
    (13, S(201, body="{}"), "OUTCOME_UNKNOWN", 1, UNKNOWN, 201, 1),
    (13, S(204), "OUTCOME_UNKNOWN", 1, UNKNOWN, 204, 1),
    (13, S(200, body="<html>ok</html>", content_type="text/html"), "OUTCOME_UNKNOWN", 1, UNKNOWN, 200, 1),
    # 14 (15 is in test_error_table.py: it needs the rule)
    (14, S(400), "UPSTREAM_REJECTED", 1, FAILED, 400, 0),
    (14, S(422), "UPSTREAM_REJECTED", 1, FAILED, 422, 0),
    (14, ("html", {"status": 400}), "UPSTREAM_REJECTED", 1, FAILED, 400, 0),
    # 16, 17
    (16, S(401), "UPSTREAM_CREDENTIALS_REJECTED", 1, RELEASED, 401, 0),
    (16, S(401, {"WWW-Authenticate": 'Basic realm="x"'}), "UPSTREAM_CREDENTIALS_REJECTED", 1, RELEASED, 401, 0),
    (16, S(403), "UPSTREAM_CREDENTIALS_REJECTED", 1, RELEASED, 403, 0),
    (17, S(404), "UPSTREAM_MISCONFIGURED", 1, RELEASED, 404, 0),
    (17, S(405), "UPSTREAM_MISCONFIGURED", 1, RELEASED, 405, 0),
    (17, S(406), "UPSTREAM_MISCONFIGURED", 1, RELEASED, 406, 0),
    (17, S(410), "UPSTREAM_MISCONFIGURED", 1, RELEASED, 410, 0),
    (17, S(418), "UPSTREAM_MISCONFIGURED", 1, RELEASED, 418, 0),
    # 18, 19
    (18, S(408), "OUTCOME_UNKNOWN", 1, UNKNOWN, 408, 0),
    (19, S(409), "OUTCOME_UNKNOWN", 1, UNKNOWN, 409, 0),
    # 20: 429 is in tests of its own (it holds everything back); 21: once more, and it works
    (21, S(503, {"Retry-After": "0"}), CREATED, 2, SUCCEEDED, None, 1),
    (21, S(503, {"Retry-After": "0"}, times=2), "UPSTREAM_UNAVAILABLE", 2, RELEASED, 503, 0),
    (21, S(503, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}), CREATED, 2, SUCCEEDED, None, 1),
    # 22, 23
    (22, S(503), "OUTCOME_UNKNOWN", 1, UNKNOWN, 503, 0),
    (22, S(503, {"Retry-After": "soon"}), "OUTCOME_UNKNOWN", 1, UNKNOWN, 503, 0),
    (22, S(503, {"Retry-After": "-1"}), "OUTCOME_UNKNOWN", 1, UNKNOWN, 503, 0),
    (22, S(503, {"Retry-After": ""}), "OUTCOME_UNKNOWN", 1, UNKNOWN, 503, 0),
    (23, S(500), "OUTCOME_UNKNOWN", 1, UNKNOWN, 500, 0),
    (23, S(500, {"Retry-After": "1"}), "OUTCOME_UNKNOWN", 1, UNKNOWN, 500, 0),
    (23, S(502), "OUTCOME_UNKNOWN", 1, UNKNOWN, 502, 0),
    (23, S(504), "OUTCOME_UNKNOWN", 1, UNKNOWN, 504, 0),
    (23, ("html", {"status": 500}), "OUTCOME_UNKNOWN", 1, UNKNOWN, 500, 0),
    # 24: redirects, never followed
    (24, ("redirect", {"status": 302, "location": "/v1/user_intent"}), "UPSTREAM_MISCONFIGURED", 1, RELEASED, 302, 0),
    (24, ("redirect", {"status": 307, "location": "/v1/user_intent"}), "UPSTREAM_MISCONFIGURED", 1, RELEASED, 307, 0),
    (24, ("redirect", {"status": 308, "location": "/v1/user_intent"}), "UPSTREAM_MISCONFIGURED", 1, RELEASED, 308, 0),
    (24, ("redirect", {"status": 303, "location": "/v1/user_intent"}), "OUTCOME_UNKNOWN", 1, UNKNOWN, 303, 0),
    # 25: unusable bodies
    (25, ("huge_body", {"status": 201, "bytes": 200000}), "OUTCOME_UNKNOWN", 1, UNKNOWN, 201, 1),
    (25, ("huge_body", {"status": 201, "bytes": 20000000}), "OUTCOME_UNKNOWN", 1, UNKNOWN, 201, 1),
    (25, S(201, body='{"id":"x","deep":' + "[" * 5000 + "]" * 5000 + "}"), ..., 1, None, ..., 1),
    # an ordinary answer, a byte at a time
    (0, ("slow_body", {"byte_ms": 1}), CREATED, 1, SUCCEEDED, None, 1),
    (0, ("delay", {"delay_ms": 200}), CREATED, 1, SUCCEEDED, None, 1),
]


REFUSED_STREAM, GOAWAY_BELOW = ("rst_stream", {"code": "REFUSED_STREAM"}), ("goaway", {"below": True})

# 9, 10: Astra says that it did not process the stream. By nghttp2 that is heard: up to six tries in all.
REFUSED_ROWS = [(number, (kind, {**parameters, "times": times}), *then)
                for number, (kind, parameters) in ((9, REFUSED_STREAM), (10, GOAWAY_BELOW))
                for times, *then in ((1, CREATED, 2, SUCCEEDED, None, 1),
                                     (5, CREATED, 6, SUCCEEDED, None, 1),
                                     (6, "UPSTREAM_UNAVAILABLE", 6, RELEASED, None, 0))]


def _as_libcurl_hears_it(row):
    """libcurl cannot tell a refusal from any other loss."""
    return (*row[:2], "OUTCOME_UNKNOWN", 1, UNKNOWN, None, 0)


def _name(row):
    number, (kind, parameters), *_ = row
    told = [names.of({name: value}) for name, value in parameters.items() if value not in ("", {}, "/v1/user_intent")]
    return f"row {number}: {kind}" + (f" {', '.join(told)}" if told else "")


@pytest.mark.parametrize("connection", ["fresh", "reused"])
@pytest.mark.parametrize("row", ROWS, ids=_name)
def test_row(path, row, connection):
    """Each way in which a POST can end: how often it was sent, what the caller hears, what is recorded."""
    run_row(path, row, connection)


@pytest.mark.parametrize("connection", ["fresh", "reused"])
@pytest.mark.parametrize("row", REFUSED_ROWS, ids=_name)
def test_refused_rows(path, row, connection):
    """A stream that Astra refused unprocessed is sent again, up to six times in all."""
    run_row(path, row if path.name == "nghttp2" else _as_libcurl_hears_it(row), connection)
    path.sandbox.clear_faults()


def run_row(path, row, connection):
    _, (kind, parameters), reason, posts, ledger_row, http_status, used_min = row
    gateway, sandbox = path.gateway, path.sandbox
    for _ in range(8):
        getattr(path, connection)()
        request = person()
        parameters = dict(parameters)
        sandbox.fault(kind, request.email, times=parameters.pop("times", 1), **parameters)
        reply = gateway.create(request)
        arrived = assert_posts(sandbox, request.email, posts)
        parameters = dict(row[1][1])
        # Over HTTP/1.1 no connection carries two requests, whatever was done to warm one.
        if arrived[0]["reused"] == (connection == "reused" and path.http2):
            break
    else:
        pytest.fail(f"no POST on a {connection} connection in 8 tries")
    _expected.setdefault(path.name, {})[request.email] = posts
    assert arrived[0]["proto"] == ("HTTP/2.0" if path.http2 else "HTTP/1.1")

    if reason == CREATED:
        response = reply.ok()
        assert not response.replayed
        assert response.user_intent.id == arrived[-1]["intent_id"]
        assert response.attempts.used_min == 1
    elif reason is not ...:
        error = reply.failed(reason)
        if http_status is not ...:
            error.expect(reason, http_status=http_status)
        if used_min is not ...:
            error.expect(reason, attempts_used_min=used_min, attempts_used_max=0 if ledger_row == RELEASED else 1)
    if ledger_row is not None:
        assert_row(gateway, sandbox, request, ledger_row, reason)
        if ledger_row == RELEASED:
            _expected[path.name][request.email] += 1
    # A second POST, where there is one, is a new attempt to Astra.
    assert len({post["attempt_id"] for post in arrived}) == len(arrived)


# -- 1-5: proved not sent ------------------------------------------------------------------------------------------------

@pytest.fixture
def gateway_of_each(new_gateway, transport):
    """As `new_gateway`, in a test that runs over every transport."""
    return lambda upstream=transport.upstream, **flags: new_gateway(upstream, **{**transport.flags, **flags})


@pytest.mark.parametrize("mode", ["close", "reset", "garbage", "silent"])
def test_rows_2_and_3_no_tls(gateway_of_each, transport, mode):
    """Where no TLS comes about, nothing was sent and the id is free."""
    sandbox = transport.upstream
    tap = TcpTap.before(sandbox, mode)
    behind = gateway_of_each(astra_base_url=tap.url, connect_timeout="500ms")
    request = person()
    behind.create(request).failed("UPSTREAM_UNREACHABLE", sent="no", attempts_used_max=0)
    assert 1 <= tap.accepted <= 3
    tap.mode = "forward"
    assert_row(behind, sandbox, request, RELEASED, "UPSTREAM_UNREACHABLE")
    tap.close()


@pytest.mark.parametrize("mode", ["refuse", "reset", "silent"])
def test_rows_2_and_3_after_a_working_connection(gateway_of_each, transport, mode):
    """The same when there was a connection before, and it is dropped with the outage."""
    sandbox = transport.upstream
    before = gateway_of_each(connect_timeout="500ms")
    before.create(person()).ok()
    request = person()
    try:
        sandbox.listener(mode)
        sandbox.drop_connections()
        before.create(request).failed("UPSTREAM_UNREACHABLE", sent="no")
    finally:
        sandbox.listener("accept")
    assert_posts(sandbox, request.email, 0)
    assert_row(before, sandbox, request, RELEASED, "UPSTREAM_UNREACHABLE")


def test_row_2_refused(gateway_of_each):
    """A refused connection is told as not sent."""
    nowhere = gateway_of_each(None, astra_base_url=f"https://{refusing_address()}")
    request = person()
    nowhere.create(request).failed("UPSTREAM_UNREACHABLE", sent="no")
    assert nowhere.state(request.request_id) == "NOT_SENT"


def test_row_2_name_does_not_resolve(gateway_of_each):
    """A host name without an address is told as not sent."""
    nowhere = gateway_of_each(None, astra_base_url="https://astra.invalid", connect_timeout="1s")
    request = person()
    nowhere.create(request).failed("UPSTREAM_UNREACHABLE", sent="no")
    assert nowhere.state(request.request_id) == "NOT_SENT"


def test_row_3_plain_http_where_tls_should_be(gateway_of_each, transport):
    """An upstream that speaks plain HTTP gets no byte of the request."""
    sandbox = transport.upstream
    plain = gateway_of_each(astra_base_url=f"https://127.0.0.1:{sandbox.admin.port}")
    request = person()
    plain.create(request).failed("UPSTREAM_UNREACHABLE", sent="no")
    assert_posts(sandbox, request.email, 0)


def test_row_4_untrusted_certificate(gateway_of_each, transport, authority):
    """Repeating is pointless, so it is tried once."""
    sandbox = transport.upstream
    tap = TcpTap.before(sandbox)
    stranger = gateway_of_each(astra_base_url=tap.url, astra_ca_file=authority.ca_file)
    request = person()
    stranger.create(request).failed("UPSTREAM_UNREACHABLE", sent="no")
    assert tap.accepted == 1
    assert_posts(sandbox, request.email, 0)
    assert stranger.state(request.request_id) == "NOT_SENT"
    tap.close()


def test_row_4_wrong_host_name(gateway_of_each, authority):
    """An upstream whose certificate is for another host gets no byte of the request."""
    key, certificate = authority.issue("other-host", ["DNS:other-host.example.com"])
    elsewhere = Sandbox(tls_cert_file=certificate, tls_key_file=key)
    try:
        tap = TcpTap.before(elsewhere)
        stranger = gateway_of_each(None, astra_base_url=tap.url, astra_ca_file=authority.ca_file)
        request = person()
        stranger.create(request).failed("UPSTREAM_UNREACHABLE", sent="no")
        assert tap.accepted == 1
        assert_posts(elsewhere, request.email, 0)
        tap.close()
    finally:
        elsewhere.stop()


def test_row_4_expired_certificate(gateway_of_each, authority):
    """An upstream whose certificate has expired gets no byte of the request."""
    key, certificate = authority.issue("expired", ["IP:127.0.0.1"], days=0)
    wait_for(lambda: subprocess.run(["openssl", "x509", "-checkend", "0", "-noout", "-in", certificate],
                                    capture_output=True).returncode != 0, "the certificate's end")
    elsewhere = Sandbox(tls_cert_file=certificate, tls_key_file=key)
    try:
        stranger = gateway_of_each(None, astra_base_url=elsewhere.url, astra_ca_file=authority.ca_file)
        stranger.create(person()).failed("UPSTREAM_UNREACHABLE", sent="no")
        assert elsewhere.summary()["posts"] == 0
    finally:
        elsewhere.stop()


def test_row_5_stale_pooled_connection(path):
    """A pooled connection that the other side closed meanwhile is not used."""
    for _ in range(5):
        path.gateway.create(person()).ok()
        path.sandbox.drop_connections()
        request = person()
        path.gateway.create(request).ok()
        [post] = assert_posts(path.sandbox, request.email, 1)
        assert not post["reused"]


# -- 16: credentials -----------------------------------------------------------------------------------------------------

def test_row_16_once_more_with_other_credentials(new_gateway, sandbox):
    """A 401, and the files hold other credentials by then: one more try, in the same call."""
    own = new_gateway(upstream_breaker=False)  # which would wait for other credentials than these, too
    request = person()
    # The sandbox answers 401 whatever it was sent, slowly enough for the file to be replaced meanwhile.
    sandbox.answer(request.email, 401, "", delay_ms=1200)
    running = own.begin(request)
    sandbox.wait_posts(request.email)
    write_secret(own.client_id_file, "sandbox-client\n")  # the same: no reason to try again
    running.reply().failed("UPSTREAM_CREDENTIALS_REJECTED")
    assert_posts(sandbox, request.email, 1)

    write_secret(own.client_secret_file, "old-secret")
    wait_for(lambda: own.create(person()).error, "the old secret to be used")
    request = person()
    sandbox.fault("delay", request.email, delay_ms=10)
    write_secret(own.client_secret_file, "sandbox-secret")
    own.create(request).ok()
    statuses = [post["status"] for post in sandbox.posts(request.email)]
    assert statuses in ([401, 201], [201])


# -- 20: 429 -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("header", [{"Retry-After": "1"}, {}, {"Retry-After": "soon"}], ids=["1s", "none", "odd"])
def test_row_20_once_more(gateway_of_each, transport, header):
    """After a 429 the POST is sent once more, when its Retry-After has passed."""
    upstream = transport.upstream
    limited = gateway_of_each()
    request = person()
    upstream.answer(request.email, 429, "", headers=header)
    started = time.monotonic()
    response = limited.create(request).ok()
    assert time.monotonic() - started > 0.4  # about a second; jitter is allowed
    assert not response.replayed
    first, second = assert_posts(upstream, request.email, 2)
    assert (first["status"], second["status"]) == (429, 201)
    assert first["attempt_id"] != second["attempt_id"]
    assert (response.attempts.used_min, response.attempts.used_max) == (1, 1)


def test_row_20_only_once(new_gateway, sandbox):
    """A second 429 is passed on: there is no third POST."""
    limited = new_gateway()
    request = person()
    sandbox.answer(request.email, 429, "", headers={"Retry-After": "1"}, times=0)
    limited.create(request).failed("UPSTREAM_RATE_LIMITED", sent="yes")
    assert_posts(sandbox, request.email, 2)
    sandbox.clear_faults()


def test_row_20_not_past_the_deadline(new_gateway, sandbox):
    """A Retry-After beyond the caller's deadline is passed on at once."""
    limited = new_gateway()
    request = person()
    sandbox.answer(request.email, 429, "", headers={"Retry-After": "20"})
    started = time.monotonic()
    error = limited.create(request, timeout=12).failed("UPSTREAM_RATE_LIMITED", sent="yes")
    assert time.monotonic() - started < 10, "it waited for nothing"
    assert 10 < error.retry_after <= 20
    assert_posts(sandbox, request.email, 1)


def test_row_21_by_date(new_gateway, sandbox):
    """A Retry-After may be a date."""
    own = new_gateway()
    request = person()
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 40))
    sandbox.answer(request.email, 503, "", headers={"Retry-After": date})
    error = own.create(request, timeout=10).failed("UPSTREAM_UNAVAILABLE", sent="yes")
    assert 20 < error.retry_after <= 41
    assert_posts(sandbox, request.email, 1)


# -- 26: the caller leaves; more in test_deadlines_cancels.py --------------------------------------------------------------

@pytest.mark.parametrize("connection", ["fresh", "reused"])
def test_row_26_the_caller_leaves(path, connection):
    """A caller that leaves after the send changes nothing about the POST and its record."""
    getattr(path, connection)()
    request = person()
    path.sandbox.fault("delay", request.email, delay_ms=500)
    running = path.gateway.begin(request)
    path.sandbox.wait_posts(request.email)
    running.cancel()
    path.gateway.wait_state(request.request_id, "CREATED")
    assert_row(path.gateway, path.sandbox, request, SUCCEEDED)
    assert_posts(path.sandbox, request.email, 1)


# -- an old answer for a new person ----------------------------------------------------------------------------------------

def test_unsolicited_answers_reach_nobody(new_gateway, sandbox_http1):
    """A second answer on a pooled connection must never become the next person's."""
    pooled = new_gateway(sandbox_http1)
    for second_ms in (0, 1, 5, 30, 100):
        request = person()
        sandbox_http1.fault("second_answer", request.email, second_ms=second_ms)
        reply = pooled.create(request)
        if reply.response is not None:  # with no time in between, the first may be doubted, too
            assert reply.response.user_intent.id == sandbox_http1.intents(request.email)[0]["id"]
        time.sleep(second_ms / 1000)
        following = [person() for _ in range(3)]
        for other in following:
            reply = pooled.create(other)
            if reply.response is None:
                reply.failed("OUTCOME_UNKNOWN")  # possible while the bytes are on their way; a wrong answer never is
            else:
                assert reply.response.user_intent.id == sandbox_http1.intents(other.email)[0]["id"]
            assert len(sandbox_http1.posts(other.email)) <= 1
    pooled.assert_alive()


def test_early_answers(path):
    """Astra answers before it has read the body. The status decides, or nobody knows; never a second POST."""
    for status in (400, 401, 429, 500):
        own = Gateway(path.sandbox)
        try:
            request = person()
            path.sandbox.fault("early", status=status)
            reply = own.create(request, timeout=1.0 if status == 429 else 30)
            assert reply.error or reply.raw, "an early refusal became a success"
            if reply.error:
                assert reply.error.reason in {400: ("UPSTREAM_REJECTED", "OUTCOME_UNKNOWN"),
                                              401: ("UPSTREAM_CREDENTIALS_REJECTED", "OUTCOME_UNKNOWN"),
                                              429: ("UPSTREAM_RATE_LIMITED", "OUTCOME_UNKNOWN", "REQUEST_IN_PROGRESS"),
                                              500: ("OUTCOME_UNKNOWN",)}[status]
        finally:
            path.sandbox.clear_faults()
            own.close()


# -- the default transport and upstreams that want HTTP/1.1 --------------------------------------------------------------

def test_http1_is_spoken_after_it_was_asked_for(new_gateway, sandbox):
    """HTTP_1_1_REQUIRED for a stream costs the one who met it, and nobody after him, in whichever shard."""
    own = new_gateway(upstream_timeout="5s", shards=2)
    lost = person()
    sandbox.fault("rst_stream", lost.email, code="HTTP_1_1_REQUIRED")
    own.create(lost).failed("OUTCOME_UNKNOWN")
    assert_posts(sandbox, lost.email, 1)
    for _ in range(6):
        request = person()
        own.create(request).ok()
        [post] = assert_posts(sandbox, request.email, 1)
        assert post["proto"] == "HTTP/1.1"
    sandbox.clear_faults()


def test_an_upstream_that_keeps_refusing_is_spoken_to_in_http1(new_gateway, sandbox):
    own = new_gateway(shards=1)
    first = person()
    sandbox.fault("rst_stream", first.email, code="REFUSED_STREAM", times=6)
    own.create(first).failed("UPSTREAM_UNAVAILABLE", sent="yes", recovery="RETRY_SAME_ID")
    assert_posts(sandbox, first.email, 6)
    second = person()
    sandbox.fault("rst_stream", second.email, code="REFUSED_STREAM", times=1)
    own.create(second).ok()
    posts = assert_posts(sandbox, second.email, 2)
    assert [post["proto"] for post in posts] == ["HTTP/2.0", "HTTP/1.1"]
    own.create(first).ok()
    sandbox.clear_faults()
