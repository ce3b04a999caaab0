"""A client whose gateway was away connects again by itself, though its program makes no call meanwhile."""

import contextlib
import gc
import os
import socket
import subprocess
import sys
import threading
import time
import weakref

import grpc
import pytest
from conftest import busy

import userintent
from userintent import _reconnect

SETTINGS, ACKNOWLEDGED = b"\0\0\0\4\0\0\0\0\0", b"\0\0\0\4\1\0\0\0\0"  # frames of HTTP/2
PATIENCE = 60


class Away:
    """A port where connections are closed at once; after come_back() HTTP/2 begins there, and `met` is set once a client
    has answered to that."""

    def __init__(self):
        self.back, self.met = threading.Event(), threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.back.is_set():
                    threading.Thread(target=self._greet, args=(client,), daemon=True).start()
                else:
                    client.close()

    def _greet(self, client):
        heard = b""
        with client, contextlib.suppress(OSError):
            client.sendall(SETTINGS)
            while data := client.recv(4096):
                heard += data
                if ACKNOWLEDGED in heard:
                    self.met.set()

    def close(self):
        self._listener.close()


# In a process of its own, since a server's threads would look after the client's connections, too. Once something
# failed, it makes no other call. Without gRPC's timer, which would help now and then.
QUIET = """
import contextlib, sys, threading
import grpc, userintent
from userintent import _watch

client = userintent.Client(sys.argv[1], plaintext=True)
if sys.argv[2] == "call":
    try:
        client.create(userintent.CreateUserIntentRequest(), max_tries=1)
    except userintent.UserIntentError as error:
        assert error.code is grpc.StatusCode.UNAVAILABLE, error
else:
    lost = threading.Event()
    def ended(self, decoded):
        lost.set()
        return 3600.0
    _watch.WatchCall.ended = ended
    def follow():
        with contextlib.suppress(userintent.UserIntentError):
            next(client.watch())
    threading.Thread(target=follow, daemon=True).start()
    assert lost.wait(60)
print("failed", flush=True)
sys.stdin.readline()
client.close()
"""


@pytest.mark.parametrize("what", ["call", "watch"])
def test_it_connects_without_a_call(what):
    away = Away()
    environment = {**os.environ, "GRPC_CLIENT_CHANNEL_BACKUP_POLL_INTERVAL_MS": "0"}
    program = subprocess.Popen([sys.executable, "-c", QUIET, away.address, what], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True)
    try:
        assert program.stdout.readline() == "failed\n"
        away.back.set()
        assert away.met.wait(PATIENCE)
        assert program.communicate("\n", timeout=PATIENCE) == ("", "") and program.returncode == 0
    finally:
        program.kill()
        program.communicate()
        away.close()


def test_which_versions_need_it():
    assert [_reconnect._polls(version) for version in ("1.60.0", "1.78.1", "1.80.0", "1.85.3", "1.100.0rc1", "2.0.0")] == (
        [False, False, True, True, True, True])


@pytest.mark.parametrize("needed", [True, False])
def test_it_is_looked_after_until_the_client_is_closed(monkeypatch, needed):
    monkeypatch.setattr(_reconnect.Reconnection, "needed", needed)
    away = Away()
    client = userintent.Client(away.address, plaintext=True)
    said, channel = [], client._lease.channel

    def note(name):
        real = getattr(channel, name)

        def noted(*arguments):
            said.append(name)
            return real(*arguments)
        monkeypatch.setattr(channel, name, noted)
    for name in ("subscribe", "unsubscribe", "close"):
        note(name)
    for _ in range(3):
        with pytest.raises(userintent.UserIntentError):
            client.create(userintent.CreateUserIntentRequest(), max_tries=1)
    assert said == (["subscribe"] if needed else [])
    client.close()
    assert said == (["subscribe", "unsubscribe", "close"] if needed else ["close"])
    away.close()


def test_a_client_that_is_forgotten_is_looked_after_no_more(monkeypatch):
    monkeypatch.setattr(_reconnect.Reconnection, "needed", True)
    away = Away()
    client = userintent.Client(away.address, plaintext=True)
    with pytest.raises(userintent.UserIntentError):
        client.create(userintent.CreateUserIntentRequest(), max_tries=1)
    channel = weakref.ref(client._lease.channel)
    del client
    end = time.monotonic() + PATIENCE
    while channel() is not None and time.monotonic() < end:
        gc.collect()
        time.sleep(0.05)
    assert channel() is None
    away.close()


def test_an_answer_of_a_server_is_no_lost_connection(gateway):
    gateway.answers = [busy()]
    with grpc.insecure_channel(gateway.address) as channel:
        call = channel.unary_unary("/userintent.v1.UserIntentService/CreateUserIntent")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", timeout=PATIENCE)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE and not _reconnect.is_lost(caught.value)
