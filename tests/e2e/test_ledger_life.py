"""The ledger's files over their life: new, moved away under the server, lost, replaced by a backup, restored.

POSTs are counted at the sandbox: nothing of this may create anybody twice, unless an operator acknowledged a loss.
"""

import datetime
import json
import os
import shutil
import subprocess

import pytest

from support.check import SUCCEEDED, assert_posts, assert_row
from support.gateway import SERVER, Gateway, clean_environment, write_secret
from support.people import person
from support.process import BIN_DIR, PATIENCE, wait_for

TOOL = BIN_DIR / "userintent-ledger"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger" / "ledger.db"


@pytest.fixture
def durable(sandbox, path):
    made = []

    def make(**flags):
        made.append(Gateway(sandbox, **{"ledger": f"sqlite:{path}", **flags}))
        return made[-1]

    yield make
    for gateway in made:
        gateway.close()


def refusal(gateway, **flags):
    """The one line that a start ends with."""
    ended = gateway.start_once(**flags)
    assert ended.returncode == 1, ended.stderr[-800:]
    plain = [line for line in ended.stderr.splitlines() if not line.startswith("{")]
    assert len(plain) == 1 and "--ledger" in plain[0], ended.stderr[-800:]
    return plain[0]


def tool(path, *words):
    return subprocess.run([str(TOOL), f"--ledger=sqlite:{path}", *words], capture_output=True, text=True,
                          timeout=PATIENCE + 60, env=clean_environment())


def files_of(path):
    """What a clean-up job would take: all but the lock and the socket."""
    return [file for file in path.parent.iterdir()
            if file.name.startswith(path.name) and not file.name.endswith((".lock", ".admin"))]


def warnings(gateway):
    return [entry["warning"] for entry in gateway.log() if "warning" in entry]


def now():
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# -- moved -----------------------------------------------------------------------------------------------------------------

def test_nothing_new_is_sent_while_the_ledger_is_away(durable, sandbox, path, tmp_path):
    gateway = durable()
    before, runs, after = person(), person(), person()
    first = gateway.create(before).ok()
    sandbox.fault("delay", runs.email, delay_ms=1500)
    running = gateway.begin(runs)
    sandbox.wait_posts(runs.email)
    for file in files_of(path):
        file.rename(tmp_path / file.name)
    wait_for(lambda: gateway.health("") == "NOT_SERVING", "health to say no")
    gateway.create(after).failed("LEDGER_UNAVAILABLE", sent="no", recovery="RETRY_SAME_ID")
    assert gateway.http("/readyz")[0] == 503
    assert gateway.metric("userintent_ledger_writable") == 0
    wait_for(lambda: gateway.metric("userintent_ledger_in_place") == 0, "the metric")
    assert any("gone from its path" in line for line in warnings(gateway))
    # The record of what was sent goes on in the open file, and answers.
    running.reply().ok()
    assert gateway.create(before).ok().user_intent == first.user_intent
    for file in files_of(tmp_path / path.name):
        file.rename(path.parent / file.name)
    wait_for(lambda: gateway.health("") == "SERVING", "health to say yes")
    gateway.create(after).ok()
    gateway.kill()
    gateway.restart()
    for request in (before, runs, after):
        assert_row(gateway, sandbox, request, SUCCEEDED)
        assert_posts(sandbox, request.email, 1)


def test_a_lost_ledger_is_not_replaced_by_an_empty_one(durable, sandbox, path):
    gateway = durable()
    request = person()
    gateway.create(request).ok()
    path.unlink()
    (path.parent / "ledger.db-wal").unlink()
    wait_for(lambda: gateway.health("") == "NOT_SERVING", "health to say no")
    gateway.create(person()).failed("LEDGER_UNAVAILABLE")
    gateway.stop()
    said = refusal(gateway)
    assert "is gone" in said and "--ledger_restored=" in said
    assert not path.exists()
    gateway.flags["ledger_restored"] = said.split("--ledger_restored=")[1].split(" ")[0]
    gateway.start()
    assert any("is a backup of" in line for line in warnings(gateway))
    gateway.create(request).ok()
    assert_posts(sandbox, request.email, 2)  # as the operator acknowledged


