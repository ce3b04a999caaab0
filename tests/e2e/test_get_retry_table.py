"""The retry table of GetUserIntent: for every way in which a GET can end, how many GETs Astra sees, and what the caller hears.

Each row runs over HTTP/2 by nghttp2, over HTTP/2 by libcurl and over HTTP/1.1, on a fresh and on a reused connection where
the connection is what breaks: libcurl repeats a GET by itself on a reused connection that dies, and that repeat would count.
What may pass is repeated, with three GETs in all and never past the caller's deadline; what cannot pass is asked once.
"""

import dataclasses
import time

import pytest

from support.gateway import Gateway, write_secret
from support.people import person
from support.process import wait_for
from support.protos import pb
from support.wire import TcpTap

MOST = 3  # GETs of one read


@dataclasses.dataclass
class Path:
    """A gateway and a sandbox, and how they speak. The intents are created over another connection than what is tested."""
    name: str
    http2: bool
    gateway: Gateway
    sandbox: object

    def intent(self):
        request = person()
        return request, self.gateway.create(request).ok().user_intent.id

    def warm(self, connection):
        if connection == "fresh":
            self.sandbox.drop_connections()
        else:
            self.gateway.create(person()).ok()


@pytest.fixture(scope="module")
def path_process(transport):
    gateway = Gateway(transport.upstream, upstream_timeout="2s", connect_timeout="2s", shards=1, astra_read_rate=0,
                      follow_up="0", upstream_breaker=False, **transport.flags)  # their reads would count
    path = Path(transport.name, transport.http2, gateway, transport.upstream)
    yield path
    path.gateway.close()
    for intent, expected in _expected.pop(path.name, {}).items():
        assert len(path.sandbox.gets(intent)) == expected, "a GET came after the answer was given"


@pytest.fixture
def path(path_process):
    yield path_process
    path_process.sandbox.clear_faults()
    path_process.gateway.assert_alive()


_expected = {}


@pytest.fixture
def gateway_of_each(new_gateway, transport):
    """As `new_gateway`, in a test that runs over every transport."""
    return lambda upstream=transport.upstream, **flags: new_gateway(upstream, **{**transport.flags, "upstream_breaker": False, **flags})


def assert_gets(path, intent, count):
    gets = path.sandbox.gets(intent)
    assert len(gets) == count, f"expected {count} GET(s), the sandbox counted {len(gets)}"
    _expected.setdefault(path.name, {})[intent] = count
    return gets


def S(code, headers=None, body="", **more):
    return ("status", dict(status=code, body=body, headers=headers or {}, **more))


def _name(row):
    kind, parameters = row[0]
    return "-".join([kind] + [str(value)[:20] for name, value in parameters.items()
                              if name in ("status", "code", "below", "bytes", "headers") and value not in ({}, None)])


# -- what may pass -------------------------------------------------------------------------------------------------------

# (fault, http_status of the error when all GETs meet it; ...: whatever)
BROKEN_CONNECTIONS = [
    (("close", {}), None),
    (("reset", {}), None),
    (("garbage", {}), None),
    (("goaway", {"below": False}), None),
    (("goaway", {"below": True}), None),
    (("rst_stream", {"code": "REFUSED_STREAM"}), None),
    (("rst_stream", {"code": "INTERNAL_ERROR"}), None),
    (("rst_stream", {"code": "CANCEL"}), None),
    (("rst_stream", {"code": "ENHANCE_YOUR_CALM"}), None),
    (("rst_stream", {"code": "NO_ERROR"}), None),
    (("rst_stream", {"code": "HTTP_1_1_REQUIRED"}), None),
    (("cut_body", {}), ...),
    (("cut_head", {}), ...),
]
PASSING = BROKEN_CONNECTIONS + [(S(status), status) for status in (408, 500, 501, 502, 503, 504, 505, 507, 511, 520, 599)] + [
    (("html", {"status": 502}), 502),
    (("cut_body", {"status": 500}), ...),
    (S(500, {"Retry-After": "0"}), 500),
    (S(503, {"Retry-After": "0"}), 503),
    (S(503, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}), 503),
    (S(503, {"Retry-After": "soon"}), 503),
    (S(503, {"Retry-After": "-1"}), 503),
]


