"""userintent-ledger: beside a running server, and on the file when none runs."""

import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import threading
import uuid

import grpc
import pytest

from support import canary
from support.check import FAILED, SUCCEEDED, UNKNOWN, assert_posts, assert_row
from support.gateway import clean_environment
from support.ledger_tool import BESIDE, BY, TOOL, Down, lose, run
from support.people import again, person, same_email
from support.process import PATIENCE, wait_for

SERVICE = "userintent.admin.v1.LedgerAdminService"


@BESIDE
def test_resolved_as_created(durable, ledger, sandbox, beside):
    """An unknown outcome that is resolved as created is replayed as a success."""
    gateway = durable()
    request = lose(gateway, sandbox, person())
    intent = str(uuid.uuid4())
    with Down(gateway, beside):
        assert ledger.unresolved() == [request.request_id]
        [entry] = ledger.json("unresolved")["requests"]
        assert entry["caller"] == "local" and entry["reason"] == "OUTCOME_UNKNOWN" and entry["sent"] == "maybe"
        assert entry["http_status"] == 500 and float(entry["age"].removesuffix("s")) >= 0
        assert entry["gateway_attempt_id"] == sandbox.posts(request.email)[0]["attempt_id"]
        told = ledger.resolve(request, f"--created={intent}").done()
        assert told.out.startswith("resolved\n") and intent in told.out
        assert ledger.unresolved() == []
        # The same again is no mistake, and no second deed; anything else is refused.
        assert ledger.resolve(request, f"--created={intent}").done().out.startswith("it was so already")
        ledger.resolve(request, "--created=another").refused("SUCCEEDED: what is recorded is never changed")
        ledger.resolve(request, "--not_created").refused("SUCCEEDED")
        shown = ledger.json("show", request.request_id)
        assert shown["requests"][0]["user_intent_id"] == intent
        assert shown["requests"][0]["attempts_used_min"] == 1
        [deed] = shown["audit"]
        assert deed["actor"] == "operator" and deed["evidence"] == "ticket 4711"
        assert (deed["from_state"], deed["to_state"]) == ("REQUEST_STATE_UNKNOWN", "REQUEST_STATE_SUCCEEDED")
    repeat = gateway.create(request).ok()
    assert repeat.replayed and repeat.user_intent.id == intent and repeat.attempts.used_min == 1
    creation = gateway.get(request.request_id).ok()
    assert creation.user_intent.id == intent and creation.attempts.used_max == 1
    assert_row(gateway, sandbox, request, SUCCEEDED)
    gateway.create(again(request, request_id=str(uuid.uuid4()))).failed("PERSON_EXISTS", user_intent_id=intent)
    gateway.create(same_email(request)).ok()
    assert_posts(sandbox, request.email, 2)
    gateway.kill()
    gateway.restart()
    assert_row(gateway, sandbox, request, SUCCEEDED)


@BESIDE
def test_resolved_as_not_created(durable, ledger, sandbox, beside):
    """An unknown outcome that is resolved as not created frees its address."""
    gateway = durable()
    request = lose(gateway, sandbox, person())
    gateway.create(same_email(request)).failed("EMAIL_UNRESOLVED")
    with Down(gateway, beside):
        ledger.resolve(request, "--not_created").done()
        ledger.resolve(request, "--not_created").done()
        assert ledger.state(request) == FAILED
        assert len(ledger.json("audit")["entries"]) == 1
    gateway.create(request).failed("UPSTREAM_REJECTED", recovery="FIX_WITH_NEW_ID", replayed="true",
                                   attempts_used_min=0, attempts_used_max=1)
    assert_row(gateway, sandbox, request, FAILED, "UPSTREAM_REJECTED")
    assert_posts(sandbox, request.email, 1)
    gateway.create(same_email(request)).ok()
    assert_posts(sandbox, request.email, 2)


def test_what_astra_confirmed_was_created(durable, ledger, sandbox):
    """What Astra answered with 2xx cannot be resolved as not created."""
    gateway = durable()
    request = lose(gateway, sandbox, person(), status=201)  # without a body
    assert ledger.json("show", request.request_id)["requests"][0]["confirmed"]
    ledger.resolve(request, "--not_created").refused("2xx")
    assert_row(gateway, sandbox, request, UNKNOWN, "OUTCOME_UNKNOWN")
    ledger.resolve(request, "--created=intent-1").done()
    assert gateway.create(request).ok().attempts.used_min == 1


