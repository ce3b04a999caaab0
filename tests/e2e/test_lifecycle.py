"""Start, health, drain, secrets that change, metrics, logs."""

import json
import os
import signal
import socket
import stat
import subprocess
import threading
import time

import grpc
import pytest

from support.check import NONE, assert_posts, assert_row
from support.gateway import SERVER, clean_environment, write_secret
from support.people import again, person
from support.process import PATIENCE, refusing_address, wait_for
from support.protos import SERVICE


# -- health ----------------------------------------------------------------------------------------------------------------

def test_health(gateway):
    """The health service knows the gateway's service and itself, and no other."""
    assert gateway.health("") == "SERVING"
    assert gateway.health(SERVICE) == "SERVING"
    with pytest.raises(grpc.RpcError) as caught:
        gateway.health("no.such.Service")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_health_can_be_watched(new_gateway, sandbox):
    """Watchers hear the state at once and each change of it."""
    own = new_gateway()
    watches = [own.watch_health(name) for name in ("", SERVICE)]
    unknown = own.watch_health("no.such.Service")
    assert [next(watch) for watch in watches] == ["SERVING", "SERVING"]
    assert next(unknown) == "SERVICE_UNKNOWN"
    # Those who leave are forgotten, at whatever moment.
    leaving = [own.watch_health() for _ in range(50)]
    assert next(leaving[0]) == "SERVING"
    for watch in leaving:
        watch.call.cancel()
    slow = person()
    sandbox.fault("delay", slow.email, delay_ms=1500)
    running = own.begin(slow)
    sandbox.wait_posts(slow.email)
    own.signal(signal.SIGTERM)
    assert [next(watch) for watch in watches] == ["NOT_SERVING", "NOT_SERVING"]
    running.reply().ok()
    # A watch does not keep the process from its end.
    for watch in [*watches, unknown]:
        with pytest.raises(grpc.RpcError):
            next(watch)
    assert own.process.wait(PATIENCE + 20) == 0  # by itself: one more SIGTERM at this moment would end it at once
    own.stopped = True


def test_many_watch_at_once(gateway):
    """200 watchers hear the state, and Check goes on beside them."""
    watches = [gateway.watch_health() for _ in range(200)]
    assert {next(watch) for watch in watches} == {"SERVING"}
    assert {gateway.health() for _ in range(50)} == {"SERVING"}
    for watch in watches:
        watch.call.cancel()


def test_a_dead_upstream_does_not_flip_the_health(new_gateway):
    dead = new_gateway(None, astra_base_url=f"https://{refusing_address()}")
    for _ in range(6):
        dead.create(person()).failed("UPSTREAM_UNREACHABLE")
    assert dead.health("") == dead.health(SERVICE) == "SERVING"
    assert dead.http("/readyz")[0] == 200


def probe(gateway, *flags):
    return subprocess.run([str(SERVER), "--healthcheck", f"--listen={gateway.address}", *flags], capture_output=True,
                          text=True, timeout=PATIENCE + 20, env=clean_environment())


def test_healthcheck_of_the_program_itself(gateway):
    """--healthcheck exits with 0 beside a server that serves, else with 1 and one line."""
    assert probe(gateway).returncode == 0
    nobody = subprocess.run([str(SERVER), "--healthcheck", f"--listen={refusing_address()}"], capture_output=True,
                            text=True, timeout=PATIENCE + 20, env=clean_environment())
    assert nobody.returncode == 1
    assert len(nobody.stderr.strip().splitlines()) == 1


def test_healthcheck_with_tls(new_gateway, authority):
    """--healthcheck works with the server's own TLS files."""
    key, certificate = authority.issue("probe", ["DNS:localhost", "IP:127.0.0.1"])
    files = dict(tls_cert_file=certificate, tls_key_file=key, tls_client_ca_file=authority.ca_file)
    secured = new_gateway(**files)
    ended = probe(secured, *[f"--{name}={value}" for name, value in files.items()])
    assert ended.returncode == 0, ended.stderr


# -- HTTP ------------------------------------------------------------------------------------------------------------------

def test_livez_readyz_metrics(gateway):
    """The HTTP port answers for liveness, readiness and metrics, and nothing else."""
    assert gateway.http("/livez")[0] == 200
    assert gateway.http("/readyz")[0] == 200
    assert gateway.http("/nothing")[0] == 404
    status, text = gateway.http("/metrics")
    assert status == 200 and "# TYPE userintent_calls_in_flight gauge" in text