@pytest.mark.parametrize("connection", ["fresh", "reused"])
@pytest.mark.parametrize("row", BROKEN_CONNECTIONS, ids=_name)
def test_a_broken_connection_is_repeated(path, row, connection):
    (kind, parameters), _ = row
    _, intent = path.intent()
    for _ in range(8):
        path.warm(connection)
        before = len(path.sandbox.gets(intent))
        path.sandbox.get_fault(kind, intent, **parameters)
        response = path.gateway.read(intent, by="user_intent_id").ok()
        assert response.user_intent.id == intent and not response.stale
        gets = path.sandbox.gets(intent)[before:]
        assert len(gets) == 2, f"expected 2 GETs, the sandbox counted {len(gets)}"
        # Over HTTP/1.1 no connection carries two requests, whatever was done to warm one.
        if gets[0]["reused"] == (connection == "reused" and path.http2):
            break
    else:
        pytest.fail(f"no GET on a {connection} connection in 8 tries")
    assert_gets(path, intent, before + 2)
    assert {get["proto"] for get in gets} == {"HTTP/2.0" if path.http2 else "HTTP/1.1"}


@pytest.mark.parametrize("row", PASSING, ids=_name)
def test_what_may_pass_is_repeated(path, row):
    """Twice it fails, and then it works."""
    (kind, parameters), _ = row
    request, intent = path.intent()
    path.sandbox.get_fault(kind, intent, times=MOST - 1, **parameters)
    response = path.gateway.read(request).ok()
    assert response.user_intent.id == intent and not response.stale
    gets = assert_gets(path, intent, MOST)
    assert gets[-1]["status"] == 200 and gets[-1]["fault"] == ""


@pytest.mark.parametrize("row", PASSING, ids=_name)
def test_what_may_pass_is_given_up_after_three(path, row):
    (kind, parameters), http_status = row
    request, intent = path.intent()
    path.sandbox.get_fault(kind, intent, times=0, **parameters)
    error = path.gateway.read(request).failed("UPSTREAM_UNAVAILABLE", recovery="RETRY_SAME_ID")
    if http_status is not ...:
        error.expect("UPSTREAM_UNAVAILABLE", http_status=http_status)
    assert_gets(path, intent, MOST)
    assert path.gateway.read(request, allow_stale=True).ok().stale
    assert_gets(path, intent, 2 * MOST)


def test_no_answer_in_time(path):
    """--upstream_timeout (2 s here) is for each GET."""
    request, intent = path.intent()
    path.sandbox.get_fault("hang", intent)
    assert not path.gateway.read(request).ok().stale
    assert_gets(path, intent, 2)
    path.sandbox.get_fault("hang", intent, times=0)
    path.gateway.read(request).failed("UPSTREAM_UNAVAILABLE", http_status=None)
    assert_gets(path, intent, 2 + MOST)


@pytest.mark.parametrize("fault", [("slow_body", {"byte_ms": 1}), ("delay", {"delay_ms": 200}),
                                   ("status", {"status": 203}), ("status", {"status": 201})],
                         ids=["slow_body", "delay", "203", "201"])
def test_an_odd_good_answer_is_taken(path, fault):
    kind, parameters = fault
    request, intent = path.intent()
    path.sandbox.get_fault(kind, intent, **parameters)
    response = path.gateway.read(request).ok()
    assert response.user_intent.id == intent and not response.stale
    assert_gets(path, intent, 1)


# -- what cannot pass ----------------------------------------------------------------------------------------------------

def _final(reason, *statuses):
    return [(S(status, {"Location": "/v1/user_intent"} if 300 <= status < 400 else None), reason, status) for status in statuses]