def test_a_superseded_request(durable, ledger, sandbox):
    """A superseded request is listed as such, and can be resolved."""
    gateway = durable()
    first = lose(gateway, sandbox, person())
    second = same_email(first, supersedes_request_id=first.request_id)
    gateway.create(second).ok()
    assert ledger.unresolved() == [first.request_id] and ledger.unresolved("--not_superseded") == []
    shown = ledger("show", first.request_id).done().out
    assert f"superseded by  {second.request_id}" in shown
    ledger.resolve(first, "--created=the-first").done()
    assert gateway.create(first).ok().user_intent.id == "the-first"
    assert gateway.create(second).ok().attempts.used_min == 2
    gateway.restart()


@BESIDE
def test_only_what_is_unknown_is_resolved(durable, ledger, sandbox, beside):
    gateway = durable()
    done, rejected, released = person(), person(), person()
    gateway.create(done).ok()
    sandbox.answer(rejected.email, 400, "")
    gateway.create(rejected).failed("UPSTREAM_REJECTED")
    sandbox.answer(released.email, 404, "")
    gateway.create(released).failed("UPSTREAM_MISCONFIGURED")
    with Down(gateway, beside):
        ledger.resolve(done, "--created=another").refused("SUCCEEDED")
        ledger.resolve(rejected, "--created=another").refused("FAILED")
        ledger.resolve(released, "--created=another").refused("RELEASED")
        ledger.resolve(released, "--not_created").refused("RELEASED")
        ledger.resolve(done, "--created=x", caller="another").refused("this caller has no such request")
        ledger.resolve(person(), "--created=x").refused("no such request")
        assert ledger.json("audit")["entries"] == []


def test_what_runs_is_not_resolved(durable, ledger, sandbox):
    gateway = durable()
    request = person()
    sandbox.fault("delay", request.email, delay_ms=2000)
    running = gateway.begin(request)
    sandbox.wait_posts(request.email)
    assert ledger.unresolved("--sending") == [request.request_id] and ledger.unresolved() == []
    ledger.resolve(request, "--created=another").refused("still runs", "wait")
    intent = running.reply().ok().user_intent.id
    assert gateway.create(request).ok().user_intent.id == intent


def test_what_a_dead_server_was_sending(durable, ledger, sandbox):
    """What a dead server was sending can be listed and resolved without a server."""
    gateway = durable()
    request = person()
    sandbox.fault("hang", request.email)
    running = gateway.begin(request)
    sandbox.wait_posts(request.email)
    gateway.kill()
    running.reply()
    # The socket of the dead process is there, and nobody listens.
    assert stat.S_ISSOCK(os.stat(f"{ledger.path}.admin").st_mode)
    assert "its process is gone" in ledger("show", request.request_id).done().out
    assert "its process is gone" in ledger("unresolved", "--sending").done().out
    assert ledger.json("stats")["sending"] == "1" and not ledger.json("stats")["server_runs"]
    ledger.resolve(request, "--not_created").done()
    gateway.restart()  # its socket takes the dead one's place
    assert_row(gateway, sandbox, request, FAILED, "UPSTREAM_REJECTED")
    assert ledger.json("stats")["server_runs"]
    assert_posts(sandbox, request.email, 1)


def test_lists_and_ages(durable, ledger, sandbox):
    """unresolved lists in order, up to a limit and from an age on."""
    gateway = durable()
    lost = [lose(gateway, sandbox, person()).request_id for _ in range(5)]
    assert ledger.unresolved() == lost
    listed = ledger.json("unresolved", "--limit=3")
    assert [entry["request_id"] for entry in listed["requests"]] == lost[:3] and listed["more"]
    assert not ledger.json("unresolved", "--limit=5")["more"]
    assert ledger.unresolved("--older_than=1h") == []
    assert "there are more than these 2" in ledger("unresolved", "--limit=2").done().out
    assert ledger("unresolved", "--older_than=1h").done().out == "none\n"
    stats = ledger.json("stats")
    assert stats["unknown"] == "5" and stats["email_addresses"] == "5" and stats["callers"] == "1"
    assert stats["schema_version"] == 9 and int(stats["database_bytes"]) > 0
    assert "unknown        5 (the oldest recorded" in ledger("stats").done().out
    assert ledger("audit").done().out == "none\n"


