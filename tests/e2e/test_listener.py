"""The port itself: how many may come in, what happens beyond, and who notices when it does not answer."""

import concurrent.futures
import contextlib
import os
import signal
import socket
import struct
import subprocess
import threading
import time

import grpc
import pytest

from support.certs import Authority
from support.check import assert_posts
from support.gateway import SERVER, clean_environment
from support.people import person
from support.process import PATIENCE, refusing_address, wait_for
from support.thread_stop import thread_stopped
from support.wire import connect, split


def secured_flags(authority):
    key, certificate = authority.issue("gateway", ["DNS:localhost", "IP:127.0.0.1"])
    return dict(tls_cert_file=certificate, tls_key_file=key, tls_client_ca_file=authority.ca_file)


def caller(gateway, authority, name="caller"):
    key, certificate = authority.issue(name, [f"DNS:{name}.example.test"])
    return gateway.new_channel(grpc.ssl_channel_credentials(
        authority.ca_file.read_bytes(), key.read_bytes(), certificate.read_bytes()))


def knock(address, **more):
    """A connection, or None where the server was quicker to send it away than the library to notice that it was there."""
    try:
        return socket.create_connection(split(address), PATIENCE, **more)
    except ConnectionError:
        return None


def sent_away(connection, timeout=PATIENCE):
    """Whether the server closed it without a word."""
    if connection is None:
        return True
    connection.settimeout(timeout)
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


def is_open(connection):
    """A plaintext server greets with its settings."""
    if connection is None:
        return False
    connection.settimeout(PATIENCE)
    try:
        return connection.recv(9)[3:4] == b"\x04"
    except ConnectionError:
        return False


# -- more connections than there is room for -------------------------------------------------------------------------------

@pytest.mark.parametrize("tls", [False, True], ids=["plaintext", "TLS"])
def test_a_crowd_of_strangers_leaves_the_port_as_it_was(new_gateway, sandbox, authority, tls):
    """More connections come and go than there are descriptors: libgrpc's own listener was deaf for ever after that."""
    flags = secured_flags(authority) if tls else {}
    own = new_gateway(wrapper=["prlimit", "--nofile=256:256"], **flags)
    strangers = []
    for _ in range(600):
        with contextlib.suppress(OSError):
            strangers.append(connect(own.address, timeout=2))
    # Beyond the places they are sent away at once, so the descriptors for the ledger and Astra are never touched. Under
    # TLS those who do not end their handshake make room for the next ones.
    wait_for(lambda: own.metric("userintent_connections_refused_total") +
             own.metric("userintent_connections_ended_total") >= 300, "strangers that are sent away")
    assert own.metrics()['userintent_connections_refused_total{reason="descriptors"}'] == 0
    assert len(os.listdir(f"/proc/{own.process.pid}/fd")) < 256
    for stranger in strangers:
        stranger.close()
    request = person()
    channel = caller(own, authority) if tls else own.new_channel()
    wait_for(lambda: own.create(request, channel=channel, timeout=5).response, "an answer to a caller")
    assert_posts(sandbox, request.email, 1)
    assert own.http("/livez")[0] == own.http("/readyz")[0] == 200
    wait_for(lambda: own.metric("userintent_connections") <= 2, "all of them gone")


def test_a_caller_with_a_connection_does_not_notice_the_crowd(new_gateway, sandbox):
    own = new_gateway(max_connections=20)
    own.create(person()).ok()
    crowd = [knock(own.address) for _ in range(60)]
    assert sum(map(sent_away, crowd[40:])) == 20
    request = person()
    own.create(request).ok()
    assert_posts(sandbox, request.email, 1)
    for one in filter(None, crowd):
        one.close()