FINAL = [
    *_final("USER_INTENT_NOT_FOUND", 404),
    *_final("UPSTREAM_CREDENTIALS_REJECTED", 401, 403),
    *_final("UPSTREAM_MISCONFIGURED", 300, 301, 302, 303, 304, 307, 308, 399),
    *_final("UPSTREAM_MISCONFIGURED", 400, 402, 405, 406, 407, 409, 410, 411, 412, 413, 414, 415, 417, 418, 421, 422, 423, 426, 428,
            431, 451, 499),
    (S(429, {"Retry-After": "60"}), "UPSTREAM_RATE_LIMITED", 429),
    (S(503, {"Retry-After": "60"}), "UPSTREAM_UNAVAILABLE", 503),
    (("html", {"status": 404}), "USER_INTENT_NOT_FOUND", 404),
    (("html", {"status": 403}), "UPSTREAM_CREDENTIALS_REJECTED", 403),
    (("redirect", {"status": 302}), "UPSTREAM_MISCONFIGURED", 302),
    (("html", {"status": 200}), "UPSTREAM_MISCONFIGURED", 200),
    (S(204), "UPSTREAM_MISCONFIGURED", 204),
]
HOLDS = (429, 503)  # Retry-After is for every call, so these rows have gateways of their own


@pytest.mark.parametrize("row", [row for row in FINAL if row[2] not in HOLDS], ids=_name)
def test_what_cannot_pass_is_asked_once(path, row):
    (kind, parameters), reason, http_status = row
    request, intent = path.intent()
    path.sandbox.get_fault(kind, intent, times=0, **parameters)
    path.gateway.read(request).failed(reason, http_status=http_status)
    assert_gets(path, intent, 1)


@pytest.mark.parametrize("body", ["", "{}", "[]", "null", "not json", '{"id":""}', '{"id":null}', '{"id":7}', '{"id":"ID"',
                                  '{"id":"ID"} {"id":"ID"}', '{"id":"other"}', '{"id":["ID"]}', '{"user":{"id":"ID"}}',
                                  '{"ID":"ID"}', '{"id":"ID ","status":"approved"}', "[" * 200 + "]" * 200,
                                  '{"id":"ID","deep":' + "[" * 5000 + "]" * 5000 + "}", '{"id":"ID","id":"ID"}',
                                  '{"id":"ID","status":"approved","status":"rejected"}', '{"id":"ID","x":"\\ud800"}'], ids=range(20))
def test_an_answer_that_is_not_this_intent(path, body):
    request, intent = path.intent()
    path.sandbox.answer_get(intent, 200, body.replace("ID", intent) if '"ID":' not in body else body, times=0)
    path.gateway.read(request).failed("UPSTREAM_MISCONFIGURED", recovery="WAIT_FOR_OPERATOR", http_status=200)
    assert_gets(path, intent, 1)
    assert path.gateway.read(request, allow_stale=True).ok().user_intent.status == pb.USER_INTENT_STATUS_PENDING
    assert_gets(path, intent, 2)


def test_another_intents_answer(path):
    """Another person's data, whole and good: nothing of it is told or kept."""
    request, intent = path.intent()
    _, other = path.intent()
    path.sandbox.review(other, status="converted_to_user", user_id="user-of-the-other")
    before = path.gateway.get(request.request_id).ok()
    path.sandbox.get_fault("delay", intent, answer_id=other)
    path.gateway.read(request).failed("UPSTREAM_MISCONFIGURED", http_status=200)
    assert_gets(path, intent, 1)
    assert path.gateway.get(request.request_id).ok() == before


def test_a_body_that_is_too_large(path):
    """The gateway stops reading after 64 KiB: no intent is that large, and the next answer would be none either."""
    request, intent = path.intent()
    path.sandbox.get_fault("huge_body", intent, times=0, bytes=200000)
    path.gateway.read(request).failed("UPSTREAM_MISCONFIGURED", http_status=200)
    assert_gets(path, intent, 1)


