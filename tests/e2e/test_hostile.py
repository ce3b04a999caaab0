"""Hostile bytes from callers and from upstream: refused, and everybody else is served on."""

import contextlib
import gzip
import socket
import ssl
import struct
import time
import zlib

import grpc
import pytest

from support import canary, names
from support.check import UNKNOWN, assert_posts, assert_row
from support.people import again, person
from support.process import refusing_address, wait_for
from support.protos import CREATE, GET, SERVICE
from support.wire import Call, TcpTap, connect, frame, split

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@pytest.fixture
def served_afterwards(gateway, sandbox):
    """The test may do what it wants; afterwards a call of somebody else works, and so does a new connection."""
    yield gateway
    request = person()
    gateway.create(request).ok()
    gateway.create(person(), channel=gateway.new_channel()).ok()
    assert_posts(sandbox, request.email, 1)


# -- callers: messages -----------------------------------------------------------------------------------------------------

def varint(number):
    out = b""
    while True:
        number, low = number >> 7, number & 0x7f
        if not number:
            return out + bytes([low])
        out += bytes([low | 0x80])


def field(number, wire_type, payload):
    return varint(number << 3 | wire_type) + payload


def text(number, data):
    return field(number, 2, varint(len(data)) + data)


MALFORMED = {
    "truncated tag": b"\x80",
    "field number 0": b"\x02\x00",
    "wire type 6": b"\x0e",
    "wire type 7": b"\x0f",
    "length past the end": b"\x12\x7f",
    "length of 2^63": b"\x12" + b"\xff" * 9 + b"\x01",
    "varint of 11 bytes": b"\x98\x01" + b"\xff" * 11,
    "end of a group that never began": b"\x0c",
    "group without end": b"\x0b",
    "metadata entry cut": field(18, 2, b"\x05\x0a\x09k"),
    "invalid UTF-8 in a map key": text(18, text(1, b"\xff\xfe") + text(2, b"v")),
    "invalid UTF-8 in a map value": text(18, text(1, b"k") + text(2, b"\xc3\x28")),
    "a surrogate": text(4, b"\xed\xa0\x80"),
    "overlong NUL": text(4, b"\xc0\x80"),
    "beyond U+10FFFF": text(4, b"\xf4\x90\x80\x80"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(served_afterwards, name):
    """Broken protobuf is MALFORMED_REQUEST, alone and behind a whole message."""
    gateway = served_afterwards
    request = person(first_name=None, metadata=None)
    canary.record(request)
    whole = request.SerializeToString()
    for data in (MALFORMED[name], whole + MALFORMED[name]):
        gateway.create_bytes(data).failed("MALFORMED_REQUEST", sent="no")


def test_malformed_get_creation(served_afterwards):
    """GetCreation refuses broken bytes and unknown fields, too."""
    served_afterwards.create_bytes(b"\x0a\xff", method=GET).failed("MALFORMED_REQUEST")
    served_afterwards.create_bytes(text(1, b"x" * 36) + text(2, b"y"), method=GET).failed("UNKNOWN_FIELDS")


UNKNOWN_BYTES = {
    "varint": field(22, 0, b"\x01"),
    "fixed32": field(100, 5, b"\x00" * 4),
    "fixed64": field(100, 1, b"\x00" * 8),
    "bytes": text(1000, b"x"),
    "group": b"\xb3\x01\xb4\x01",
    "largest number": text((1 << 29) - 1, b""),
    "in a map entry": text(18, text(1, b"canary_key2") + text(2, b"v") + text(3, b"w")),
    "in a map entry, a varint": text(18, text(1, b"canary_key2") + text(2, b"v") + field(9, 0, b"\x01")),
    # A known number with another wire type is an unknown field to protobuf.
    "other wire type": field(19, 2, b"\x01\x01"),
}


@pytest.mark.parametrize("name", UNKNOWN_BYTES)
def test_unknown_fields(served_afterwards, sandbox, name):
    """Unknown fields of every wire type are refused, before and behind the known ones."""
    request = person()
    canary.record(request)
    for data in (request.SerializeToString() + UNKNOWN_BYTES[name], UNKNOWN_BYTES[name] + request.SerializeToString()):
        served_afterwards.create_bytes(data).failed("UNKNOWN_FIELDS", sent="no")
    assert_posts(sandbox, request.email, 0)


def test_bytes_that_mean_the_same(served_afterwards, sandbox):
    """Fields in another order, a string given twice (the last counts), a default written out: one request."""
    request = person(city=None, metadata=None)
    base = request.SerializeToString()
    one = base + text(11, b"Vexmoor") + text(18, text(1, b"k") + text(2, b"v"))
    two = text(18, text(2, b"v") + text(1, b"k")) + text(11, b"Elsewhere") + base + text(11, b"Vexmoor") + \
        field(19, 0, b"\x00") + text(8, b"")
    canary.record(request)
    first = served_afterwards.create_bytes(one).ok()
    second = served_afterwards.create_bytes(two).ok()
    assert second.replayed and second.user_intent.id == first.user_intent.id
    [post] = assert_posts(sandbox, request.email, 1)
    assert post["body"]["city"] == "Vexmoor" and post["body"]["metadata"]["k"] == "v"


def test_sizes_around_the_limit(served_afterwards, sandbox):
    """64 KiB are read, one byte more is refused, and neither is sent."""
    request = person(metadata=None)
    base = len(request.SerializeToString())
    for size, refused in ((65536, False), (65537, True), (200000, True), (5_000_000, True)):
        filler = b"x" * (size - base - 4 - (1 if size > base + 16383 + 20 else 0))
        data = request.SerializeToString() + text(12, filler)
        data += b"" if len(data) >= size else b"\x98\x01\x00"[: size - len(data)]
        reply = served_afterwards.create_bytes(data)
        if refused:
            assert reply.raw and reply.raw[0] == grpc.StatusCode.RESOURCE_EXHAUSTED, size
        else:
            assert reply.error and reply.error.reason in ("FIELD_INVALID", "MALFORMED_REQUEST"), size
    assert_posts(sandbox, request.email, 0)


@pytest.mark.parametrize("metadata", [
    [("x-jwt", "y" * 9000)], [("x-jwt", "y" * 30000)], [("x-jwt", "y" * 60000)],
    [(f"baggage-{number}", "y" * 100) for number in range(400)],
    [("x-trace-bin", bytes(range(256)) * 32)]], ids=["9 kB", "30 kB", "60 kB", "400 of 100", "8 kB of bytes"])
def test_large_metadata_hurts_nobody(served_afterwards, sandbox, metadata):
    """Tokens and baggage may be long. Beyond 8 KiB of them libgrpc's default ended all calls of the connection."""
    slow, large = person(), person()
    sandbox.fault("delay", slow.email, delay_ms=500)
    running = served_afterwards.begin(slow)
    sandbox.wait_posts(slow.email)
    served_afterwards.create(large, metadata=metadata).ok()
    running.reply().ok()
    assert_posts(sandbox, slow.email, 1)
    assert_posts(sandbox, large.email, 1)


def test_absurd_metadata_is_refused_before_anything_is_sent(served_afterwards, sandbox):
    request = person()
    reply = served_afterwards.create(request, metadata=[("x-large", "y" * 100_000)], channel=served_afterwards.new_channel())
    assert reply.raw and reply.raw[0] == grpc.StatusCode.RESOURCE_EXHAUSTED, reply
    assert_posts(sandbox, request.email, 0)


def test_unknown_methods(served_afterwards):
    """A method that does not exist is UNIMPLEMENTED."""
    for method in (f"/{SERVICE}/Nothing", "/x", "/grpc.testing.Nothing/X", f"/{SERVICE}/createuserintent"):
        reply = served_afterwards.create_bytes(b"", method=method)
        assert reply.raw and reply.raw[0] == grpc.StatusCode.UNIMPLEMENTED, method


@pytest.mark.parametrize("algorithm", [grpc.Compression.Gzip, grpc.Compression.Deflate], ids=lambda one: one.name)
def test_compressed_requests_are_refused(served_afterwards, sandbox, algorithm):
    """UNIMPLEMENTED, before anything is unpacked; the connection and its other calls go on."""
    request, slow = person(), person()
    canary.record(request)
    sandbox.fault("delay", slow.email, delay_ms=300)
    running = served_afterwards.begin(slow)
    sandbox.wait_posts(slow.email)
    call = served_afterwards.channel.unary_unary(CREATE, request_serializer=lambda r: r.SerializeToString())
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=20, compression=algorithm)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    running.reply().ok()
    assert_posts(sandbox, request.email, 0)
    bomb = served_afterwards.channel.unary_unary(CREATE)
    with pytest.raises(grpc.RpcError) as caught:
        bomb(b"\x12" + varint(30_000_000) + bytes(30_000_000), timeout=30, compression=algorithm)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_compressed_questions_about_health_are_refused(served_afterwards):
    """Health and reflection hold to the same; an answer is never compressed, whatever the caller would take."""
    for path in ("/grpc.health.v1.Health/Check", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"):
        call = Call(served_afterwards.address, path, frame(gzip.compress(b""), compressed=1),
                    headers=[("grpc-encoding", "gzip")]).wait()
        call.close()
        assert call.grpc_status == grpc.StatusCode.UNIMPLEMENTED.value[0], path
        assert b"" == call.data


UNPACKED = {"gzip": gzip.compress, "deflate": zlib.compress, "snappy": bytes, "identity": bytes}


@pytest.mark.parametrize("encoding", UNPACKED)
@pytest.mark.parametrize("flag", [0, 1])
def test_encodings_by_hand(served_afterwards, sandbox, encoding, flag):
    """gzip and deflate are refused, packed or not. What libgrpc does not know it takes for bytes that are not packed, as
    it does a mark without an encoding: nothing is unpacked, and the status tells whether an intent was created."""
    request = person()
    canary.record(request)
    body = frame(UNPACKED[encoding](request.SerializeToString()), compressed=flag)
    call = hand(served_afterwards, body, headers=[("grpc-encoding", encoding),
                                                  ("grpc-accept-encoding", "identity, deflate, gzip")])
    if encoding in ("gzip", "deflate"):
        assert call.grpc_status == grpc.StatusCode.UNIMPLEMENTED.value[0]
    elif encoding == "identity" and flag == 0:
        assert call.grpc_status == 0
    assert_posts(sandbox, request.email, 1 if call.grpc_status == 0 else 0)


def test_answers_are_not_compressed(served_afterwards):
    reply = hand(served_afterwards, frame(person().SerializeToString()), headers=[("grpc-accept-encoding", "gzip")])
    assert reply.grpc_status == 0 and reply.data[:1] == b"\x00"
    assert "gzip" not in reply.headers.get("grpc-encoding", "")
    assert "gzip" not in reply.headers.get("grpc-accept-encoding", "")  # nobody is invited to compress


# -- callers: frames by hand -----------------------------------------------------------------------------------------------

def hand(gateway, body, **more):
    call = Call(gateway.address, CREATE, body, **more).wait()
    call.close()
    return call


def test_a_call_by_hand_works(served_afterwards, sandbox):
    request = person()
    call = hand(served_afterwards, frame(request.SerializeToString()))
    assert call.grpc_status == 0
    assert_posts(sandbox, request.email, 1)


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "application/grpc-web", None, ""], ids=names.of)
def test_wrong_content_type(served_afterwards, sandbox, content_type):
    """A call under another content type creates one intent or none, as its status says."""
    request = person()
    call = hand(served_afterwards, frame(request.SerializeToString()), content_type=content_type)
    # gRPC's library decides which; a refusal must not have created anything.
    if call.grpc_status == 0:
        assert_posts(sandbox, request.email, 1)
    else:
        assert_posts(sandbox, request.email, 0)