def test_one_address_gets_half_of_the_places_unless_told_otherwise(new_gateway):
    own = new_gateway(listen="0.0.0.0:0", allow_plaintext=True, max_connections=8)
    _, port = split(own.address)

    def come(source):
        return knock(f"127.0.0.1:{port}", source_address=(source, 0))

    first = [come("127.0.0.2") for _ in range(4)]
    assert all(map(is_open, first))
    assert sent_away(come("127.0.0.2"))
    second = [come("127.0.0.3") for _ in range(4)]
    assert all(map(is_open, second))
    assert sent_away(come("127.0.0.4"))  # nobody was too many, but the house is full
    refused = 'userintent_connections_refused_total{reason="%s"}'
    wait_for(lambda: own.metrics()[refused % "max_connections_per_address"] == 1 and
             own.metrics()[refused % "max_connections"] == 1, "both counted under their reason")
    wait_for(lambda: own.metric("userintent_connections") == 8, "every place taken")
    # A place is free again as soon as its connection ends, though nobody tells.
    first.pop().close()
    late = wait_for(lambda: (lambda c: c if is_open(c) else None)(come("127.0.0.2")), "the place that became free")
    lines = [entry for entry in own.log() if entry["event"] == "connection_refused"]
    assert lines and lines[0]["peer"].startswith("127.0.0.2:") and lines[0]["flag"] == "max_connections_per_address"
    for connection in [*first, *second, late]:
        connection.close()


def test_without_a_free_descriptor_connections_are_sent_away_and_the_port_recovers(new_gateway, sandbox):
    """What the places cannot prevent, because something else took the descriptors: a limit lowered from outside."""
    own = new_gateway()
    own.create(person()).ok()
    pid = str(own.process.pid)
    used = len(os.listdir(f"/proc/{pid}/fd"))
    subprocess.run(["prlimit", "--pid", pid, f"--nofile={used}:"], check=True)
    refused = 'userintent_connections_refused_total{reason="descriptors"}'
    held = []

    def crowded():
        held.append(knock(own.address))
        return len(held) > 5 and sent_away(held[-1], 1)

    wait_for(crowded, "a connection without a descriptor")
    subprocess.run(["prlimit", "--pid", pid, "--nofile=4096:"], check=True)
    for one in filter(None, held):
        one.close()
    wait_for(lambda: own.metrics()[refused] >= 1, "it counted")
    request = person()
    own.create(request, channel=own.new_channel()).ok()
    assert_posts(sandbox, request.email, 1)


def test_connections_that_come_and_go_leave_nothing(new_gateway):
    own = new_gateway(max_connections=100)
    before = len(os.listdir(f"/proc/{own.process.pid}/fd"))

    def come_and_go(abort):
        for _ in range(200):
            with contextlib.suppress(OSError):
                one = connect(own.address)
                if abort:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                one.close()

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(come_and_go, [True, False] * 4))
    wait_for(lambda: len(os.listdir(f"/proc/{own.process.pid}/fd")) <= before + 3, "their descriptors are free")
    wait_for(lambda: own.metric("userintent_connections") <= 1, "none counts any more")
    own.create(person(), channel=own.new_channel()).ok()


# -- addresses -------------------------------------------------------------------------------------------------------------

def test_every_address_is_both_families(new_gateway):
    """0.0.0.0 answers over IPv4 and IPv6."""
    own = new_gateway(listen="0.0.0.0:0", allow_plaintext=True)
    _, port = split(own.address)
    for address in (f"127.0.0.1:{port}", f"[::1]:{port}"):
        own.address = address
        own.create(person(), channel=own.new_channel()).ok()


@pytest.mark.parametrize("listen", ["[::1]:0", "localhost:0", "[::]:0"])
def test_other_ways_to_say_where(new_gateway, listen):
    """Names and IPv6 addresses in --listen open the port that they name."""
    own = new_gateway(listen=listen, allow_plaintext=True)
    assert own.health(channel=own.new_channel()) == "SERVING"
    wait_for(lambda: own.http("/livez")[0] == 200, "a port that answers")