# -- new, empty ------------------------------------------------------------------------------------------------------------

def test_a_new_ledger_is_told(durable, path):
    """A ledger that is new is a warning in the log, and the metrics count its rows."""
    gateway = durable()
    assert any("is new and knows no request" in line for line in warnings(gateway))
    made_at = gateway.metric("userintent_ledger_made_at_seconds")
    assert abs(made_at - datetime.datetime.now().timestamp()) < PATIENCE + 60
    assert gateway.metric("userintent_ledger_rows") == 0
    assert gateway.metric("userintent_ledger_restored_at_seconds") == 0
    gateway.create(person()).ok()
    wait_for(lambda: gateway.metric("userintent_ledger_rows") == 1, "the row")
    gateway.restart()
    assert gateway.metric("userintent_ledger_rows") == 1
    assert gateway.metric("userintent_ledger_made_at_seconds") == made_at
    assert not any("is new" in line for line in warnings(gateway))


def test_a_ledger_that_must_exist(durable, path):
    """--ledger_must_exist makes no new ledger, and opens one that is there."""
    gateway = durable()
    gateway.stop()
    other = f"sqlite:{path.parent}/other.db"
    assert "--ledger_must_exist" in refusal(gateway, ledger=other, ledger_must_exist=True)
    assert not (path.parent / "other.db").exists()
    gateway.flags["ledger_must_exist"] = True
    gateway.start()


def test_a_file_of_no_bytes_is_refused(durable, path):
    gateway = durable()
    gateway.stop()
    path.write_bytes(b"")
    assert "0 bytes" in refusal(gateway)
    checked = subprocess.run([str(SERVER), *gateway.arguments(), "--check_config"], capture_output=True, text=True,
                             timeout=PATIENCE, env=gateway.environment, cwd=gateway.directory)
    assert checked.returncode == 1 and "0 bytes" in checked.stderr
    assert path.read_bytes() == b""


# -- restored --------------------------------------------------------------------------------------------------------------

class Restored:
    """A backup of a ledger with one person, and a second person whom only the newer ledger knows. The server is down."""

    def __init__(self, gateway, path, tmp_path):
        self.backup = tmp_path / "backup.db"
        self.kept, self.forgotten = person(), person()
        gateway.create(self.kept).ok()
        gateway.stop()
        self.time = now()
        shutil.copy(path, self.backup)
        gateway.start()
        gateway.create(self.forgotten).ok()
        gateway.stop()


def test_a_restored_ledger_is_refused_until_it_is_acknowledged(durable, sandbox, path, tmp_path):
    gateway = durable()
    case = Restored(gateway, path, tmp_path)
    newest = path.read_bytes()
    ended = tool(path, "restore", str(case.backup), f"--ledger_key_file={gateway.ledger_key_file}")
    assert ended.returncode == 0, ended.stderr
    assert "--ledger_restored=" in ended.stdout
    kept = list(path.parent.glob("ledger.db.before-restore-*"))
    assert len(kept) == 1 and kept[0].read_bytes() == newest
    assert oct(path.stat().st_mode & 0o7777) == "0o600"
    assert not (path.parent / "ledger.db-wal").exists() and not (path.parent / "ledger.db.restoring").exists()

    assert f"served it until {case.time[:11]}" in refusal(gateway)
    refusal(gateway, ledger_restored="2001-01-01T00:00:00Z")
    gateway.flags["ledger_restored"] = case.time
    gateway.start()
    assert any("is a backup of" in line for line in warnings(gateway))
    at = datetime.datetime.strptime(case.time, "%Y-%m-%dT%H:%M:%S%z").timestamp()
    assert gateway.metric("userintent_ledger_restored_at_seconds") == at
    assert gateway.create(case.kept).ok().replayed
    assert_posts(sandbox, case.kept.email, 1)
    assert_posts(sandbox, case.forgotten.email, 1)
    gateway.create(person()).ok()
    gateway.restart()
    assert any("is a backup of" in line for line in warnings(gateway))
    # The flag that was left in place says nothing about the next time.
    gateway.stop()
    assert tool(path, "restore", str(case.backup)).returncode == 0
    assert "earlier restore" in refusal(gateway)