# -- waits ---------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("header", [{"Retry-After": "1"}, {}, {"Retry-After": "soon"}], ids=["1s", "none", "odd"])
def test_429_is_repeated_after_its_time(gateway_of_each, transport, header):
    own = gateway_of_each()
    request = person()
    intent = own.create(request).ok().user_intent.id
    transport.upstream.answer_get(intent, 429, "", headers=header)
    started = time.monotonic()
    assert not own.read(request).ok().stale
    assert time.monotonic() - started > 0.4  # about a second; jitter is allowed
    assert [get["status"] for get in transport.upstream.gets(intent)] == [429, 200]


def test_429_is_given_up_after_three(gateway_of_each, transport):
    own = gateway_of_each()
    request = person()
    intent = own.create(request).ok().user_intent.id
    transport.upstream.answer_get(intent, 429, "", headers={"Retry-After": "1"}, times=0)
    own.read(request).failed("UPSTREAM_RATE_LIMITED", http_status=429)
    assert len(transport.upstream.gets(intent)) == MOST
    transport.upstream.clear_faults()


def test_503_waits_for_its_time(gateway_of_each, transport):
    own = gateway_of_each()
    request = person()
    intent = own.create(request).ok().user_intent.id
    transport.upstream.answer_get(intent, 503, "", headers={"Retry-After": "1"})
    started = time.monotonic()
    assert not own.read(request).ok().stale
    assert time.monotonic() - started > 0.9
    assert [get["status"] for get in transport.upstream.gets(intent)] == [503, 200]


@pytest.mark.parametrize("status, reason", [(429, "UPSTREAM_RATE_LIMITED"), (503, "UPSTREAM_UNAVAILABLE")])
def test_a_wait_that_does_not_fit_the_deadline_is_told(gateway_of_each, transport, status, reason):
    own = gateway_of_each()
    request = person()
    intent = own.create(request).ok().user_intent.id
    transport.upstream.answer_get(intent, status, "", headers={"Retry-After": "50"}, times=0)
    started = time.monotonic()
    error = own.read(request, timeout=20).failed(reason, http_status=status)
    assert 30 < error.retry_after <= 50
    assert time.monotonic() - started < 15  # it did not wait for a repeat that cannot be
    assert len(transport.upstream.gets(intent)) == 1
    transport.upstream.clear_faults()


# -- the deadline --------------------------------------------------------------------------------------------------------

def test_never_past_the_deadline(gateway_of_each, transport):
    """The deadline comes while a GET is under way: told in time, and no GET begins after it."""
    own = gateway_of_each()
    request = person()
    intent = own.create(request).ok().user_intent.id
    transport.upstream.get_fault("hang", intent, times=0)
    for _ in range(3):  # a busy machine may be late once
        before = len(transport.upstream.gets(intent))
        reply = own.read(request, timeout=2)
        if reply.error:
            break
    reply.failed("UPSTREAM_UNAVAILABLE", http_status=None)
    assert len(transport.upstream.gets(intent)) == before + 1
    for _ in range(3):
        reply = own.read(request, timeout=2, allow_stale=True)
        if reply.response:
            break
    assert reply.ok().stale
    count = len(transport.upstream.gets(intent))
    time.sleep(1)
    assert len(transport.upstream.gets(intent)) == count
    transport.upstream.clear_faults()


def test_no_repeat_begins_after_the_deadline(gateway_of_each, transport):
    """Answers that may pass, each slower than half of the deadline: the third GET would be too late."""
    own = gateway_of_each()
    request = person()
    intent = own.create(request).ok().user_intent.id
    transport.upstream.get_fault("status", intent, times=0, status=500, delay_ms=1200)
    for _ in range(3):  # a busy machine may be late once
        before = len(transport.upstream.gets(intent))
        reply = own.read(request, timeout=2.2)
        if reply.error:
            break
    reply.failed("UPSTREAM_UNAVAILABLE")
    assert len(transport.upstream.gets(intent)) - before in (1, 2)
    transport.upstream.clear_faults()