def test_metrics_count_calls(new_gateway, sandbox):
    """The metrics count each call once and each POST once."""
    own = new_gateway()
    request = person()
    before = own.metric("userintent_calls_total")
    own.create(request).ok()
    own.create(request).ok()
    own.create(again(request, state="XX")).failed("FIELD_INVALID")
    wait_for(lambda: own.metric("userintent_calls_total") == before + 3, "three counted calls")
    assert own.metric("userintent_upstream_posts_total") == 1
    assert own.metric("userintent_calls_in_flight") == 0
    invalid = sum(value for key, value in own.metrics().items()
                  if key.startswith("userintent_calls_total") and 'reason="FIELD_INVALID"' in key)
    assert invalid == 1


def test_metrics_in_flight(new_gateway, sandbox):
    """The gauges show a call and a POST while they run."""
    own = new_gateway()
    request = person()
    sandbox.fault("delay", request.email, delay_ms=1000)
    running = own.begin(request)
    sandbox.wait_posts(request.email)
    assert own.metric("userintent_calls_in_flight") == 1
    assert own.metric("userintent_upstream_posts_in_flight") == 1
    running.reply().ok()
    wait_for(lambda: own.metric("userintent_calls_in_flight") == 0, "the end of the call")


def test_metrics_can_be_switched_off(new_gateway):
    """An empty --metrics_listen opens no HTTP port."""
    own = new_gateway(metrics_listen="")
    own.create(person()).ok()
    assert not [entry for entry in own.log() if entry.get("event") == "metrics_listening"]


# -- drain -----------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_drain(new_gateway, sandbox, number):
    """After SIGTERM or SIGINT what runs is finished and answered, and new work is refused."""
    own = new_gateway()
    done, slow, late = person(), person(), person()
    own.create(done).ok()
    sandbox.fault("delay", slow.email, delay_ms=2500)
    running = own.begin(slow)
    sandbox.wait_posts(slow.email)
    own.signal(number)
    wait_for(lambda: own.http("/readyz")[0] == 503, "readyz to say no")
    assert own.http("/livez")[0] == 200
    wait_for(lambda: own.health("") == "NOT_SERVING" and own.health(SERVICE) == "NOT_SERVING", "health to say no")
    # New ones are refused, what is recorded is answered, what runs is joined.
    own.create(late).failed("DRAINING", sent="no", recovery="RETRY_SAME_ID")
    own.create(again(late, validate_only=True)).failed("DRAINING")
    own.create(again(late, state="XX")).failed("FIELD_INVALID")
    assert own.create(done).ok().replayed
    assert own.state(late.request_id) is None
    joined = own.begin(slow)
    assert not running.done()
    assert not running.reply().ok().replayed
    assert joined.reply().ok().replayed
    own.stop()  # asserts exit status 0
    assert_posts(sandbox, slow.email, 1)
    assert_posts(sandbox, late.email, 0)


def test_drain_of_an_idle_gateway_is_quick(new_gateway):
    own = new_gateway()
    own.create(person()).ok()
    started = time.monotonic()
    own.stop()
    assert time.monotonic() - started < 10


def test_drain_does_not_wait_for_idle_connections(new_gateway):
    own = new_gateway()
    sockets = [socket.create_connection(("127.0.0.1", int(own.address.rpartition(":")[2]))) for _ in range(10)]
    channels = [own.new_channel() for _ in range(5)]
    for channel in channels:
        own.create(person(), channel=channel).ok()
    code = own.process.terminate(PATIENCE + 20)
    assert code == 0
    for sock in sockets:
        sock.close()
    own.stopped = True
    own._close_channels()


def test_drain_ends_a_wait_for_another_try(new_gateway, sandbox):
    """A call that waits for Retry-After must not hold the process up."""
    own = new_gateway()
    request = person()
    sandbox.answer(request.email, 503, "", headers={"Retry-After": "25"})
    running = own.begin(request, timeout=60)
    sandbox.wait_posts(request.email)
    wait_for(lambda: sandbox.posts(request.email)[0].get("done"), "the end of the POST")
    time.sleep(0.1)
    started = time.monotonic()
    own.signal()
    code = own.process.wait(PATIENCE + 20)
    assert code == 0 and time.monotonic() - started < 10, (code, time.monotonic() - started)
    own.stopped = True
    reply = running.reply()
    if reply.error:
        assert reply.error.recovery == "RETRY_SAME_ID"
    assert_posts(sandbox, request.email, 1)