def test_wrong_words(durable, ledger, sandbox):
    """Exit status 2 and one line; nothing is written."""
    gateway = durable()
    request = lose(gateway, sandbox, person())
    resolve = ["resolve", request.request_id, "--caller=local"]
    for words in ([], ["tell"], ["show"], ["show", "no-uuid"], ["show", request.request_id, "more"], ["stats", "more"],
                  ["--no_such_flag", "stats"], ["stats", "--limit=3"], ["unresolved", "--limit=0"],
                  ["unresolved", "--limit=1001"], ["unresolved", "--limit=x"], ["unresolved", "--older_than=5"],
                  ["unresolved", "--older_than=-1h"], ["unresolved", "--older_than"], ["--json=1", "stats"],
                  ["stats", "--json", "--json"], ["audit", "no-uuid"],
                  resolve + BY, resolve + ["--created=x"], resolve + ["--created=x", "--not_created", *BY],
                  ["resolve", request.request_id, "--created=x", *BY],
                  resolve + ["--created=", *BY], resolve + ["--created=" + "x" * 257, *BY],
                  resolve + ["--created=a\tb", *BY],
                  resolve + ["--created=x", "--actor=a", "--evidence=mail from someone@example.com"],
                  resolve + ["--created=x", "--actor=a", "--evidence=" + "x" * 1025],
                  resolve + ["--created=x", "--actor=" + "a" * 129, "--evidence=x"],
                  resolve + ["--created=x", "--actor=a\nb", "--evidence=x"]):
        ledger(*words).refused(code=2)
    run("--ledger=memory:", "stats").refused("--ledger", code=2)
    run("--ledger=sqlite:", "stats").refused("--ledger", code=2)
    ledger("show", str(uuid.uuid4())).refused("no caller has such a request")
    ledger("show", request.request_id, "--caller=another").refused("this caller has no such request")
    assert ledger.state(request) == UNKNOWN
    assert ledger.json("audit")["entries"] == []


def test_help():
    """--help lists every command."""
    for word in ("--help", "-help"):
        text = run(word).done().out
        for command in ("show", "unresolved", "stats", "resolve", "audit", "conflicts", "find", "backup", "check"):
            assert f"\n  {command}" in text


def test_where_the_ledger_is(durable, ledger, tmp_path):
    """The ledger is where the flag says, else the variable, else the default."""
    gateway = durable()
    gateway.create(person()).ok()
    named = {"USERINTENT_LEDGER": f"sqlite:{ledger.path}", "USERINTENT_LISTEN": "127.0.0.1:0"}
    assert json.loads(run("--json", "stats", environment=named).done().out)["succeeded"] == "1"
    # A flag beats the variable; the default is below the working directory.
    run(f"--ledger=sqlite:{tmp_path}/none/ledger.db", "stats", environment=named).refused("no ledger at")
    run("stats", cwd=tmp_path).refused("no ledger at data/ledger.db")
    gateway.stop()
    (tmp_path / "data").mkdir(mode=0o700)
    shutil.copy(ledger.path, tmp_path / "data" / "ledger.db")
    assert "succeeded      1" in run("stats", cwd=tmp_path).done().out


def test_it_makes_no_ledger(tmp_path):
    run(f"--ledger=sqlite:{tmp_path}/none/ledger.db", "stats").refused("there is no ledger")
    run(f"--ledger=sqlite:{tmp_path}/ledger.db", "resolve", str(uuid.uuid4()), "--caller=local", "--not_created",
        *BY).refused("there is no ledger")
    assert list(tmp_path.iterdir()) == []
    other = tmp_path / "other.db"
    other.write_bytes(b"")
    run(f"--ledger=sqlite:{other}", "stats").refused("0 bytes")
    other.write_bytes(b"x" * 8192)
    run(f"--ledger=sqlite:{other}", "stats").refused("damaged")


def test_the_socket_is_private_and_nobody_elses(durable, ledger):
    gateway = durable()
    path = f"{ledger.path}.admin"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(ledger.path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(ledger.path.parent).st_mode) == 0o700
    # The service is not on the network, nor what reflection tells of.
    call = gateway.channel.unary_unary(f"/{SERVICE}/GetStatistics", request_serializer=None, response_deserializer=None)
    with pytest.raises(grpc.RpcError) as refused:
        call(b"", timeout=10)
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
    reflect = gateway.channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
                                            request_serializer=None, response_deserializer=None)
    [services] = list(reflect(iter([b"\x3a\x01*"]), timeout=10))  # list_services
    assert b"userintent.v1.UserIntentService" in services and b"admin" not in services
    # Nor does the socket serve what the network does.
    with grpc.insecure_channel(f"unix:{path}") as channel:
        for method in ("/userintent.v1.UserIntentService/GetCreation", "/grpc.health.v1.Health/Check",
                       "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"):
            with pytest.raises(grpc.RpcError) as refused:
                channel.unary_unary(method, request_serializer=None, response_deserializer=None)(b"", timeout=10)
            assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED, method