def test_a_copy_under_a_left_over_log_is_refused(durable, path, tmp_path):
    """Played into the copy, the log's pages would make one ledger of two."""
    gateway = durable()
    case = Restored(gateway, path, tmp_path)
    gateway.start()
    gateway.create(person()).ok()
    gateway.kill()
    log = path.parent / "ledger.db-wal"
    assert log.stat().st_size > 0
    shutil.copy(case.backup, path)
    before = path.read_bytes(), log.read_bytes()
    assert "(-wal) was written for a newer ledger" in refusal(gateway)
    assert "(-wal)" in refusal(gateway, ledger_restored=case.time)
    looked = tool(path, "stats")
    assert looked.returncode == 1 and "(-wal)" in looked.stderr
    assert (path.read_bytes(), log.read_bytes()) == before
    assert tool(path, "restore", str(case.backup)).returncode == 0
    assert len(list(path.parent.glob("ledger.db.before-restore-*-wal"))) == 1
    gateway.flags["ledger_restored"] = case.time
    gateway.start()
    gateway.create(case.kept).ok()


def test_killed_right_after_its_first_request(durable, path, tmp_path):
    """The ledger that the dead process left is good; the backup from before is not."""
    gateway = durable()
    case = Restored(gateway, path, tmp_path)
    for _ in range(3):
        gateway.start()
        gateway.create(person()).ok()
        gateway.kill()
    gateway.start()
    assert not any("mark" in line or "backup" in line for line in warnings(gateway))
    gateway.create(person()).ok()
    gateway.kill()
    assert tool(path, "restore", str(case.backup)).returncode == 0
    assert "--ledger_restored=" in refusal(gateway)


def test_an_operator_does_not_write_into_a_ledger_that_is_not_acknowledged(durable, sandbox, path, tmp_path):
    gateway = durable()
    lost = person()
    sandbox.answer(lost.email, 500, "")
    gateway.create(lost).failed("OUTCOME_UNKNOWN")
    case = Restored(gateway, path, tmp_path)
    assert tool(path, "restore", str(case.backup)).returncode == 0
    assert tool(path, "stats").returncode == 0
    ended = tool(path, "resolve", lost.request_id, "--caller=local", "--not_created", "--actor=operator",
                 "--evidence=ticket 1")
    assert ended.returncode == 1 and "--ledger_restored" in ended.stderr
    refusal(gateway)


def test_what_restore_refuses(durable, path, tmp_path):
    """restore refuses what is no whole ledger, and changes nothing."""
    gateway = durable()
    case = Restored(gateway, path, tmp_path)
    before = path.read_bytes()
    empty, text, damaged = tmp_path / "empty", tmp_path / "text", tmp_path / "damaged"
    empty.write_bytes(b"")
    text.write_text("this is no ledger\n" * 500)
    bytes_of = bytearray(case.backup.read_bytes())
    bytes_of[8192:8792] = b"\x5a" * 600
    damaged.write_bytes(bytes_of)
    other_key = write_secret(tmp_path / "other.key", os.urandom(48))
    for words, said in [([empty], "0 bytes"), ([text], "cannot be restored"), ([damaged], "damaged"),
                        ([tmp_path / "none"], "cannot find it"), ([tmp_path], "not a regular file"),
                        ([path], "is the ledger itself"), ([case.backup, f"--ledger_key_file={other_key}"], "another key"),
                        ([], "needs a file")]:
        ended = tool(path, "restore", *map(str, words))
        assert ended.returncode in (1, 2) and said in ended.stderr and ended.stderr.count("\n") == 1, ended.stderr
        assert path.read_bytes() == before
        assert not list(path.parent.glob("ledger.db.*restor*")), said
    gateway.start()
    ended = tool(path, "restore", str(case.backup))
    assert ended.returncode == 1 and "a server runs" in ended.stderr
    assert json.loads(tool(path, "--json", "stats").stdout)["succeeded"] == "2"