@pytest.mark.parametrize("listen", ["127.0.0.1", "[::1]", "0.0.0.0"])
def test_a_port_in_use_is_said_in_one_line(new_gateway, listen):
    own = new_gateway(listen=f"{listen}:0", allow_plaintext=True)
    _, port = split(own.address)
    second = new_gateway(start=False, listen=f"{listen}:{port}", allow_plaintext=True)
    ended = subprocess.run([str(SERVER), *second.arguments()], env=clean_environment(), capture_output=True, text=True,
                           timeout=PATIENCE)
    assert ended.returncode == 1
    assert ended.stderr == (f"userintent-server: --listen: cannot listen on {listen}:{port}: is the port in use?\n")
    own.create(person(), channel=own.new_channel() if listen != "0.0.0.0" else None).ok()


# -- a port that does not answer -------------------------------------------------------------------------------------------

def test_livez_tells_of_a_deaf_port_and_of_its_recovery(new_gateway, sandbox):
    """Deaf because no descriptor is left at all. /livez needs one too, so it is asked right after there are some again."""
    own = new_gateway()
    pid = str(own.process.pid)

    def tells():
        subprocess.run(["prlimit", "--pid", pid, "--nofile=3:"], check=True)
        began = time.monotonic()
        seen = len(own.log())
        wait_for(lambda: any(entry["event"] == "port_deaf" for entry in own.log()[seen:]), "a deaf port")
        noticed = time.monotonic() - began
        subprocess.run(["prlimit", "--pid", pid, "--nofile=4096:"], check=True)
        status = own.http("/livez")[0], own.http("/readyz")[0]
        wait_for(lambda: own.http("/livez")[0] == own.http("/readyz")[0] == 200, "a port that answers again")
        return noticed < 10 and status == (503, 503)

    assert tells() or tells()  # the next look may come between the two
    assert [entry for entry in own.log() if entry["event"] == "port_answers_again"]
    request = person()
    own.create(request, channel=own.new_channel()).ok()
    assert_posts(sandbox, request.email, 1)


@pytest.mark.parametrize("tls", [False, True], ids=["plaintext", "TLS"])
def test_livez_tells_of_calls_that_nobody_answers(new_gateway, authority, tls):
    """The port still takes connections in; what is stopped is the one thread that answers calls."""
    own = new_gateway(shards=1, **(secured_flags(authority) if tls else {}))
    with thread_stopped(own.process.pid, "shard"):
        wait_for(lambda: own.http("/livez")[0] == 503, "a gateway that does not answer calls", timeout=60)
        assert own.http("/readyz")[0] == 503
    wait_for(lambda: own.http("/livez")[0] == own.http("/readyz")[0] == 200, "calls that are answered", timeout=60)


@pytest.mark.parametrize("tls", [False, True], ids=["plaintext", "TLS"])
def test_a_busy_port_is_not_a_deaf_one(new_gateway, sandbox, authority, tls):
    """Every place taken, and a storm of new connections: the probe has a place of its own."""
    flags = secured_flags(authority) if tls else {}
    own = new_gateway(max_connections=10, **flags)
    stop = threading.Event()

    def storm():
        while not stop.is_set():
            with contextlib.suppress(OSError):
                connect(own.address, timeout=1).close()

    held = [connect(own.address) for _ in range(10)]
    storms = [threading.Thread(target=storm) for _ in range(4)]
    for one in storms:
        one.start()
    end = time.monotonic() + 8
    try:
        while time.monotonic() < end:
            assert own.http("/livez")[0] == own.http("/readyz")[0] == 200
            time.sleep(0.2)
    finally:
        stop.set()
        for one in storms:
            one.join()
    assert not [entry for entry in own.log() if entry["event"] == "port_deaf"]
    for one in held:
        one.close()


def test_a_paused_process_is_not_a_deaf_port(new_gateway):
    """A process that was stopped for a while does not take its own port for deaf."""
    own = new_gateway()
    for _ in range(3):
        own.signal(signal.SIGSTOP)
        time.sleep(1.5)
        own.signal(signal.SIGCONT)
        assert own.http("/livez")[0] == 200
    assert not [entry for entry in own.log() if entry["event"] == "port_deaf"]


# -- the health check of the program ---------------------------------------------------------------------------------------