def test_drain_gives_up_at_its_timeout(new_gateway, sandbox):
    own = new_gateway(drain_timeout="500ms", upstream_timeout="25s")
    request = person()
    sandbox.fault("hang", request.email)
    running = own.begin(request)
    sandbox.wait_posts(request.email)
    joined = own.begin(request)
    time.sleep(0.2)
    started = time.monotonic()
    own.signal()
    own.process.wait(PATIENCE)
    assert time.monotonic() - started < 15
    own.stopped = True
    # Not a word about how it ended, because nobody knows: asking again, with the same id, tells.
    for reply in (running.reply(), joined.reply()):
        reply.failed("REQUEST_IN_PROGRESS", sent="maybe")
    assert_posts(sandbox, request.email, 1)


def test_two_signals_do_not_hurt(new_gateway):
    own = new_gateway()
    own.signal()
    own.signal()
    assert own.process.wait() == 0
    own.stopped = True


# -- secrets ---------------------------------------------------------------------------------------------------------------

def test_secrets_are_picked_up(new_gateway, sandbox):
    """Within 5 seconds, without a restart; here from a good one to a wrong one and back."""
    own = new_gateway()
    own.create(person()).ok()
    write_secret(own.client_secret_file, "changed-secret")
    written = time.monotonic()
    wait_for(lambda: own.create(person()).error, "the new secret", timeout=5 + PATIENCE / 2)
    assert time.monotonic() - written < 7
    write_secret(own.client_secret_file, "sandbox-secret")
    own.create(person()).ok()  # at once: the 401 makes it look


def test_secrets_that_become_unusable_keep_the_last_good_one(new_gateway):
    own = new_gateway()
    own.client_secret_file.chmod(0o644)
    write_secret(own.client_id_file, "")
    wait_for(lambda: any("reload" in str(entry.get("event")) for entry in own.log()), "a line about the reload")
    own.create(person()).ok()
    own.client_secret_file.unlink()
    own.create(person()).ok()


# -- reflection ------------------------------------------------------------------------------------------------------------

REFLECTIONS = ("v1alpha", "v1")  # what old tools ask, and what new ones do; the messages are the same


