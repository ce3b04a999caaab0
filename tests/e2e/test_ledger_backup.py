"""userintent-ledger backup and check: beside a server under load, and on the file when none runs."""

import os
import pathlib
import shutil
import signal
import stat
import subprocess
import threading
import time
import uuid

import pytest

from support.check import SUCCEEDED, UNKNOWN, assert_posts, assert_row
from support.gateway import clean_environment
from support.ledger_tool import BESIDE, TOOL, Down, lose, run
from support.people import other_id, person
from support.process import PATIENCE, wait_for


@pytest.fixture
def copy(tmp_path):
    return tmp_path / "copies" / "copy.db"


@pytest.fixture(autouse=True)
def directory(copy):
    copy.parent.mkdir()
    yield
    assert [path.name for path in copy.parent.iterdir() if "partial" in path.name] == []


class Load:
    """Callers that create people one after the other, within a with block."""

    def __init__(self, gateway, threads=4):
        self.gateway = gateway
        self.made, self.failures, self.slowest = [], [], 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def _run(self):
        while not self._stop.is_set():
            request, begun = person(), time.monotonic()
            reply = self.gateway.create(request)
            self.slowest = max(self.slowest, time.monotonic() - begun)
            if reply.response is None or reply.response.replayed:
                self.failures.append(reply)
            else:
                self.made.append((request, reply.response.user_intent.id))

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        wait_for(lambda: len(self.made) >= 20 or self.failures, "calls")
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()


@BESIDE
def test_a_copy_is_a_ledger_of_its_own(durable, ledger, sandbox, copy, beside):
    gateway = durable()
    created, lost = person(), lose(gateway, sandbox, person())
    intent = gateway.create(created).ok().user_intent.id
    with Down(gateway, beside):
        told = ledger.json("backup", str(copy))
        assert told["path"] == str(copy) and told["copy"]["requests"] == "2"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    checked = run("--json", "check", str(copy)).json()
    assert checked == told["copy"] and checked["email_addresses"] == "2" and checked["schema_version"] == 9
    assert checked["key"] == ledger.json("stats")["keys"][0]["key"]
    assert "a whole ledger" in run("backup", "--check", str(copy)).done().out

    # In its own place it answers as the ledger did.
    other = durable(ledger=f"sqlite:{copy}", ledger_key_file=gateway.ledger_key_file)
    assert other.create(created).ok().user_intent.id == intent
    assert_row(other, sandbox, created, SUCCEEDED)
    assert_row(other, sandbox, lost, UNKNOWN, "OUTCOME_UNKNOWN")
    other.create(other_id(created)).failed("PERSON_EXISTS", user_intent_id=intent)
    assert_posts(sandbox, created.email, 1)


def test_a_backup_under_load_loses_no_call(durable, ledger, sandbox, copy):
    gateway = durable()
    with Load(gateway) as load:
        before = len(load.made)
        for number in range(5):
            ledger("backup", f"{copy}-{number}").done()
        wait_for(lambda: len(load.made) >= before + 20 or load.failures, "calls during the backups")
    assert not load.failures
    for request, intent in load.made:
        assert_posts(sandbox, request.email, 1)
    assert gateway.metric("userintent_ledger_commit_failures_total") == 0
    # The first copy holds everything that was answered before it was begun.
    gateway.stop()
    other = durable(ledger=f"sqlite:{copy}-0", ledger_key_file=gateway.ledger_key_file)
    for request, intent in load.made[:before]:
        repeat = other.create(request).ok()
        assert repeat.replayed and repeat.user_intent.id == intent
        assert_posts(sandbox, request.email, 1)


def test_a_server_that_dies_during_a_backup_loses_nothing(durable, ledger, sandbox, copy):
    gateway = durable()
    with Load(gateway) as load:
        pass
    tool = subprocess.Popen([str(TOOL), f"--ledger=sqlite:{ledger.path}", "backup", str(copy)],
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=clean_environment())
    gateway.kill()
    tool.wait(PATIENCE)
    tool.stderr.close()
    gateway.restart()
    for request, intent in load.made:
        assert gateway.create(request).ok().user_intent.id == intent
        assert_posts(sandbox, request.email, 1)
    for path in copy.parent.iterdir():
        if "partial" in path.name:  # nothing, and nobody takes it for something
            path.unlink()