def healthcheck(gateway, **more):
    """With the server's own flags, as a container's health check has them."""
    flags = {**gateway.flags, "listen": gateway.address, **more}
    words = [f"--{name}={str(value).lower() if isinstance(value, bool) else value}"
             for name, value in flags.items() if value is not None]
    return subprocess.run([str(SERVER), "--healthcheck", *words], env=clean_environment(), capture_output=True,
                          text=True, timeout=PATIENCE + 20)


@pytest.mark.parametrize("usage", ["serverAuth,clientAuth", "serverAuth"])
@pytest.mark.parametrize("callers", ["same CA", "a CA of their own"])
@pytest.mark.parametrize("ledger", ["memory:", "sqlite:"])
def test_healthcheck_with_the_servers_own_flags_under_tls(new_gateway, authority, tmp_path, usage, callers, ledger):
    key, certificate = authority.issue("server", ["DNS:gateway.example.test"], usage=usage)
    other = Authority("callers' CA")
    ca = authority.ca_file if callers == "same CA" else other.ca_file
    own = new_gateway(tls_cert_file=certificate, tls_key_file=key, tls_client_ca_file=ca,
                      ledger=ledger if ledger == "memory:" else f"sqlite:{tmp_path}/ledger.db")
    ended = healthcheck(own)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "serving\n", "")
    assert not [entry for entry in own.log() if entry["event"] == "tls_handshake_refused"]
    own.stop()
    gone = healthcheck(own)
    assert gone.returncode == 1 and len(gone.stderr.splitlines()) == 1
    other.close()


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "localhost:0"])
def test_healthcheck_of_a_server_on_every_address(new_gateway, authority, listen):
    own = new_gateway(listen=listen, **secured_flags(authority))
    _, port = split(own.address)
    assert healthcheck(own).returncode == 0
    assert healthcheck(own, listen=f"127.0.0.1:{port}").returncode == 0


def test_healthcheck_tells_of_a_drain(new_gateway, sandbox, authority):
    own = new_gateway(**secured_flags(authority))
    slow = person()
    sandbox.fault("delay", slow.email, delay_ms=3000)
    running = own.begin(slow, channel=caller(own, authority))
    sandbox.wait_posts(slow.email)
    own.signal(signal.SIGTERM)
    ended = wait_for(lambda: (lambda e: e if e.returncode else None)(healthcheck(own)), "a server that drains")
    assert ended.returncode == 1 and ended.stderr == "userintent-server: the server is not serving: it drains\n"
    running.reply().ok()


def test_healthcheck_tells_of_a_ledger_that_cannot_be_written(new_gateway, tmp_path):
    own = new_gateway(ledger=f"sqlite:{tmp_path}/ledger.db")
    own.create(person()).ok()
    subprocess.run(["prlimit", "--pid", str(own.process.pid), "--fsize=1024:1024"], check=True)
    own.create(person())
    wait_for(lambda: own.http("/readyz")[0] == 503, "a ledger that fails")
    ended = healthcheck(own)
    assert ended.returncode == 1
    assert ended.stderr == "userintent-server: the server is not serving: the ledger cannot be written\n"


def test_nobody_can_hold_the_door_of_the_health_check(new_gateway, authority):
    own = new_gateway(**secured_flags(authority))
    name = "\0userintent-health/" + own.address
    held = []
    for _ in range(300):
        one = socket.socket(socket.AF_UNIX)
        one.connect(name)
        held.append(one)
    assert healthcheck(own).returncode == 0
    for one in held:
        assert one.recv(100) == b"serving" and one.recv(100) == b""  # and nothing else is told
        one.close()


def test_two_servers_on_one_machine_have_a_door_each(new_gateway):
    one, two = new_gateway(), new_gateway()
    assert healthcheck(one).returncode == healthcheck(two).returncode == 0
    two.stop()
    assert healthcheck(one).returncode == 0
    assert healthcheck(two).returncode == 1
    assert healthcheck(two, listen=refusing_address()).returncode == 1