# -- not sent ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("mode", ["close", "reset", "garbage", "silent"])
def test_no_tls(gateway_of_each, transport, mode):
    tap = TcpTap.before(transport.upstream)
    behind = gateway_of_each(astra_base_url=tap.url, connect_timeout="500ms")
    request = person()
    intent = behind.create(request).ok().user_intent.id
    tap.mode = mode
    tap.drop()
    before = tap.accepted
    behind.read(request).failed("UPSTREAM_UNREACHABLE", http_status=None)
    assert 1 <= tap.accepted - before <= MOST
    assert transport.upstream.gets(intent) == []
    assert behind.read(request, allow_stale=True).ok().stale
    tap.mode = "forward"
    assert not behind.read(request).ok().stale
    assert len(transport.upstream.gets(intent)) == 1
    tap.close()


@pytest.mark.parametrize("mode", ["refuse", "reset", "silent"])
def test_unreachable_after_a_working_connection(gateway_of_each, transport, mode):
    sandbox = transport.upstream
    own = gateway_of_each(connect_timeout="500ms")
    request = person()
    intent = own.create(request).ok().user_intent.id
    try:
        sandbox.listener(mode)
        sandbox.drop_connections()
        own.read(request).failed("UPSTREAM_UNREACHABLE", http_status=None)
    finally:
        sandbox.listener("accept")
    assert sandbox.gets(intent) == []
    assert not own.read(request).ok().stale


def test_reached_again_within_the_call(gateway_of_each, transport):
    tap = TcpTap.before(transport.upstream)
    behind = gateway_of_each(astra_base_url=tap.url)
    request = person()
    intent = behind.create(request).ok().user_intent.id
    tap.mode = "close"
    tap.drop()
    before = tap.accepted
    running = behind.begin_read(request)
    wait_for(lambda: tap.accepted > before, "the first connection")
    tap.mode = "forward"
    assert not running.reply().ok().stale
    assert len(transport.upstream.gets(intent)) == 1
    tap.close()


def test_where_repeating_is_pointless(durable, transport, authority):
    """An untrusted certificate is tried once."""
    own = durable(astra_base_url=transport.upstream.url, astra_ca_file=transport.upstream.ca_file, **transport.flags)
    request = person()
    intent = own.create(request).ok().user_intent.id
    tap = TcpTap.before(transport.upstream)
    own.restart(astra_base_url=tap.url, astra_ca_file=authority.ca_file)
    own.read(request).failed("UPSTREAM_UNREACHABLE", http_status=None)
    assert tap.accepted == 1
    assert own.read(request, allow_stale=True).ok().user_intent.id == intent
    assert transport.upstream.gets(intent) == []
    tap.close()


# -- credentials ---------------------------------------------------------------------------------------------------------

def test_once_more_with_other_credentials(gateway_of_each, transport):
    """A 401, and the files hold other credentials by then: one more GET, in the same call."""
    own = gateway_of_each()
    request = person()
    intent = own.create(request).ok().user_intent.id
    transport.upstream.answer_get(intent, 401, "", delay_ms=1200, times=0)
    running = own.begin_read(request)
    transport.upstream.wait_gets(intent)
    write_secret(own.client_id_file, "sandbox-client\n")  # the same: no reason to try again
    running.reply().failed("UPSTREAM_CREDENTIALS_REJECTED", http_status=401)
    assert len(transport.upstream.gets(intent)) == 1
    transport.upstream.clear_faults()

    write_secret(own.client_secret_file, "old-secret")
    wait_for(lambda: own.read(request).error, "the old secret to be used").expect("UPSTREAM_CREDENTIALS_REJECTED",
                                                                                  http_status=401)
    before = len(transport.upstream.gets(intent))
    write_secret(own.client_secret_file, "sandbox-secret")
    assert not own.read(request).ok().stale
    statuses = [get["status"] for get in transport.upstream.gets(intent)[before:]]
    assert statuses in ([401, 200], [200])  # 200 alone where the reload came first
