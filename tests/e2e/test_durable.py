"""A ledger that lasts, on disk or in PostgreSQL: restarts, kill -9, a second process, other keys, a full disk, a database that
is away.

Rows 27, 28 and 29 of the retry-safety table.
"""

import resource
import secrets
import stat
import subprocess

import pytest

from support import postgres
from support.check import FAILED, RELEASED, SUCCEEDED, UNKNOWN, assert_posts, assert_row
from support.gateway import SERVER, Gateway, write_secret
from support.people import again, other_id, person, same_email
from support.process import PATIENCE, wait_for
from support.wire import TcpTap


# As short as they may be: so long after a kill the rows of the dead process are SENDING.
REPLICA = {"ledger_single_node": True, "ledger_migrate": True, "ledger_lease": "2s", "ledger_fence": "5s",
           "upstream_timeout": "4s"}
SWEPT = 5 + 4 + 5 + PATIENCE  # fence, then the longest exchange and five seconds more; and what a busy machine takes


class Durable:
    """Makes gateways on a ledger that outlives them."""

    def __init__(self, kind, sandbox, **flags):
        self.kind, self._sandbox, self._flags = kind, sandbox, flags
        self.made = []

    def __call__(self, **flags):
        self.made.append(Gateway(self._sandbox, **{**self._flags, **flags}))
        return self.made[-1]

    def after_kill(self, gateway, request):
        """Another process serves. Where others may be alive it takes a while until the dead one's rows are given up."""
        if self.kind == "postgres":
            wait_for(lambda: gateway.state(request.request_id) != "IN_PROGRESS", "the dead process's row is given up", SWEPT)


@pytest.fixture(params=["sqlite", "postgres"])
def durable(request, sandbox, tmp_path):
    if request.param == "postgres":
        made = Durable("postgres", sandbox, ledger=request.getfixturevalue("postgres_url"), **REPLICA)
    else:
        made = Durable("sqlite", sandbox, ledger=f"sqlite:{tmp_path}/ledger/ledger.db")
    yield made
    for gateway in made.made:
        gateway.close()


ON_DISK = pytest.mark.parametrize("durable", ["sqlite"], indirect=True)  # what is about files and one process


def restart(gateway, how):
    if how == "kill -9":
        gateway.kill()
        gateway.restart()
    else:
        gateway.restart()


HOW = ["SIGTERM", "kill -9"]


@pytest.mark.parametrize("how", HOW)
def test_everything_that_was_told_is_kept(durable, sandbox, how):
    """What callers were told of each outcome is the same after the process has ended and come back."""
    gateway = durable()
    done, rejected, lost, released = person(), person(), person(), person()
    first = gateway.create(done).ok()
    sandbox.answer(rejected.email, 400, "", headers={"Request-Id": "req-400"})
    gateway.create(rejected).failed("UPSTREAM_REJECTED")
    sandbox.answer(lost.email, 500, "")
    gateway.create(lost).failed("OUTCOME_UNKNOWN")
    sandbox.answer(released.email, 404, "")
    gateway.create(released).failed("UPSTREAM_MISCONFIGURED")
    before = {request.request_id: gateway.get(request.request_id).ok() for request in (done, rejected, lost, released)}

    restart(gateway, how)
    for request in (done, rejected, lost, released):
        assert gateway.get(request.request_id).ok() == before[request.request_id]
    repeat = gateway.create(done).ok()
    assert repeat.replayed and repeat.user_intent == first.user_intent
    assert repeat.astra_request_id == first.astra_request_id and repeat.attempts == first.attempts
    gateway.create(rejected).failed("UPSTREAM_REJECTED", replayed="true", astra_request_id="req-400")
    assert_row(gateway, sandbox, rejected, FAILED, "UPSTREAM_REJECTED")
    assert_row(gateway, sandbox, lost, UNKNOWN, "OUTCOME_UNKNOWN")
    assert_row(gateway, sandbox, released, RELEASED, "UPSTREAM_MISCONFIGURED")
    gateway.create(other_id(done)).failed("PERSON_EXISTS", user_intent_id=first.user_intent.id)
    gateway.create(same_email(lost)).failed("EMAIL_UNRESOLVED", unresolved_request_id=lost.request_id)
    gateway.create(again(done, city="Vexmoor Other")).failed("REQUEST_ID_REUSED")
    assert_posts(sandbox, done.email, 1)


@pytest.mark.parametrize("how", HOW)
def test_the_attempts_are_kept(durable, sandbox, how):
    """The attempts of an e-mail address are counted on over restarts."""
    gateway = durable()
    first = person()
    gateway.create(first).ok()
    gateway.create(same_email(first)).ok()
    restart(gateway, how)
    assert gateway.create(same_email(first, email=first.email.upper())).ok().attempts.used_min == 3
    restart(gateway, how)
    gateway.create(same_email(first)).failed("EMAIL_ATTEMPTS_EXHAUSTED", attempts_used_min=3)
    assert_posts(sandbox, first.email, 3)


