"""Hostile bytes at the webhook door, the one that faces the internet: each gets the documented answer, and genuine
webhooks and calls go on unhurt."""

import contextlib
import itertools
import resource
import ssl
import statistics
import threading
import time
import warnings

import pytest

from support import canary
from support.people import person
from support.process import wait_for
from support.sandbox import webhook_signature
from support.webhook_door import PATH, Door, ask, body_of, deliver, post

IDS = itertools.count(1)


def new_id():
    return f"door-{next(IDS)}"


@pytest.fixture(scope="module")
def gateway_with_door(sandbox):
    from support.gateway import Gateway
    gateway = Gateway(sandbox, webhook_listen="127.0.0.1:0")
    yield gateway
    gateway.close()


@pytest.fixture
def door(gateway_with_door):
    """Afterwards a genuine webhook is taken, on a new connection, within a second."""
    yield gateway_with_door
    gateway_with_door.assert_alive()
    start = time.monotonic()
    assert deliver(gateway_with_door, new_id(), "nobodys-intent") == 200
    assert time.monotonic() - start < 10  # of a machine that is busy


BODY = body_of("case", "an-intent")
LENGTH = f"Content-Length: {len(BODY)}"


def request(*lines, body=BODY):
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


CASES = {
    # Signatures.
    "no signature": (401, request(f"POST {PATH} HTTP/1.1", "Host: d", LENGTH)),
    "empty signature": (401, post(BODY, signature="")),
    "signature of nonsense": (401, post(BODY, signature="not base64!")),
    "signature with another key": (401, post(BODY, secret="not-the-secret")),
    "signature of another body": (401, post(body_of("other", "x"), signature=webhook_signature(BODY))),
    "signature twice": (401, post(BODY, fields=["Astra-Verification: x"])),
    "signature in hex": (401, post(BODY, signature="0" * 64)),
    "signature of 15 KiB": (401, post(BODY, signature="A" * 12000)),
    "signature without padding": (401, post(BODY, signature=webhook_signature(BODY)[:43])),
    # Bodies with a good signature.
    "empty body": (400, post(b"")),
    "no JSON": (400, post(b"hello")),
    "an array": (400, post(b"[]")),
    "a body cut short, signed so": (400, post(BODY[:-3])),
    "members twice": (400, post(BODY[:-1] + b', "webhook_id": "case"}')),
    "no id": (400, post(b'{"webhook_type": "user_intent_updated", "resource_id": "x"}')),
    "id of a number": (400, post(b'{"webhook_type": "user_intent_updated", "resource_id": "x", "webhook_id": 7}')),
    "id too long": (400, post(body_of("w" * 129, "x"))),
    "id with a control character": (400, post(body_of("w\x00", "x"))),
    "resource id too long": (400, post(body_of("case", "i" * 257))),
    "metadata of an array": (400, post(BODY[:-1] + b', "metadata": []}')),
    "not UTF-8": (400, post(BODY[:-1] + b', "x": "\xff"}')),
    "nested deeply": (400, post(BODY[:-1] + b', "x": ' + b"[" * 30000 + b"]" * 30000 + b"}")),
    # Heads.
    "another path": (404, post(BODY, path="/")),
    "the path with more": (404, post(BODY, path=PATH + "/x")),
    "the path escaped": (404, post(BODY, path="/astra%2fwebhooks")),
    "a path of dots": (404, post(BODY, path="/x/.." + PATH)),
    "GET": (405, request(f"GET {PATH} HTTP/1.1", "Host: d", body=b"")),
    "PUT": (405, post(BODY, method="PUT")),
    "DELETE": (405, post(BODY, method="DELETE")),
    "OPTIONS": (405, post(BODY, method="OPTIONS")),
    "an invented method": (405, post(BODY, method="FROB")),
    "no length": (411, request(f"POST {PATH} HTTP/1.1", "Host: d", body=b"")),
    "chunked": (411, request(f"POST {PATH} HTTP/1.1", "Host: d", "Transfer-Encoding: chunked",
                             body=b"5\r\nhello\r\n0\r\n\r\n")),
    "chunked in capitals": (411, request(f"POST {PATH} HTTP/1.1", "Host: d", "Transfer-Encoding: CHUNKED", body=b"")),
    "chunked with a length": (400, post(BODY, fields=["Transfer-Encoding: chunked"])),
    "two lengths": (400, post(BODY, fields=["Content-Length: 5"])),
    "two equal lengths": (400, post(BODY, fields=[LENGTH])),
    "a negative length": (400, post(BODY, length=-1)),
    "a length of letters": (400, post(BODY, length="abc")),
    "one byte too many": (413, post(b"x" * 65537)),
    "far too large": (413, post(BODY, length=10**9)),
    "a length beyond 64 bits": (413, post(BODY, length=10**30)),
    "a header of 20 KiB": (431, post(BODY, fields=["X: " + "x" * 20000])),
    "2,000 headers": (431, post(BODY, fields=[f"X-{n}: y" for n in range(2000)])),
    "HTTP/1.0": (505, post(BODY, version="HTTP/1.0")),
    "HTTP/2's preface": (None, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    # Nothing that anybody would answer, or answer alike.
    "no version": (None, f"POST {PATH}\r\n\r\n".encode()),
    "an invented version": (None, post(BODY, version="HTTP/9.9")),
    "a NUL in the head": (None, post(BODY, fields=["X: a\0b"], signature="x")),
    "a bare line feed in the head": (None, post(BODY, fields=["X: a\nb"])),
    "two Hosts": (400, request(f"POST {PATH} HTTP/1.1", "Host: d", "Host: e", LENGTH)),
    "the whole URI": (401, request(f"POST http://d{PATH} HTTP/1.1", "Host: d", LENGTH)),
    "the whole URI of another path": (404, request("POST http://d/ HTTP/1.1", "Host: d", LENGTH)),
    "no Host": (None, request(f"POST {PATH} HTTP/1.1", LENGTH)),
    "a TLS hello": (None, bytes.fromhex("16030102000100") + b"\x01" * 512),
    "noise": (None, bytes(range(256)) * 200),
    "a long line": (None, b"A" * 100000),
    "spaces before the length": (None, request(f"POST {PATH} HTTP/1.1", "Host: d", f"Content-Length : {len(BODY)}")),
}


@pytest.mark.parametrize("name", CASES)
def test_hostile(door, name):
    """The documented answer, or some refusal where a request cannot be read; never a 2xx, and nothing is stored."""
    before = door.metric("userintent_webhook_unprocessed")
    expected, data = CASES[name]
    with Door(door) as connection:
        connection.send(data)
        if expected is None:
            connection.end()
        answer = connection.answer()
    status = answer and answer[0]
    if expected is None:
        assert status is None or status >= 400
    else:
        assert status == expected
        assert b"door" not in answer[2] and b"case" not in answer[2]
        assert ("retry-after" in answer[1]) == (status == 503)
    assert door.metric("userintent_webhook_unprocessed") == before


def test_refusals_without_a_good_signature_are_one_text(door):
    """Nobody learns from the answer how near a forged one was."""
    texts = set()
    for name, (status, data) in CASES.items():
        if status != 401:
            continue
        with Door(door) as connection:
            connection.send(data)
            answered, headers, body = connection.answer()
            headers.pop("date")
            texts.add((answered, tuple(sorted(headers.items())), body))
        assert len(texts) == 1, name


def test_bad_bodies_without_a_signature_say_nothing_of_the_body(door):
    """401, not 400: what is not signed is not read aloud."""
    for body in (b"", b"[]", b"{", BODY[:-2]):
        assert ask(door, post(body, signature="x")) == 401


def test_keep_alive_and_pipelining(door):
    """Many requests on one connection, also without waiting; a refused one does not end it."""
    with Door(door) as connection:
        for _ in range(3):
            connection.send(post(body_of(new_id(), "nobodys")))
            assert connection.answer()[0] == 200
            connection.send(post(BODY, signature="x"))
            assert connection.answer()[0] == 401
        connection.send(b"".join(post(body_of(new_id(), "nobodys")) for _ in range(5)))
        for _ in range(5):
            assert connection.answer()[0] == 200


def test_a_pipelined_intruder_is_judged_by_itself(door):
    """What follows a genuine request has no part in its signature."""
    with Door(door) as connection:
        connection.send(post(body_of(new_id(), "nobodys")) + post(BODY, signature="x") + b"garbage\r\n\r\n")
        assert connection.answer()[0] == 200
        assert connection.answer()[0] == 401
        answer = connection.answer()
        assert answer is None or answer[0] == 400


def test_expect_continue(door):
    """A client may ask first whether it shall send the body."""
    body = body_of(new_id(), "nobodys")
    head, _, _ = post(body, fields=["Expect: 100-continue"]).partition(b"\r\n\r\n")
    with Door(door) as connection:
        connection.send(head + b"\r\n\r\n")
        assert connection.answer()[0] == 100
        connection.send(body)
        assert connection.answer()[0] == 200


def test_slow_requests_end_after_ten_seconds(door):
    """A head or a body that does not come to an end, silent or byte by byte: 408, all at the same time."""
    whole = post(BODY, signature="x")
    starts = {"nothing": b"", "half a line": whole[:9], "half a head": whole[:60], "half a body": whole[:-10]}
    with contextlib.ExitStack() as stack:
        silent = {name: stack.enter_context(Door(door)) for name in starts}
        dripping = stack.enter_context(Door(door))
        begun = time.monotonic()
        for name, connection in silent.items():
            connection.send(starts[name])
        for byte in whole:
            dripping.send(bytes([byte]))
            time.sleep(0.12)
            if time.monotonic() - begun > 12:
                break
        for name, connection in {**silent, "dripping": dripping}.items():
            answer = connection.answer()
            assert answer and answer[0] == 408, name
            assert connection.closed(), name
        assert time.monotonic() - begun >= 10


def memory(gateway):
    with open(f"/proc/{gateway.process.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) * 1024


def test_a_thousand_half_open_connections(door):
    """They hold places, and others get theirs: genuine webhooks are answered within a second, calls go on, and memory
    is bounded."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    door.create(person()).ok()
    before = memory(door)
    kinds = (b"", b"POST ", post(BODY, signature="x")[:80], post(b"x" * 60000, signature="x")[:30000])
    calm = statistics.median(timed(lambda: door.create(person()).ok()) for _ in range(20))
    with contextlib.ExitStack() as stack:
        for number in range(1000):
            connection = Door(door)
            stack.callback(connection.close)
            connection.send(kinds[number % len(kinds)])
        for _ in range(20):
            assert timed(lambda: deliver(door, new_id(), "nobodys") == 200 or pytest.fail("refused")) < 1
        under_siege = statistics.median(timed(lambda: door.create(person()).ok()) for _ in range(20))
        assert memory(door) - before < 100 << 20
        assert door.metric("userintent_webhook_connections") <= 600
    assert under_siege < calm * 3 + 0.05


def timed(action):
    start = time.monotonic()
    action()
    return time.monotonic() - start


def test_the_limit_of_an_address_leaves_room_for_others(new_gateway):
    """A second address is served while the first one holds all of its places and asks for more."""
    gateway = new_gateway(webhook_listen="127.0.0.1:0", webhook_connections=20, webhook_connections_per_address=10)
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            stack.callback(Door(gateway, source="127.0.0.2").close)
        with Door(gateway, source="127.0.0.3") as other:
            for _ in range(3):
                other.send(post(body_of(new_id(), "nobodys")))
                assert other.answer()[0] == 200
        wait_for(lambda: gateway.metric("userintent_webhook_connections_closed_total") >= 40, "connections cut")


def test_a_flood_of_forged_ones(door):
    """Four senders that never stop to forge: genuine ones are answered, and nothing is stored but these."""
    stop = threading.Event()

    def forge():
        while not stop.is_set():
            with contextlib.suppress(OSError), Door(door) as connection:
                for _ in range(50):
                    connection.send(post(BODY, secret="not-the-secret"))
                    connection.answer()

    forgers = [threading.Thread(target=forge) for _ in range(4)]
    for thread in forgers:
        thread.start()
    try:
        for _ in range(50):
            assert deliver(door, new_id(), "nobodys") == 200
    finally:
        stop.set()
        for thread in forgers:
            thread.join()
    samples = door.metrics()
    assert samples['userintent_webhooks_total{result="no_signature"}'] > 50


def test_tls(new_gateway, authority):
    """With its own certificate; plain bytes and old versions are refused, and a new certificate is shown without a
    restart."""
    key, certificate = authority.issue("door", ["DNS:localhost"])
    gateway = new_gateway(webhook_listen="127.0.0.1:0", webhook_tls_cert_file=certificate, webhook_tls_key_file=key)
    context = ssl.create_default_context(cafile=authority.ca_file)
    context.check_hostname = False

    def serial():
        with Door(gateway) as plain:
            with context.wrap_socket(plain.socket) as wrapped:
                plain.socket = wrapped
                plain.send(post(body_of(new_id(), "nobodys")))
                assert plain.answer()[0] == 200
                return wrapped.getpeercert()["serialNumber"]

    first = serial()
    assert ask(gateway, post(BODY)) is None
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname = False
    old.verify_mode = ssl.CERT_NONE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with Door(gateway) as plain, pytest.raises(OSError):
        old.wrap_socket(plain.socket)
    with Door(gateway) as slow, context.wrap_socket(slow.socket) as slow.socket:
        slow.send(post(BODY, signature="x")[:-5])
        assert slow.answer()[0] == 408
    renewed_key, renewed = authority.issue("door-renewed", ["DNS:localhost"])
    renewed.replace(certificate)
    renewed_key.replace(key)
    wait_for(lambda: serial() != first, "the new certificate")
    gateway.announced("webhook_tls_reloaded")


def test_nothing_of_a_request_is_logged(door):
    """Not of genuine ones, not of hostile ones: not a byte of body, header or path."""
    mark = "canarywebhook"
    for data in (post(body_of(mark, mark, metadata={mark: mark})), post(BODY, signature=mark),
                 post(BODY, path="/" + mark), post(BODY, fields=[f"{mark}: {mark}"]), post(mark.encode()),
                 post(BODY, method=mark), post(BODY, version=mark)):
        ask(door, data)
    assert mark not in door.process.text().lower()
    assert mark not in door.http("/metrics")[1].lower()
    canary.check()