def test_a_server_that_does_not_answer(durable, ledger):
    """Where a server holds the ledger and does not answer, the tool says so and changes nothing."""
    gateway = durable()
    os.unlink(f"{ledger.path}.admin")
    ledger("stats").refused("another process uses it", "does not answer", "try again")
    gateway.restart()
    ledger("stats").done()


def test_a_socket_that_cannot_be_made(durable, ledger, tmp_path):
    """The server serves all the same, and says so once."""
    def warned(gateway):
        return [entry["warning"] for entry in gateway.log() if "userintent-ledger" in entry.get("warning", "")]

    ledger.path = tmp_path / ("long" * 25) / "ledger.db"
    gateway = durable()
    gateway.create(person()).ok()
    assert len(warned(gateway)) == 1 and "too long" in warned(gateway)[0]
    ledger("stats").refused("another process uses it", "too long", "stop the server")
    gateway.stop()
    assert ledger.json("stats")["succeeded"] == "1"

    ledger.path = tmp_path / "other" / "ledger.db"
    ledger.path.parent.mkdir(mode=0o700)
    (tmp_path / "other" / "ledger.db.admin").write_text("somebody's")
    gateway = durable()
    gateway.create(person()).ok()
    assert len(warned(gateway)) == 1 and "no socket" in warned(gateway)[0]
    assert (tmp_path / "other" / "ledger.db.admin").read_text() == "somebody's"


def test_a_name_with_odd_characters(durable, ledger, tmp_path):
    """A path with characters of a URI works for server and tool."""
    ledger.path = tmp_path / "a b%20?#é" / "ledger.db"
    gateway = durable()
    gateway.create(person()).ok()
    assert ledger.json("stats")["server_runs"] and ledger.json("stats")["succeeded"] == "1"


def test_a_silent_peer_does_not_stop_the_others(durable, ledger):
    gateway = durable()
    silent = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    for peer in silent:
        peer.connect(f"{ledger.path}.admin")
    ledger("stats").done()
    gateway.create(person()).ok()
    gateway.stop()
    for peer in silent:
        peer.close()


def test_two_callers_with_one_id(durable, ledger, sandbox, authority):
    """The same id of two callers is two requests, told apart by --caller."""
    key, certificate = authority.issue("gateway", ["DNS:localhost", "IP:127.0.0.1"])
    gateway = durable(tls_cert_file=certificate, tls_key_file=key, tls_client_ca_file=authority.ca_file)
    request_id = str(uuid.uuid4())
    for name in ("one", "two"):
        request = person(request_id=request_id)
        sandbox.answer(request.email, 500, "")
        key, certificate = authority.issue(name, [f"URI:spiffe://example.test/{name}"])
        channel = gateway.new_channel(grpc.ssl_channel_credentials(
            authority.ca_file.read_bytes(), key.read_bytes(), certificate.read_bytes()))
        gateway.create(request, channel=channel).failed("OUTCOME_UNKNOWN")
    callers = [r["caller"] for r in ledger.json("show", request_id)["requests"]]
    assert callers == ["uri:spiffe://example.test/one", "uri:spiffe://example.test/two"]
    ledger("resolve", request_id, f"--caller={callers[1]}", "--created=second", *BY).done()
    [left] = ledger.json("show", request_id, f"--caller={callers[0]}")["requests"]
    assert left["state"] == "REQUEST_STATE_UNKNOWN"


def test_resolving_under_load_disturbs_nobody(durable, ledger, sandbox):
    gateway = durable(upstream_breaker=False)
    lost = [lose(gateway, sandbox, person()) for _ in range(50)]
    stop = threading.Event()
    failures, calls = [], []

    def load():
        while not stop.is_set():
            reply = gateway.create(person())
            calls.append(reply)
            if reply.response is None or reply.response.replayed:
                failures.append(reply)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: len(calls) >= 10, "calls")
        for number, request in enumerate(lost):
            outcome = f"--created=intent-{number}" if number % 2 == 0 else "--not_created"
            ledger.resolve(request, outcome).done()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures and len(calls) >= 50
    for number, request in enumerate(lost):
        reply = gateway.create(request)
        if number % 2 == 0:
            assert reply.ok().user_intent.id == f"intent-{number}"
        else:
            reply.failed("UPSTREAM_REJECTED")
    assert len(ledger.json("audit")["entries"]) == 50
    gateway.restart()  # counters are checked at its start
    assert ledger.json("stats")["unknown"] == "0"