def ask_reflection(gateway, version, *questions):
    call = gateway.channel.stream_stream(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")
    return list(call(iter(questions), timeout=PATIENCE))


def reflects(gateway, version):
    """Asks for the list of services, in bytes: list_services is field 7."""
    try:
        answers = ask_reflection(gateway, version, b"\x3a\x01*")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED
        return False
    for service in (SERVICE, "grpc.health.v1.Health", *(f"grpc.reflection.{v}.ServerReflection" for v in REFLECTIONS)):
        assert service.encode() in answers[0]
    return True


@pytest.mark.parametrize("flags, expected", [
    (dict(), True), (dict(reflection=True), True), (dict(reflection=False), False),
    (dict(listen="0.0.0.0:0", allow_plaintext=True), False),
    (dict(listen="0.0.0.0:0", allow_plaintext=True, reflection=True), True)], ids=[
        "loopback", "loopback, on", "loopback, off", "off the loopback", "off the loopback, on"])
def test_reflection(new_gateway, flags, expected):
    """Reflection is on where only this machine can call, unless a flag says otherwise."""
    own = new_gateway(**flags)
    if own.address.startswith("0.0.0.0"):
        own.address = own.address.replace("0.0.0.0", "127.0.0.1")
        own.channel = own.new_channel()
    assert [reflects(own, version) for version in REFLECTIONS] == [expected, expected]


@pytest.mark.parametrize("version", REFLECTIONS)
def test_reflection_answers_every_question(gateway, version):
    def text(field, value):
        return bytes([field << 3 | 2, len(value)]) + value.encode()

    extension = "google.protobuf.FieldOptions"
    answers = ask_reflection(
        gateway, version,
        text(3, "userintent/v1/user_intent_service.proto"), text(4, f"{SERVICE}.CreateUserIntent"),
        text(4, "userintent.v1.CreateUserIntentRequest"), text(6, extension),
        text(4, "no.such.Thing"), text(3, "no/such.proto"), text(1, "some host"), text(7, ""))
    assert len(answers) == 8  # each in its turn, on one stream
    for answer in answers[:3]:
        assert b"user_intent_service.proto" in answer and b"Google.Protobuf.Reflection" in answer  # with its imports
    assert extension.encode() in answers[3]
    for answer in answers[4:6]:
        assert b"\x08\x05" in answer  # error_code NOT_FOUND
    assert b"some host" in answers[6]
    assert SERVICE.encode() in answers[7]


# -- the process -----------------------------------------------------------------------------------------------------------

def test_every_log_line_is_a_json_object(new_gateway, sandbox):
    own = new_gateway(log_level="debug")
    for status in (201, 400, 500, 401):
        request = person()
        sandbox.answer(request.email, status, {"id": "x"})
        own.create(request)
    own.create_bytes(b"\xff").failed("MALFORMED_REQUEST")
    own.create(person(metadata={"canary_key": "canary-value\ninjected"})).failed("FIELD_INVALID")
    own.stop()
    lines = own.process.lines()
    assert len(lines) > 4
    for line in lines:
        entry = json.loads(line)
        assert isinstance(entry, dict) and entry.get("event"), line


@pytest.mark.parametrize("level", ["trace", "debug"])
def test_no_personal_data_at_any_log_level(new_gateway, sandbox, level):
    """conftest searches the log after the test; here it has much to say."""
    own = new_gateway(log_level=level)
    for kind, parameters in (("status", dict(status=400, body='{"description":"zorblatt quillfeather vexmoor"}')),
                             ("status", dict(status=500, body="zorblatt")), ("close", {}), ("html", dict(status=502)),
                             ("status", dict(status=201, body='{"id":"x","status":"zorblatt"}'))):
        request = person()
        sandbox.fault(kind, request.email, **parameters)
        own.create(request)
        own.create(request)
        own.get(request.request_id)
    own.create(person(email="zorblatt broken@example.com"))
    own.stop()


def test_core_dumps_are_off(gateway):
    with open(f"/proc/{gateway.process.pid}/limits") as limits:
        [line] = [line for line in limits if line.startswith("Max core file size")]
    assert line.split()[4:6] == ["0", "0"], line


def test_no_secret_in_the_arguments_or_the_environment(gateway):
    for name in ("cmdline", "environ"):
        with open(f"/proc/{gateway.process.pid}/{name}", "rb") as file:
            assert b"sandbox-secret" not in file.read()


def test_it_writes_nothing_into_its_directory(new_gateway):
    own = new_gateway()
    own.create(person()).ok()
    own.stop()
    assert {path.name for path in own.directory.iterdir()} == {"client_id", "client_secret", "ledger.key"}
    for path in own.directory.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_restart_with_a_ledger_in_memory_forgets(new_gateway, sandbox):
    """What "tests and benchmarks only" means."""
    own = new_gateway()
    request = person()
    own.create(request).ok()
    own.restart()
    assert_row(own, sandbox, request, NONE)


def test_held_reflection_streams_take_few_threads_and_no_call(new_gateway, sandbox):
    """libgrpc serves reflection with one thread for each stream, for as long as it is held."""
    own = new_gateway()
    threads = f"/proc/{own.process.pid}/task"
    before = len(os.listdir(threads))
    let_go = threading.Event()

    def question():
        yield b"\x3a\x01*"
        let_go.wait(PATIENCE)

    channels = {version: own.new_channel() for version in REFLECTIONS}
    held = [channels[version].stream_stream(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")(
        question(), timeout=2 * PATIENCE) for version in REFLECTIONS for _ in range(100)]

    def refused():
        return sum(call.done() and call.code() == grpc.StatusCode.RESOURCE_EXHAUSTED for call in held)

    wait_for(lambda: refused() >= 100, "streams beyond the threads, refused")
    assert len(os.listdir(threads)) < before + 60
    request = person()
    own.create(request).ok()
    assert_posts(sandbox, request.email, 1)
    let_go.set()
    for call in held:
        call.cancel()

    def answers_again():
        try:
            return reflects(own, "v1")
        except AssertionError:  # still refused
            return False

    wait_for(answers_again, "reflection for whoever comes next")