def test_what_cannot_be_made_is_said_in_one_line(durable, ledger, copy, tmp_path):
    gateway = durable()
    gateway.create(person()).ok()
    copy.write_text("somebody's")
    ledger("backup", str(copy)).refused("is there already")
    assert copy.read_text() == "somebody's"
    ledger("backup", str(ledger.path)).refused("is there already")
    ledger("backup", str(copy.parent / "none" / "copy.db")).refused("No such file or directory")
    ledger("backup", f"{copy.parent}/").refused("must name a file", code=2)
    ledger("backup").refused("needs a file", code=2)
    ledger("backup", "a", "b").refused("too many", code=2)
    ledger("backup", "/proc/copy.db").refused("cannot make a file there")
    # A relative path is the caller's, not the server's.
    ledger("backup", "relative.db", cwd=tmp_path).done()
    assert (tmp_path / "relative.db").exists()
    said = [entry for entry in gateway.log() if entry.get("event") in ("ledger_backed_up", "ledger_not_backed_up")]
    assert [entry["event"] for entry in said][-1] == "ledger_backed_up" and len(said) == 6
    gateway.create(person()).ok()
    assert list(copy.parent.iterdir()) == [copy]


@pytest.mark.skipif(not os.path.exists("/dev/shm"), reason="no second file system")
def test_a_full_disk(durable, ledger, copy):
    """The disk of the copies has no room: nothing is left there, and the ledger on its own disk goes on."""
    gateway = durable()
    with Load(gateway):
        pass
    disk = pathlib.Path("/dev/shm") / f"ledger-backup-{uuid.uuid4()}"
    disk.mkdir()
    try:
        space = os.statvfs(disk)
        if space.f_bavail * space.f_frsize < (128 << 20):
            ledger("backup", str(disk / "copy.db")).refused("MiB free")
            assert list(disk.iterdir()) == []
        else:
            ledger("backup", str(disk / "copy.db")).done()
    finally:
        shutil.rmtree(disk)
    gateway.create(person()).ok()


def test_check_refuses_what_is_no_backup(durable, ledger, copy, tmp_path):
    gateway = durable()
    gateway.create(person()).ok()
    run("check", str(ledger.path)).refused("log beside it")
    run("check", str(tmp_path / "none")).refused("No such file")
    run("check", str(tmp_path)).refused("is no file")
    copy.write_bytes(b"")
    run("check", str(copy)).refused("some other program's database")
    # The file of a running server without its log: a ledger as of the time when the log was last copied into it. Only
    # its numbers tell; the mark beside the ledger is what keeps it from taking the ledger's place unnoticed.
    shutil.copy(ledger.path, f"{copy}.plain")
    assert run("--json", "check", f"{copy}.plain").json()["requests"] == "0"
    copy.unlink()
    ledger("backup", str(copy)).done()
    data = copy.read_bytes()
    copy.write_bytes(data[:len(data) // 2])
    run("check", str(copy)).refused("ledger")


def test_a_backup_does_not_upgrade_the_ledger(durable, ledger, copy):
    """The copy that is made before an upgrade is for the program that was there before."""
    gateway = durable()
    gateway.create(person()).ok()
    gateway.stop()
    before = ledger.path.read_bytes()
    ledger("backup", str(copy)).done()
    assert ledger.path.read_bytes() == before


def test_a_tool_that_is_interrupted_leaves_no_copy(durable, ledger, copy):
    gateway = durable()
    with Load(gateway):
        for _ in range(20):
            tool = subprocess.Popen([str(TOOL), f"--ledger=sqlite:{ledger.path}", "backup", str(copy)],
                                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=clean_environment())
            time.sleep(0.02)
            tool.send_signal(signal.SIGINT)
            tool.wait(PATIENCE)

            def settled():
                names = [path.name for path in copy.parent.iterdir()]
                return not any("partial" in name for name in names)
            wait_for(settled, "the copy to be given up or finished")
            copy.unlink(missing_ok=True)
    gateway.stop()