@pytest.mark.parametrize("name, body", [
    ("no message", None), ("empty body", b""), ("cut prefix", b"\x00\x00"), ("cut message", frame(b"abc", length=100)),
    ("length of 4 GiB", frame(b"abc", length=0xffffffff)), ("reserved flag", frame(b"abc", compressed=7)),
    ("compressed without encoding", frame(b"abc", compressed=1)), ("two messages", frame(b"") + frame(b"")),
    ("garbage", b"GET / HTTP/1.1\r\n\r\n")], ids=names.of)
def test_broken_framing(served_afterwards, name, body):
    """A message in broken gRPC framing fails, and the gateway serves on."""
    call = hand(served_afterwards, body)
    assert call.grpc_status != 0


def test_two_messages_create_at_most_one(served_afterwards, sandbox):
    one, two = person(), person()
    hand(served_afterwards, frame(one.SerializeToString()) + frame(two.SerializeToString()))
    assert len(sandbox.posts(one.email)) + len(sandbox.posts(two.email)) <= 1


def test_a_message_that_never_ends_creates_nothing(served_afterwards, sandbox):
    request = person()
    data = frame(request.SerializeToString())
    calls = [Call(served_afterwards.address, CREATE, data[: len(data) // 2], end_stream=False) for _ in range(20)]
    served_afterwards.create(person()).ok()
    for call in calls[::2]:
        call.reset_stream()
    for call in calls:
        call.close()
    assert_posts(sandbox, request.email, 0)
    assert served_afterwards.state(request.request_id) is None


def test_a_message_without_the_end_of_the_stream(served_afterwards, sandbox):
    """Complete, but the caller does not half-close, and leaves: at most one POST, and its outcome is kept."""
    request = person()
    call = Call(served_afterwards.address, CREATE, frame(request.SerializeToString()), end_stream=False)
    time.sleep(0.1)
    call.abort()
    wait_for(lambda: served_afterwards.metric("userintent_calls_in_flight") == 0, "the end of the call")
    assert served_afterwards.create(request).ok().user_intent.id == sandbox.intents(request.email)[0]["id"]
    assert_posts(sandbox, request.email, 1)


# -- callers: bytes on the port --------------------------------------------------------------------------------------------

def drain(sock, timeout=5):
    """Reads until the other side closes or is silent."""
    sock.settimeout(timeout)
    data = b""
    with contextlib.suppress(OSError):
        while chunk := sock.recv(65536):
            data += chunk
    return data


GARBAGE = {
    "HTTP/1.1": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "HTTP/1.1 POST": b"POST " + CREATE.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    "zeros": bytes(4096),
    "ones": b"\xff" * 4096,
    "TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "preface and garbage": PREFACE + b"\xde\xad\xbe\xef" * 300,
    "frame of 16 MiB": PREFACE + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",
    "headers on stream 0": PREFACE + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" + b"\x00\x00\x01\x01\x04\x00\x00\x00\x00\x82",
    "data on an idle stream": PREFACE + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" + b"\x00\x00\x01\x00\x00\x00\x00\x00\x05x",
    "broken HPACK": PREFACE + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" + b"\x00\x00\x04\x01\x05\x00\x00\x00\x01\xff\xff\xff\xff",
    "continuation alone": PREFACE + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" + b"\x00\x00\x01\x09\x04\x00\x00\x00\x01\x82",
    "window of 0": PREFACE + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" + b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00",
    "settings flood": PREFACE + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" * 5000,
    "ping flood": PREFACE + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" + (b"\x00\x00\x08\x06\x00\x00\x00\x00\x00" + bytes(8)) * 5000,
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_on_the_port(served_afterwards, name):
    """Bytes that are no HTTP/2 end nothing but their own connection."""
    for _ in range(3):
        with contextlib.suppress(OSError), connect(served_afterwards.address) as sock:
            sock.sendall(GARBAGE[name])
            drain(sock, 0.2)
    served_afterwards.assert_alive()


def test_silent_and_half_open_sockets(served_afterwards):
    """Connections that say nothing keep no call from being served."""
    silent = [connect(served_afterwards.address) for _ in range(50)]
    half = [connect(served_afterwards.address) for _ in range(50)]
    for sock in half:
        with contextlib.suppress(OSError):  # the gateway may have hung up
            sock.sendall(PREFACE[:10])
            sock.shutdown(socket.SHUT_WR)
    served_afterwards.create(person()).ok()
    served_afterwards.create(person(), channel=served_afterwards.new_channel()).ok()
    for sock in silent + half:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()


def test_a_slow_preface(served_afterwards, sandbox):
    """A byte at a time is slow, not wrong; meanwhile the others are served."""
    with connect(served_afterwards.address) as sock:
        for number, byte in enumerate(PREFACE):
            sock.sendall(bytes([byte]))
            if number % 8 == 0:
                served_afterwards.create(person()).ok()
        sock.sendall(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        sock.settimeout(10)
        assert sock.recv(9)[3] == 4  # SETTINGS


def test_rapid_resets(served_afterwards, sandbox):
    """2,000 calls reset as soon as they were made, over 20 connections."""
    requests = []
    for _ in range(20):
        request = person()
        requests.append(request)
        for _ in range(5):
            call = Call(served_afterwards.address, CREATE, frame(request.SerializeToString()))
            call.reset_stream()
            call.close()
    wait_for(lambda: served_afterwards.metric("userintent_calls_in_flight") == 0, "the end of every call")
    for request in requests:
        assert len(sandbox.posts(request.email)) <= 1
        served_afterwards.create(request).ok()
        assert_posts(sandbox, request.email, 1)


# -- upstream --------------------------------------------------------------------------------------------------------------

def serves(gateway):
    gateway.create(person()).ok()


def test_dead_upstream(new_gateway):
    """Without an upstream every call is told that nothing was sent, and the health stays SERVING."""
    dead = new_gateway(None, astra_base_url=f"https://{refusing_address()}", upstream_breaker=False)
    for _ in range(10):
        dead.create(person()).failed("UPSTREAM_UNREACHABLE", sent="no")
    assert dead.health() == "SERVING"  # a load balancer would remove the only instance that can replay


def test_upstream_comes_back(new_gateway, sandbox):
    """Calls succeed again as soon as the upstream accepts connections."""
    own = new_gateway(connect_timeout="1s")
    serves(own)
    try:
        sandbox.listener("refuse")
        sandbox.drop_connections()
        own.create(person()).failed("UPSTREAM_UNREACHABLE")
    finally:
        sandbox.listener("accept")
    serves(own)


HOSTILE = {
    "huge": ("huge_body", dict(status=201, bytes=30_000_000)),
    "huge error": ("huge_body", dict(status=400, bytes=30_000_000)),
    "garbage": ("garbage", {}),
    "html": ("html", dict(status=502)),
    "html 201": ("status", dict(status=201, body="<html>created</html>", content_type="text/html")),
    "cut": ("cut_body", dict(status=201, commit=True)),
    "cut head": ("cut_head", dict(status=201)),
    "slow": ("slow_body", dict(byte_ms=400)),
    "hang": ("hang", {}),
    "deep": ("status", dict(status=201, body="[" * 60000)),
    "deep object": ("status", dict(status=201, body='{"a":' * 10000)),
    "numbers": ("status", dict(status=201, body='{"id":1e999999}')),
    "not UTF-8": ("raw-json", b'{"id":"\xff\xfe"}'),
    "BOM": ("raw-json", b'\xef\xbb\xbf{"id": 7}'),
    "two ids": ("status", dict(status=201, body='{"id":""}{"id":"x"}')),
    "control characters": ("status", dict(status=201, body='{"id":"a\\u0007b"}')),
    "escape of a lone surrogate": ("status", dict(status=201, body='{"id":"\\ud800"}')),
    "empty 200": ("status", dict(status=200, body="")),
    "no content": ("status", dict(status=204, body="")),
    "reset content": ("status", dict(status=205, body="")),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_answers(short_gateway, sandbox, sandbox_http1, new_gateway, name):
    """An upstream answer that is huge, deep or odd is at worst an unknown outcome."""
    kind, parameters = HOSTILE[name]
    request = person()
    gateway, upstream = short_gateway, sandbox
    if kind == "raw-json":
        gateway, upstream = new_gateway(sandbox_http1), sandbox_http1
        upstream.raw(request.email, b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                     % len(parameters) + parameters)
    else:
        upstream.fault(kind, request.email, **parameters)
    reason, row = ("OUTCOME_UNKNOWN", UNKNOWN)
    if parameters == HOSTILE["huge error"][1]:
        gateway.create(request).failed("UPSTREAM_REJECTED", http_status=400)
    else:
        gateway.create(request).failed(reason, sent="maybe")
        assert_row(gateway, upstream, request, row, reason)
    assert_posts(upstream, request.email, 1)
    serves(gateway)


RAW = {
    "no HTTP": b"hello\r\n\r\n",
    "HTTP/0.9": b"<html>created</html>",
    "status that is no number": b"HTTP/1.1 abc Created\r\n\r\n",
    "status 99": b"HTTP/1.1 99 Low\r\nContent-Length: 0\r\n\r\n",
    "status 1000": b"HTTP/1.1 1000 High\r\nContent-Length: 0\r\n\r\n",
    "only 100": b"HTTP/1.1 100 Continue\r\n\r\n",
    "many 100s": b"HTTP/1.1 100 Continue\r\n\r\n" * 500,
    "101": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
    "wrong length": b'HTTP/1.1 201 Created\r\nContent-Length: 500\r\n\r\n{"id":"x"}',
    "negative length": b'HTTP/1.1 201 Created\r\nContent-Length: -5\r\n\r\n{"id":"x"}',
    "broken chunks": b'HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{"id":"x"}\r\n0\r\n\r\n',
    "cut chunks": b'HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\na\r\n{"id":"x"}\r\n',
    "endless header": b"HTTP/1.1 201 Created\r\nX: " + b"y" * 1_000_000,
    "many headers": b"HTTP/1.1 201 Created\r\n" + b"X-H: y\r\n" * 60_000,
    "gzip": b"HTTP/1.1 201 Created\r\nContent-Encoding: gzip\r\nContent-Length: 10\r\n\r\n{\"id\":\"x\"}",
    "nothing": b"",
    "NUL in a header": b"HTTP/1.1 201 Created\r\nX-\x00: y\r\n",
    "one byte": b"H",
}


@pytest.mark.parametrize("name", RAW)
def test_answers_that_are_hardly_http(new_http1_gateway, sandbox_http1, name):
    """An answer that breaks HTTP is an unknown outcome."""
    gateway = new_http1_gateway
    request = person()
    sandbox_http1.raw(request.email, RAW[name])
    reply = gateway.create(request)
    if name == "gzip":  # not asked for; the bytes are a JSON value all the same
        assert reply.response or reply.error.reason == "OUTCOME_UNKNOWN"
    else:
        reply.failed("OUTCOME_UNKNOWN", sent="maybe")
        assert_row(gateway, sandbox_http1, request, UNKNOWN, "OUTCOME_UNKNOWN")
    assert_posts(sandbox_http1, request.email, 1)
    serves(gateway)


@pytest.fixture(scope="module")
def http1_gateway_process(sandbox_http1):
    from support.gateway import Gateway
    gateway = Gateway(sandbox_http1, upstream_timeout="3s", upstream_breaker=False)
    yield gateway
    gateway.close()


@pytest.fixture
def new_http1_gateway(http1_gateway_process):
    yield http1_gateway_process
    http1_gateway_process.assert_alive()


@pytest.mark.parametrize("data, status", [
    (b'HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{"i\r\n7\r\nd":"x"}\r\n0\r\n\r\n', "x"),
    (b'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 10\r\n\r\n{"id":"y"}', "y"),
    (b'HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 10\r\n\r\n{"id":"z"}', "z"),
    (b'HTTP/1.1 201 Created\r\nContent-Type: text/plain\r\nContent-Length: 14\r\n\r\n \n{"id":"t"} \r\n', "t"),
], ids=["chunked", "100 first", "103 first", "white space around"])
def test_unusual_answers_that_are_right(new_http1_gateway, sandbox_http1, data, status):
    """An answer that is unusual and valid is read."""
    request = person()
    sandbox_http1.raw(request.email, data)
    assert new_http1_gateway.create(request).ok().user_intent.id == status
    assert_posts(sandbox_http1, request.email, 1)


def test_bytes_after_the_answer(new_http1_gateway, sandbox_http1):
    """Extra bytes on a kept connection: the connection is not used again, and nobody gets them."""
    request = person()
    extra = b'HTTP/1.1 201 Created\r\nContent-Length: 12\r\n\r\n{"id":"bad"}'
    sandbox_http1.raw(request.email,
                      b'HTTP/1.1 201 Created\r\nContent-Length: 11\r\n\r\n{"id":"ok"}' + extra, keep=True)
    reply = new_http1_gateway.create(request)
    assert reply.response is None or reply.response.user_intent.id == "ok"
    for _ in range(4):
        other = person()
        assert new_http1_gateway.create(other).ok().user_intent.id == sandbox_http1.intents(other.email)[0]["id"]


def test_redirects_are_not_followed(gateway, sandbox):
    target = TcpTap("close")
    for status in (301, 302, 303, 307, 308):
        request = person()
        sandbox.fault("redirect", request.email, status=status, location=f"http://127.0.0.1:{target.port}/x")
        assert gateway.create(request).error is not None
    assert target.accepted == 0
    target.close()


def test_proxy_variables_and_netrc_are_ignored(new_gateway, sandbox, tmp_path):
    proxy = TcpTap("close")
    (tmp_path / ".netrc").write_text("default login other password other\n")
    (tmp_path / ".netrc").chmod(0o600)
    url = f"http://127.0.0.1:{proxy.port}"
    own = new_gateway(environment={"https_proxy": url, "HTTPS_PROXY": url, "ALL_PROXY": url, "all_proxy": url,
                                   "HOME": str(tmp_path)})
    request = person()
    own.create(request).ok()
    [post] = assert_posts(sandbox, request.email, 1)
    assert post["authorization_ok"]
    assert proxy.accepted == 0
    proxy.close()


@pytest.mark.parametrize("upstream_transport", ["nghttp2", "libcurl"])
def test_no_key_of_a_connection_is_written_down(new_gateway, sandbox, tmp_path, upstream_transport):
    keys = tmp_path / "keys"
    own = new_gateway(environment={"SSLKEYLOGFILE": str(keys)}, upstream_transport=upstream_transport)
    own.create(person()).ok()
    assert not keys.exists()



def test_upstream_floods_after_tls(new_gateway, sandbox, authority):
    """An upstream that sends without end instead of an answer."""
    key, certificate = authority.issue("flood", ["IP:127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    import threading
    server = socket.create_server(("127.0.0.1", 0))

    def flood():
        while True:
            try:
                raw, _ = server.accept()
            except OSError:
                return
            with contextlib.suppress(OSError, ssl.SSLError):
                with context.wrap_socket(raw, server_side=True) as tls:
                    tls.recv(65536)
                    tls.sendall(b"HTTP/1.1 201 Created\r\n\r\n")
                    while True:
                        tls.sendall(b" " * 65536)

    threading.Thread(target=flood, daemon=True).start()
    own = new_gateway(None, astra_base_url=f"https://127.0.0.1:{server.getsockname()[1]}",
                      astra_ca_file=authority.ca_file, upstream_timeout="5s")
    request = person()
    own.create(request).failed("OUTCOME_UNKNOWN", http_status=201)
    wait_for(lambda: own.metric("userintent_calls_in_flight") == 0, "the end of the call")
    own.create(again(request)).failed("OUTCOME_UNKNOWN", replayed="true")
    server.close()
    assert split(own.address)[1]