def test_a_backup_of_a_file_that_is_away_restored_twice(durable, sandbox, path, tmp_path):
    """The server has what the path has not; each restore of that copy needs a word of its own."""
    gateway = durable()
    kept, copy, away = person(), tmp_path / "copy.db", tmp_path / "away.db"
    gateway.create(kept).ok()
    path.rename(away)
    wait_for(lambda: gateway.health("") == "NOT_SERVING", "health to say no")
    assert tool(path, "backup", str(copy)).returncode == 0
    away.rename(path)
    wait_for(lambda: gateway.health("") == "SERVING", "health to say yes")
    gateway.create(person()).ok()
    for _ in range(2):
        gateway.kill()
        assert tool(path, "restore", str(copy)).returncode == 0
        said = refusal(gateway)
        gateway.flags["ledger_restored"] = said.split("--ledger_restored=")[-1].split(" ")[0]
        gateway.start()
        assert gateway.create(kept).ok().replayed
        gateway.create(person()).ok()
    assert_posts(sandbox, kept.email, 1)


def test_a_restore_that_was_cut_off_holds_until_one_is_done(durable, path, tmp_path):
    """Also where a second one fails, and no mark remembers that there was a ledger. The old log stays with its ledger."""
    gateway = durable()
    case = Restored(gateway, path, tmp_path)
    mark = path.with_name(path.name + ".mark")
    mark.unlink()
    # As a kill leaves it between two renames.
    aside = path.with_name(path.name + ".before-restore-20260101T000000.000Z")
    shutil.copy(case.backup, path.with_name(path.name + ".restoring"))
    path.rename(aside)
    log = path.with_name(path.name + "-wal")
    text = tmp_path / "text"
    text.write_text("this is no ledger\n" * 500)
    assert tool(path, "restore", str(text)).returncode == 1
    assert "restore was cut off" in refusal(gateway)
    log.write_bytes(b"x" * 100)
    assert tool(path, "restore", str(case.backup)).returncode == 0
    assert aside.with_name(aside.name + "-wal").read_bytes() == b"x" * 100 and not log.exists()
    assert not list(path.parent.glob("ledger.db.restoring*"))
    gateway.start()
    assert gateway.create(case.kept).ok().replayed


def test_what_root_restores_belongs_to_the_servers_user(durable, path, tmp_path):
    gateway = durable()
    case = Restored(gateway, path, tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    if os.geteuid() == 0:
        os.chown(elsewhere, 65534, 65534)
    assert tool(elsewhere / "ledger.db", "restore", str(case.backup)).returncode == 0
    for file in elsewhere.iterdir():
        assert (file.stat().st_uid, file.stat().st_gid) == (elsewhere.stat().st_uid, elsewhere.stat().st_gid), file.name


def test_a_full_disk_leaves_the_ledger_alone(durable, path, tmp_path):
    """A limit of file size stands for the full disk."""
    gateway = durable()
    case = Restored(gateway, path, tmp_path)
    before = path.read_bytes()
    ended = subprocess.run(["env", "--ignore-signal=XFSZ", "prlimit", "--fsize=8192", str(TOOL), f"--ledger=sqlite:{path}",
                            "restore", str(case.backup)], capture_output=True, text=True, timeout=PATIENCE,
                           env=clean_environment())
    assert ended.returncode == 1 and "cannot write it" in ended.stderr
    assert path.read_bytes() == before and not list(path.parent.glob("ledger.db.*restor*"))


def test_restore_into_an_empty_directory(durable, path, tmp_path):
    """A backup that is restored where no ledger was needs no acknowledgement."""
    gateway = durable()
    case = Restored(gateway, path, tmp_path)
    elsewhere = tmp_path / "elsewhere" / "ledger.db"
    ended = tool(elsewhere, "--json", "restore", str(case.backup))
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["must_be_acknowledged"] is False
    gateway.flags["ledger"] = f"sqlite:{elsewhere}"
    gateway.start()
    assert any("no mark beside it" in line for line in warnings(gateway))
    assert gateway.create(case.kept).ok().replayed