def test_row_27_killed_before_the_send(durable, sandbox):
    """The row was SENDING on disk, so nobody can know that nothing left: unknown, never sent again."""
    tap = TcpTap.before(sandbox, "silent")
    gateway = durable(astra_base_url=tap.url, connect_timeout="4s")
    request = person()
    running = gateway.begin(request)
    wait_for(lambda: tap.accepted, "a connection")
    assert not running.done()
    gateway.kill()
    tap.mode = "forward"
    gateway.restart()
    durable.after_kill(gateway, request)
    assert_row(gateway, sandbox, request, UNKNOWN, "OUTCOME_UNKNOWN")
    assert_posts(sandbox, request.email, 0)
    tap.close()


@pytest.mark.parametrize("commits", [True, False], ids=["commits", "does not commit"])
def test_row_28_killed_after_the_send(durable, sandbox, commits):
    """kill -9 after the send leaves an unknown outcome, whether Astra created the intent or not."""
    gateway = durable()
    request = person()
    sandbox.fault("delay" if commits else "hang", request.email, delay_ms=1500)
    running = gateway.begin(request)
    sandbox.wait_posts(request.email)
    assert not running.done()
    gateway.kill()
    gateway.restart()
    if durable.kind == "sqlite":
        assert gateway.metric("userintent_ledger_recovered_rows") == 1
    durable.after_kill(gateway, request)
    assert_row(gateway, sandbox, request, UNKNOWN, "OUTCOME_UNKNOWN")
    gateway.create(same_email(request)).failed("EMAIL_UNRESOLVED", attempts_used_min=0, attempts_used_max=1)
    assert_posts(sandbox, request.email, 1)
    gateway.restart()
    assert_row(gateway, sandbox, request, UNKNOWN, "OUTCOME_UNKNOWN")
    second = same_email(request, supersedes_request_id=request.request_id)
    sandbox.clear_faults()
    gateway.create(second).ok()
    assert_posts(sandbox, request.email, 2)


def test_many_kills_under_load(durable, sandbox):
    """Whatever the moment: nothing is sent twice, nothing that was acknowledged is lost."""
    gateway = durable()
    acknowledged, asked = {}, []
    for _ in range(6):
        requests = [person() for _ in range(40)]
        asked += requests
        running = [gateway.begin(request) for request in requests]
        wait_for(lambda: sum(call.done() for call in running) >= 10, "ten answers")
        gateway.process.kill()
        for request, call in zip(requests, running):
            reply = call.reply()
            if reply.response is not None:
                acknowledged[request.request_id] = reply.response.user_intent.id
        gateway.kill()
        gateway.restart()
    for request in asked:
        if gateway.get(request.request_id).response is not None:
            durable.after_kill(gateway, request)
        reply = gateway.create(request)
        posts = sandbox.posts(request.email)
        assert len(posts) <= 1
        if request.request_id in acknowledged:
            assert reply.ok().user_intent.id == acknowledged[request.request_id]
        elif reply.response is not None:
            assert reply.response.user_intent.id == posts[0]["intent_id"]
        else:
            reply.failed("OUTCOME_UNKNOWN", replayed="true")
    assert acknowledged


@ON_DISK
def test_row_29_the_outcome_cannot_be_written(durable, sandbox):
    """The caller hears OUTCOME_UNKNOWN, nothing new is admitted, and the result is there once the disk is."""
    # A limit of file size stands for the full disk: writes fail, and the signal that comes with it is ignored.
    gateway = durable(wrapper=["env", "--ignore-signal=XFSZ"])
    gateway.create(person()).ok()
    request, other = person(), person()
    sandbox.fault("delay", request.email, delay_ms=800)
    running = gateway.begin(request)
    sandbox.wait_posts(request.email)
    pid = gateway.process.pid
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    try:
        running.reply().failed("OUTCOME_UNKNOWN", sent="maybe")
        gateway.assert_alive()
        gateway.create(other).failed("LEDGER_UNAVAILABLE", sent="no", recovery="RETRY_SAME_ID")
        wait_for(lambda: gateway.health("") == "NOT_SERVING", "health to say no")
        assert gateway.http("/readyz")[0] == 503
        assert gateway.http("/livez")[0] == 200
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    wait_for(lambda: gateway.health("") == "SERVING", "health to say yes")
    assert_row(gateway, sandbox, request, SUCCEEDED)
    gateway.create(other).ok()
    assert_posts(sandbox, request.email, 1)
    gateway.kill()
    gateway.restart()
    assert_row(gateway, sandbox, request, SUCCEEDED)


