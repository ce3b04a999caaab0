"""Attacks on gRPC's HTTP/2 by somebody who holds a certificate, and on the port by somebody who does not.

Each has a gateway of its own, to which another caller keeps a connection and makes calls all the time. Whatever the attack
does: these calls succeed, so does one on a new connection, the process lives, its memory stays below a bound, and nobody is
created twice. How long it took and what it cost is printed (pytest -rP) for docs/threat-model.md.
"""

import concurrent.futures
import contextlib
import os
import socket
import ssl
import threading
import time

import grpc
import pytest

from support import canary, http2
from support.burst import burst
from support.check import assert_posts
from support.http2 import (ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, INITIAL_WINDOW_SIZE, PING,
                           PREFACE, PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, call, frame, headers,
                           literal, message, setting)
from support.people import person
from support.process import PATIENCE, wait_for
from support.protos import CREATE, GET
from support.wire import split

# Less than what a container of 256 MiB has beside the kernel's buffers. Sanitizers need several times the memory.
BOUND_MB = float(os.environ.get("E2E_MEMORY_BOUND", "200"))

CANCEL = b"\0\0\0\x08"


class Siege:
    def __init__(self, gateway, authority, sandbox, attacker):
        self.gateway, self.authority, self.sandbox, self.attacker = gateway, authority, sandbox, attacker
        self.address = gateway.address
        key, certificate = authority.issue("neighbour", ["DNS:neighbour.example.test"])
        self._credentials = grpc.ssl_channel_credentials(authority.ca_file.read_bytes(), key.read_bytes(),
                                                         certificate.read_bytes())
        self._channel = gateway.new_channel(self._credentials)
        self._open = contextlib.ExitStack()
        self._kept, self._anew = [], []  # (request, seconds, reply) of the other caller, by connection
        self._over = threading.Event()
        self._call(self._channel, self._kept)  # the connection stands
        self._before = self._cpu()
        self._began = time.monotonic()
        self._neighbour = threading.Thread(target=self._keep_calling)
        self._neighbour.start()

    def _call(self, channel, calls):
        request, began = person(), time.monotonic()
        reply = self.gateway.create(request, channel=channel)
        calls.append((request, time.monotonic() - began, reply))
        return reply

    def _keep_calling(self):
        while not self._over.is_set():
            self._call(self._channel, self._kept)
            self._over.wait(0.1)

    def _cpu(self):
        with open(f"/proc/{self.gateway.process.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self, name="VmRSS"):
        """In MB; VmHWM: the highest so far."""
        with open(f"/proc/{self.gateway.process.pid}/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(name)) / 1000

    def another_channel(self):
        return self.gateway.new_channel(self._credentials)

    def connection(self, **more):
        return self.keep(http2.Connection(self.address, self.attacker, **more))

    def keep(self, what):
        """Closed after the others were served."""
        return self._open.enter_context(what)

    def stranger(self):
        """A TCP connection, or None where it was sent away at once."""
        try:
            return self.keep(socket.create_connection(split(self.address), PATIENCE))
        except ConnectionError:
            return None

    def lift(self):
        """The end of the attack: connections that are still open stay so until the others were served."""
        self.gateway.assert_alive()
        attack = time.monotonic() - self._began
        self._call(self._channel, self._kept)
        began = time.monotonic()
        # A connection may be refused at first; on the one that stands every call succeeds.
        wait_for(lambda: self._call(self.another_channel(), self._anew).response,
                 "a call on a new connection")
        anew = time.monotonic() - began
        self._over.set()
        self._neighbour.join()
        peak, end = self.memory("VmHWM"), self.memory()
        self._open.close()
        print(f"attack {attack:.1f} s, CPU {self._cpu() - self._before:.1f} s, RSS peak {peak:.0f} MB, at the end "
              f"{end:.0f} MB; others: {len(self._kept)} calls, slowest {max(s for _, s, _ in self._kept):.2f} s, "
              f"new connection {anew:.2f} s, refused {len(self._anew) - 1}")
        self.gateway.assert_alive()
        for request, _, reply in [*self._kept, self._anew[-1]]:
            reply.ok()
            assert_posts(self.sandbox, request.email, 1)
        assert peak < BOUND_MB, f"memory rose to {peak:.0f} MB"


def secured_flags(authority):
    key, certificate = authority.issue("gateway", ["DNS:localhost", "IP:127.0.0.1"])
    return dict(tls_cert_file=certificate, tls_key_file=key, tls_client_ca_file=authority.ca_file)


@pytest.fixture(scope="module")
def attacker(authority):
    return http2.Identity(authority)


@pytest.fixture
def besiege(new_gateway, authority, sandbox, attacker):
    """Makes the gateway, and ends the attack with the test."""
    made = []

    def make(**flags):
        made.append(Siege(new_gateway(**{**secured_flags(authority), **flags}), authority, sandbox, attacker))
        return made[-1]

    yield make
    for one in made:
        one.lift()


@pytest.fixture
def siege(besiege):
    return besiege()


def streams(count, first=1):
    return range(first, first + 2 * count, 2)


def pour(connection, pieces, at_once=200):
    """Sends until the server ends it, or all are out; how many were taken."""
    sent, batch = 0, []
    for piece in pieces:
        batch.append(piece)
        if len(batch) == at_once:
            if not connection.send(b"".join(batch)):
                return sent
            sent += len(batch)
            batch = []
    return sent + len(batch) if connection.send(b"".join(batch)) else sent


# -- what clients do -------------------------------------------------------------------------------------------------------

def test_busy_callers_meet_no_limit(besiege, sandbox):
    """More calls at once than a connection carries, all given up at once, again and again; and the largest requests."""
    siege = besiege(reflection=False)
    channel = siege.another_channel()
    for _ in range(3):
        requests = [person() for _ in range(700)]
        for request in requests[:50]:
            sandbox.fault("delay", request.email, delay_ms=500)
        running = [siege.gateway.begin(request, channel=channel) for request in requests]
        for one in running[::2]:
            one.cancel()
        for one in running[1::2]:
            one.reply().ok()
        for request in requests:
            assert len(sandbox.posts(request.email)) <= 1
    sizes = [60_000] * 300
    large = channel.unary_unary(CREATE, request_serializer=None)
    calls = [large.future(b"\x62" + varint(size) + b"x" * size, timeout=PATIENCE) for size in sizes]
    for one in calls:
        assert one.exception().code() == grpc.StatusCode.INVALID_ARGUMENT
    assert siege.gateway.metric("userintent_connections_ended_total") == 0
    assert not [entry for entry in siege.gateway.log() if entry["event"] == "connection_ended"]


def test_thousands_at_once_are_all_answered(besiege):
    """4,000 calls in one go, three times: whoever is refused hears it from the gateway, never by a bare reset."""
    siege = besiege(reflection=False)
    ended = burst(siege.address, siege.attacker)
    assert ended == {"answered": 8 * 500 * 3}, ended
    assert siege.gateway.metric("userintent_connections_ended_total") == 0


def varint(number):
    out = b""
    while number >= 128:
        out += bytes([number % 128 + 128])
        number //= 128
    return out + bytes([number])


# -- calls that come and do not end ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("path, count", [(CREATE, 100_000), ("/x.Nothing/Y", 30_000)], ids=["creates", "unknown method"])
def test_rapid_reset(siege, sandbox, path, count):
    """Calls that are reset as soon as they were made, without waiting (CVE-2023-44487)."""
    requests = [person() for _ in range(20)]
    for request in requests:
        canary.record(request)
    bodies = [message(request.SerializeToString()) for request in requests]
    block = headers(path)
    connection = siege.connection()
    sent = pour(connection, (call(stream, block, bodies[stream // 2 % len(bodies)]) + frame(RST_STREAM, 0, stream, CANCEL)
                             for stream in streams(count)))
    print(f"{sent} calls taken, {connection.goaways}")
    for request in requests:
        assert len(sandbox.posts(request.email)) <= 1


def test_streams_that_never_end(siege):
    """50,000 calls that begin and say nothing more; the server's settings are never acknowledged."""
    connection = siege.connection()
    block = headers(CREATE)
    sent = pour(connection, (frame(HEADERS, END_HEADERS, stream, block) for stream in streams(50_000)))
    print(f"{sent} streams taken, {connection.goaways}")


def test_open_bodies(siege):
    """13 connections, each with as many unfinished requests of nearly 64 KiB as the server takes."""
    body = message(b"x" * 16_000, length=65_000)
    block = headers(CREATE)
    more = frame(DATA, 0, 0, b"x" * 16_000)

    def attack(connection):
        with contextlib.suppress(OSError):
            # The window of the whole connection is what the server gives; it is read and given again.
            for stream in streams(500):
                if not connection.send(frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, 0, stream, body) +
                                       b"".join([more[:5] + stream.to_bytes(4, "big") + more[9:]] * 3)):
                    return

    connections = [siege.connection(timeout=3) for _ in range(13)]
    with concurrent.futures.ThreadPoolExecutor(13) as pool:
        list(pool.map(attack, connections))
    print(f"{sum(one.sent for one in connections) / 1e6:.0f} MB taken, {sum(one.ended for one in connections)} ended")


def test_answers_that_may_not_be_sent(siege):
    """20,000 calls whose answers have no window to be sent in."""
    connection = siege.connection(first_settings=setting(INITIAL_WINDOW_SIZE, 0))
    block, body = headers(GET), message(b"\x0a\x24" + b"0" * 36)
    sent = pour(connection, (call(stream, block, body) for stream in streams(20_000)))
    print(f"{sent} calls taken, {connection.goaways}")


def test_endless_continuation(siege):
    """200 MB of a header block that never ends."""
    connection = siege.connection()
    connection.send(frame(HEADERS, 0, 1, headers(CREATE)))
    piece = frame(CONTINUATION, 0, 1, literal(b"x1", b"y" * 100) * 150)
    pour(connection, (piece for _ in range(200_000_000 // len(piece))), at_once=10)
    print(f"{connection.sent / 1e6:.1f} MB taken, {connection.goaways}")


def test_answers_that_nobody_reads(siege):
    """The caller asks on and leaves everything that comes where it is."""
    connection = siege.connection(reads=False, timeout=3)
    block, body = headers(GET), message(b"\x0a\x24" + b"0" * 36)
    sent = pour(connection, (call(stream, block, body) for stream in streams(20_000)))
    print(f"{sent} calls taken, stalled: {connection.stalled}")


def test_resets_that_the_server_is_brought_to(siege, sandbox):
    """Whole calls, each followed by a frame that is wrong, so that the server resets them (CVE-2025-8671)."""
    request = person()
    canary.record(request)
    block, body = headers(CREATE), message(request.SerializeToString())
    for wrong in (lambda stream: frame(WINDOW_UPDATE, 0, stream, bytes(4)),
                  lambda stream: frame(DATA, END_STREAM, stream, b"more"),
                  lambda stream: frame(WINDOW_UPDATE, 0, stream, b"\x7f\xff\xff\xff")):
        connection = siege.connection()
        sent = pour(connection, (call(stream, block, body) + wrong(stream) for stream in streams(20_000)))
        print(f"{sent} calls taken, {connection.goaways}")
    assert len(sandbox.posts(request.email)) <= 1


def test_memory_watermark(besiege):
    """60 connections that each stay within every limit of their own, with 400 unfinished calls each: together they would
    take 300 MB. Those that hold most are ended until memory is below the mark, and the others are served on."""
    siege = besiege(memory_watermark=100)
    block = headers(CREATE)
    connections = []
    for _ in range(60):
        try:
            connections.append(siege.connection())
        except OSError:  # nobody is taken in meanwhile
            continue
        connections[-1].send(b"".join(frame(HEADERS, END_HEADERS, stream, block) for stream in streams(400)))
    wait_for(lambda: siege.gateway.metrics()['userintent_connections_ended_total{reason="memory"}'] >= 5,
             "the end of those who hold most")
    for one in connections:
        one.read()
    print(f"{len(connections)} taken in, {sum(one.ended for one in connections)} ended")
    assert [entry for entry in siege.gateway.log() if entry["event"] == "memory_short"]
    assert siege.memory() < 150


def test_attackers_who_come_again(besiege, sandbox):
    """Eight at once, each sent away and back again 25 times, with calls that are reset, that never end, and whose
    requests never end."""
    siege = besiege(memory_watermark=150)
    request = person()
    canary.record(request)
    block, body = headers(CREATE), message(request.SerializeToString())
    kinds = [lambda stream: call(stream, block, body) + frame(RST_STREAM, 0, stream, CANCEL),
             lambda stream: frame(HEADERS, END_HEADERS, stream, block),
             lambda stream: frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, 0, stream, b"x" * 16_000)]

    def attack(number):
        taken = 0
        for turn in range(25):
            with contextlib.suppress(OSError):  # sent away while memory is short
                with http2.Connection(siege.address, siege.attacker) as connection:
                    kind = kinds[(number + turn) % len(kinds)]
                    taken += pour(connection, (kind(stream) for stream in streams(3_000)))
        return taken

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        print(f"{sum(pool.map(attack, range(8)))} calls taken")
    assert len(sandbox.posts(request.email)) <= 1


# -- frames that ask for nothing -------------------------------------------------------------------------------------------

OPEN = frame(HEADERS, END_HEADERS, 1, headers(CREATE))
FLOODS = {
    "PING": (b"", frame(PING, 0, 0, bytes(8))),
    "PING answers": (b"", frame(PING, ACK, 0, bytes(8))),
    "SETTINGS": (b"", frame(SETTINGS)),
    "SETTINGS of a table": (b"", frame(SETTINGS, payload=setting(1, 0) + setting(1, 4096))),
    "SETTINGS answers": (b"", frame(SETTINGS, ACK)),
    "empty DATA": (OPEN, frame(DATA, 0, 1)),
    "padded DATA": (OPEN, frame(DATA, 8, 1, b"\xff" + bytes(255))),
    "DATA of a byte": (OPEN + frame(DATA, 0, 1, b"\0\0\0\xff\0"), frame(DATA, 0, 1, b"x")),
    "WINDOW_UPDATE": (b"", frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\1")),
    "WINDOW_UPDATE of a call": (OPEN, frame(WINDOW_UPDATE, 0, 1, b"\0\0\0\1")),
    "PRIORITY": (b"", frame(PRIORITY, 0, 3, b"\0\0\0\1\x10")),
    "RST_STREAM": (OPEN, frame(RST_STREAM, 0, 1, CANCEL)),
    "CONTINUATION": (frame(HEADERS, 0, 1, headers(CREATE)), frame(CONTINUATION, 0, 1)),
    "GOAWAY": (b"", frame(GOAWAY, 0, 0, bytes(8))),
    "unknown": (b"", frame(0x77, 0, 0, b"x" * 20)),
    "trailers": (OPEN, frame(HEADERS, END_HEADERS, 1, literal(b"x", b"y"))),
}


@pytest.mark.parametrize("name", FLOODS)
def test_flood(siege, name):
    """200,000 frames of one kind, by somebody who reads the answers."""
    first, piece = FLOODS[name]
    connection = siege.connection()
    connection.send(first)
    sent = pour(connection, (piece for _ in range(200_000)), at_once=500)
    print(f"{sent} frames taken, ended: {connection.ended}, {connection.goaways}, {dict(connection.received)}")


# -- header blocks ---------------------------------------------------------------------------------------------------------

def endless_string():
    """A literal that says it has 1 GiB."""
    size, length = (1 << 30) - 127, b"\x7f"
    while size >= 128:
        length += bytes([size % 128 + 128])
        size //= 128
    return b"\x00\x01a" + length + bytes([size]), b"a" * 16384


def references():
    """A large entry of the dynamic table, named by a byte as often as fits."""
    return b"\x40" + http2.string(b"x-large") + http2.string(b"y" * 3900), b"\xbe" * 16384


BOMBS = {
    "string": endless_string(),
    "varint": (b"\x00\x01a\x7f", b"\x80" * 16384),
    "small fields": (b"", literal(b"k", b"v" * 40) * 300),
    "references": references(),
    "table sizes": (b"", b"\x3f\xe1\x1f\x20" * 4000),
}


@pytest.mark.parametrize("name", BOMBS)
def test_hpack_bomb(siege, name):
    """Header blocks that are dear to unpack (CVE-2023-33953), of 24 MB, and then of as much as is taken, again and again."""
    first, piece = BOMBS[name]
    connection = siege.connection()
    connection.send(frame(HEADERS, 0, 1, headers(CREATE) + first))
    pour(connection, (frame(CONTINUATION, 0, 1, piece) for _ in range(24_000_000 // len(piece))), at_once=5)
    print(f"{connection.sent / 1e6:.1f} MB taken in one block, {connection.goaways}")
    again = siege.connection()
    for stream in streams(60):
        again.send(frame(HEADERS, 0, stream, headers(CREATE) + first) + frame(CONTINUATION, 0, stream, piece) * 10 +
                   frame(CONTINUATION, END_HEADERS, stream, piece[:len(piece) // 2]))
    print(f"{again.sent / 1e6:.1f} MB taken in 60 blocks, ended: {again.ended}, {again.goaways}")


ODD = {
    "-bin that is no base64": call(1, headers(CREATE, (b"foo-bin", b"!!not base64!!")), message(b"")),
    "-bin, long": call(1, headers(CREATE, (b"foo-bin", b"A" * 30_000 + b"!")), message(b"")),
    "no te": call(1, headers(CREATE, te=None), message(b"")),
    "odd te": call(1, headers(CREATE, (b"big", b"a" * 9000), te=b"x"), message(b"")),
    "odd scheme": call(1, headers(CREATE, (b"big", b"a" * 9000), scheme=b"x"), message(b"")),
    "no authority": call(1, headers(CREATE, authority=None), message(b"")),
    "odd authority": call(1, headers(CREATE, authority=b"\x00\xff:::@/"), message(b"")),
    "two authorities": call(1, headers(CREATE, (b":authority", b"other")), message(b"")),
    "authority and host": call(1, headers(CREATE, (b"host", b"other")), message(b"")),
    "no method": call(1, headers(CREATE, method=None), message(b"")),
    "GET": call(1, headers(CREATE, method=b"GET"), message(b"")),
    "CONNECT": call(1, headers(CREATE, method=b"CONNECT"), message(b"")),
    "empty path": call(1, headers(""), message(b"")),
    "path of 60 kB": call(1, headers("/" + "x" * 15_000), message(b"")),
    "grpclb statistics": call(1, headers(CREATE, (b"grpclb_client_stats", b"x" * 9000)), message(b"")),
    "upper case": call(1, headers(CREATE, (b"UPPER", b"x")), message(b"")),
    "unknown pseudo-header": call(1, headers(CREATE, (b":unknown", b"x")), message(b"")),
    "header with NUL and line end": call(1, headers(CREATE, (b"x", b"a\0b\r\nc: d")), message(b"")),
    "connection: upgrade": call(1, headers(CREATE, (b"connection", b"upgrade"), (b"upgrade", b"h2c")), message(b"")),
    "timeouts": b"".join(call(stream, headers(CREATE, (b"grpc-timeout", value)), message(b"")) for stream, value in
                         zip(streams(6), (b"", b"-1S", b"99999999999H", b"0n", b"1x", b"S"), strict=True)),
    "frame of 16 MiB": frame(DATA, 0, 1, length=(1 << 24) - 1),
    "HEADERS of 16 MiB": frame(HEADERS, 0, 1, length=(1 << 24) - 1),
    "HEADERS on stream 0": frame(HEADERS, END_HEADERS, 0, headers(CREATE)),
    "DATA on stream 0": frame(DATA, 0, 0, b"x"),
    "RST_STREAM on stream 0": frame(RST_STREAM, 0, 0, CANCEL),
    "an even stream": call(2, headers(CREATE), message(b"")),
    "numbers that go down": call(9, headers(CREATE), message(b"")) + call(7, headers(CREATE), message(b"")),
    "the largest number": call((1 << 31) - 1, headers(CREATE), message(b"")) + call(1, headers(CREATE), message(b"")),
    "a number used again": call(1, headers(CREATE), message(b"")) * 3,
    "DATA on an idle stream": frame(DATA, 0, 77, b"x"),
    "DATA within a header block": frame(HEADERS, 0, 1, headers(CREATE)) + frame(DATA, 0, 1, b"x"),
    "CONTINUATION alone": frame(CONTINUATION, END_HEADERS, 1, headers(CREATE)),
    "CONTINUATION of another": frame(HEADERS, 0, 1, headers(CREATE)) + frame(CONTINUATION, END_HEADERS, 3, b""),
    "PUSH_PROMISE": frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2" + headers(CREATE)),
    "padding longer than its frame": frame(DATA, 8, 1, b"\xff") + frame(HEADERS, 8 | END_HEADERS, 1, b"\xff"),
    "HEADERS with priority, cut": frame(HEADERS, 0x20 | END_HEADERS, 1, b"\0\0"),
    "a stream that depends on itself": frame(PRIORITY, 0, 1, b"\0\0\0\1\x10"),
    "SETTINGS of odd size": frame(SETTINGS, payload=b"xxxxx"),
    "SETTINGS on a stream": frame(SETTINGS, 0, 1),
    "SETTINGS answer with content": frame(SETTINGS, ACK, 0, setting(3, 1)),
    "SETTINGS out of range": frame(SETTINGS, payload=setting(2, 7) + setting(4, 1 << 31) + setting(5, 1)),
    "PING of odd size": frame(PING, 0, 0, b"x"),
    "PING on a stream": frame(PING, 0, 1, bytes(8)),
    "WINDOW_UPDATE of 0": frame(WINDOW_UPDATE, 0, 0, bytes(4)),
    "a window too large": frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff") * 3,
    "GOAWAY and then calls": frame(GOAWAY, 0, 0, bytes(8)) + call(1, headers(CREATE), message(b"")),
    "GOAWAY, odd": frame(GOAWAY, 0, 0, b"x") + frame(GOAWAY, 0, 1, bytes(8)),
    "HPACK index 0": frame(HEADERS, END_HEADERS, 1, b"\x80"),
    "HPACK index out of range": frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\x0f"),
    "HPACK table too large": frame(HEADERS, END_HEADERS, 1, b"\x3f\xff\xff\xff\x0f"),
    "Huffman of ones": frame(HEADERS, END_HEADERS, 1, b"\x00\x81\xff\x84\xff\xff\xff\xff"),
    "garbage": b"\xde\xad\xbe\xef" * 4000,
}


def test_odd_frames(siege):
    """Each on a connection of its own that is left open: the server ends it, answers, or ignores it."""
    for name, attack in ODD.items():
        connection = siege.connection()
        connection.send(attack)
        # A call behind it, which may be served or not.
        connection.send(call(1001, headers(GET), message(b"\x0a\x24" + b"0" * 36)))
        connection.wait(lambda c=connection: c.answered[1001] or c.ended, 0.2)
        siege.gateway.assert_alive()
        fate = "ended" if connection.ended else "next call served" if connection.answered[1001] else "silent"
        print(f"{name}: {fate} {connection.goaways}")


# -- before HTTP/2 ---------------------------------------------------------------------------------------------------------

def test_slow_callers_are_let_go(besiege):
    """A byte now and then of a preface, of a header block and of a body: none holds its connection for long."""
    siege = besiege(reflection=False)
    prefaces = [siege.connection(preface=False) for _ in range(20)]
    blocks = [siege.connection() for _ in range(20)]
    bodies = [siege.connection() for _ in range(20)]
    silent = [siege.connection(preface=False) for _ in range(20)]
    for one in blocks:
        one.send(frame(HEADERS, 0, 1, headers(CREATE)[:20]))
    for one in bodies:
        one.send(OPEN + frame(DATA, 0, 1, message(b"", length=60_000)))
    everybody = [*prefaces, *blocks, *bodies, *silent]
    step = iter(range(10_000))

    def drip():
        at = next(step)
        for one in prefaces:
            one.send(PREFACE[at:at + 1])
        for one in blocks:
            one.send(frame(CONTINUATION, 0, 1, b"\x82"))
        for one in bodies:
            one.send(frame(DATA, 0, 1, b"x"))
        for one in silent:
            one.read()
        time.sleep(0.5)
        return all(one.ended for one in everybody)

    wait_for(drip, "the end of every slow connection", PATIENCE + 60)


def test_other_protocols_on_the_port(siege):
    """HTTP/1.1 and upgrades to h2c, inside of TLS and without it."""
    for text in (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
                 b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
                 b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
                 b"POST " + CREATE.encode() + b" HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", PREFACE):
        inside = siege.connection(preface=False)
        inside.send(text)
        if text != PREFACE:
            assert inside.wait_end() and not inside.received[HEADERS]
        outside = siege.stranger()
        outside.sendall(text)
        outside.settimeout(PATIENCE)
        with contextlib.suppress(ConnectionError):
            while outside.recv(65536):  # an alert at most, and the end
                pass


def client_hello():
    """What a client says first, as it is on the wire."""
    context = ssl.create_default_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        session.do_handshake()
    return outgoing.read()


def test_handshakes_that_nobody_ends(siege):
    """4,500 strangers begin a handshake and show no certificate."""
    hello, held, away = client_hello(), [], 0
    for _ in range(4_500):
        one = siege.stranger()
        try:
            one.sendall(hello)
            held.append(one)
        except (AttributeError, ConnectionError):
            away += 1
    print(f"{away} sent away at once")
    wait_for(lambda: siege.gateway.metric("userintent_connections") < 100, "the end of their handshakes")


def test_more_strangers_than_descriptors(besiege):
    """10,000 connects where there are 1,024 descriptors."""
    siege = besiege(wrapper=["prlimit", "--nofile=1024:1024"])
    for _ in range(10_000):
        siege.stranger()
    assert len(os.listdir(f"/proc/{siege.gateway.process.pid}/fd")) < 1024
    assert siege.gateway.http("/livez")[0] == 200