def test_a_stopped_server_leaves_no_socket(durable, ledger):
    gateway = durable()
    assert os.path.exists(f"{ledger.path}.admin")
    gateway.stop()
    assert not os.path.exists(f"{ledger.path}.admin")


def test_no_personal_data_gets_out(durable, ledger, sandbox):
    """No output of the tool holds a personal value."""
    gateway = durable()
    requests = [person() for _ in range(4)]
    gateway.create(requests[0]).ok()
    for request in requests[1:]:
        lose(gateway, sandbox, request)
    ledger.resolve(requests[1], "--created=intent-1").done()
    ledger.resolve(requests[2], "--not_created").done()
    for flags in ((), ("--json",)):
        for request in requests:
            ledger(*flags, "show", request.request_id).done()
        for command in ("unresolved", "stats", "audit"):
            ledger(*flags, command).done()
    gateway.kill()  # with the write-ahead log as it was
    values = [value for request in requests for value in canary.personal_values(request) if len(value) >= 6]
    assert len(ledger.said) > 2000
    assert canary.find(ledger.said, values) is None
    files = [path for path in ledger.path.parent.iterdir() if path.is_file()]
    assert {path.name for path in files} >= {"ledger.db", "ledger.db-wal"}
    for path in files:
        assert canary.find(path.read_bytes().decode("latin-1"), values) is None, path.name
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name


def test_a_reader_that_goes_away(durable, ledger):
    """A closed pipe behind the tool is no crash."""
    durable()
    tool = subprocess.Popen([str(TOOL), f"--ledger=sqlite:{ledger.path}", "stats"], stdout=subprocess.PIPE,
                            stderr=subprocess.DEVNULL, env=clean_environment())
    tool.stdout.close()
    assert tool.wait(PATIENCE) in (0, 1, -signal.SIGPIPE)


def test_retention(durable, ledger):
    """Rows within --retention are kept over a restart."""
    gateway = durable(retention="9504h")
    request = person()
    gateway.create(request).ok()
    gateway.restart()
    assert gateway.create(request).ok().replayed
    assert gateway.metric("userintent_ledger_purged_rows_total") == 0


def test_released_retention(durable, ledger, sandbox):
    """What was not processed is forgotten after --released_retention, and nothing else; its id starts anew either way."""
    gateway = durable(released_retention="24h")
    released, kept = person(), person()
    gateway.create(kept).ok()
    sandbox.answer(released.email, 429, times=0)
    gateway.create(released).failed("UPSTREAM_RATE_LIMITED")
    gateway.stop()
    with contextlib.closing(sqlite3.connect(ledger.path)) as file, file:  # two days pass
        file.execute("UPDATE request SET created_at = created_at - 172800000000, updated_at = updated_at - 172800000000")
    gateway.start()
    wait_for(lambda: gateway.metric("userintent_ledger_purged_rows_total") == 1, "the old row is forgotten")
    assert gateway.create(kept).ok().replayed
    gateway.get(released.request_id).failed("REQUEST_NOT_FOUND")
    sandbox.clear_faults()
    gateway.create(released).ok()


def test_a_file_that_is_no_ledger_is_left_as_it_is(tmp_path):
    path = tmp_path / "notes"
    path.write_text("somebody's notes\n" * 20)
    path.chmod(0o644)
    run(f"--ledger=sqlite:{path}", "stats").refused("is not a ledger")
    assert path.read_text() == "somebody's notes\n" * 20 and path.stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes"]


def test_a_directory_that_others_may_write_is_refused(tmp_path):
    path = tmp_path / "ledger.db"
    path.touch(0o600)
    for mode in (0o777, 0o1777, 0o770):
        tmp_path.chmod(mode)
        run(f"--ledger=sqlite:{path}", "stats").refused("may write its directory")
    tmp_path.chmod(0o700)


def test_the_short_flag_for_help():
    """-h prints what --help prints."""
    assert run("-h").out == run("--help").out != ""