@pytest.mark.parametrize("durable", ["postgres"], indirect=True)
def test_row_29_the_database_is_away(durable, sandbox, postgres_cluster, postgres_url):
    """The same where the database cannot be reached; what was heard meanwhile is there once it can."""
    proxy = postgres.Proxy(postgres_cluster)
    try:
        gateway = durable(ledger=proxy.url(postgres_url))
        gateway.create(person()).ok()
        request, other = person(), person()
        sandbox.fault("delay", request.email, delay_ms=800)
        running = gateway.begin(request)
        sandbox.wait_posts(request.email)
        proxy.hold()
        proxy.cut()
        running.reply().failed("OUTCOME_UNKNOWN", sent="maybe")
        gateway.create(other).failed("LEDGER_UNAVAILABLE", sent="no", recovery="RETRY_SAME_ID")
        wait_for(lambda: gateway.health("") == "NOT_SERVING", "health to say no")
        assert gateway.http("/readyz")[0] == 503
        assert gateway.http("/livez")[0] == 200
        proxy.hold(False)
        wait_for(lambda: gateway.health("") == "SERVING", "health to say yes")
        gateway.wait_state(request.request_id, "CREATED")
        assert_row(gateway, sandbox, request, SUCCEEDED)
        gateway.create(other).ok()
        assert_posts(sandbox, request.email, 1)
        gateway.stop()
    finally:
        proxy.close()


# -- the files -------------------------------------------------------------------------------------------------------------

@ON_DISK
def test_files_and_what_is_in_them(durable, sandbox, tmp_path):
    """The ledger's files are 0600, and no personal value is in them in clear."""
    gateway = durable()
    requests = [person() for _ in range(5)]
    for request in requests:
        gateway.create(request).ok()
    sandbox.answer(requests[0].email, 400, "")
    gateway.create(same_email(requests[0])).failed("UPSTREAM_REJECTED")
    gateway.kill()  # with the write-ahead log as it was
    directory = tmp_path / "ledger"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name
        data = path.read_bytes().lower()
        for request in requests:
            for value in (request.email, request.phone, request.first_name, request.last_name, request.address1,
                          request.date_of_birth, request.city, request.ip_address, "canary-value"):
                assert value.lower().encode() not in data, f"{path.name} holds personal data"
    gateway.restart()


@ON_DISK
def test_the_directory_is_made(durable, tmp_path):
    """A directory that is missing is made, for its owner alone."""
    gateway = durable(ledger=f"sqlite:{tmp_path}/a/b/ledger.db")
    gateway.create(person()).ok()
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "a" / "b" / "ledger.db").stat().st_mode) == 0o600


def assert_refused(ended, flag):
    assert ended.returncode == 1, ended.stderr[-500:]
    plain = [line for line in ended.stderr.splitlines() if not line.startswith("{")]
    assert len(plain) == 1 and flag in plain[0], ended.stderr[-800:]


@ON_DISK
def test_a_second_process_is_refused(durable):
    """A second process on the same ledger does not start, and the first one serves on."""
    gateway = durable()
    gateway.create(person()).ok()
    assert_refused(gateway.start_once(), "--ledger")
    gateway.create(person()).ok()
    # --check_config does not touch a running server's ledger.
    ended = subprocess.run([str(SERVER), *gateway.arguments(), "--check_config"], capture_output=True, text=True,
                           timeout=PATIENCE + 20, env=gateway.environment, cwd=gateway.directory)
    assert ended.returncode == 0, ended.stderr
    gateway.create(person()).ok()


def test_another_key_is_refused(durable, sandbox):
    """A ledger does not open with another key, and opens again with its own."""
    gateway = durable()
    request = person()
    gateway.create(request).ok()
    gateway.stop()
    good = gateway.ledger_key_file.read_bytes()
    write_secret(gateway.ledger_key_file, secrets.token_bytes(32))
    assert_refused(gateway.start_once(), "--ledger")
    write_secret(gateway.ledger_key_file, good)
    gateway.start()
    assert_row(gateway, sandbox, request, SUCCEEDED)


@ON_DISK
def test_a_file_that_is_no_ledger(durable, tmp_path):
    """A file that is no database is refused."""
    path = tmp_path / "no-ledger.db"
    path.write_bytes(b"this is not a database, and long enough to be looked at" * 100)
    path.chmod(0o600)
    gateway = durable()
    assert_refused(gateway.start_once(ledger=f"sqlite:{path}"), "--ledger")


@ON_DISK
def test_a_ledger_that_cannot_be_opened(durable):
    """A path at which no file can be made is refused."""
    gateway = durable()
    assert_refused(gateway.start_once(ledger="sqlite:/proc/nonexistent/ledger.db"), "--ledger")
    assert_refused(gateway.start_once(ledger="sqlite:/"), "--ledger")


def test_what_only_reads_is_no_commit(durable):
    gateway = durable()
    request = person()
    gateway.create(request).ok()
    gateway.state(request.request_id)  # the metrics of a commit come after its answers, and before the next batch
    # A webhook's receiver, housekeeping and the like are not asked of here, so nothing else writes.
    names = ("userintent_ledger_last_commit_timestamp_seconds", "userintent_ledger_commit_seconds_count")
    before = [gateway.metric(name) for name in names]
    assert all(before), before
    for _ in range(20):
        assert gateway.state(request.request_id) == "CREATED"
    assert [gateway.metric(name) for name in names] == before
