"""userintent-ledger copy: a ledger moves from its file into PostgreSQL, is served there, and never in both places."""

import re
import shlex
import shutil

import pytest

from support.gateway import Gateway
from support.ledger_copy import DATABASE, Moving, assert_kept, fill, leave_running
from support.ledger_tool import run
from support.people import person
from support.process import wait_for
from support.protos import REPO
from support.sandbox import Sandbox
from support.watch import Watch
from support.webhook_door import deliver


@pytest.fixture(scope="module")
def sandbox():
    """One of this module's own: a reading fails while webhooks wait."""
    sandbox = Sandbox()
    yield sandbox
    sandbox.stop()


@pytest.fixture
def moving(tmp_path, postgres_url):
    return Moving(tmp_path / "ledger" / "ledger.db", postgres_url)


@pytest.fixture
def on_file(sandbox, moving):
    gateway = Gateway(sandbox, ledger=f"sqlite:{moving.path}", webhook_listen="127.0.0.1:0", astra_read_rate=200)
    yield gateway
    gateway.close()


@pytest.fixture
def elsewhere(sandbox, moving, on_file):
    """Makes the gateway on the database, with the key of the file."""
    made = []

    def make(**flags):
        made.append(Gateway(sandbox, **{"ledger": moving.url, **DATABASE, "astra_read_rate": 200,
                                        "ledger_key_file": on_file.flags["ledger_key_file"], **flags}))
        return made[-1]

    yield make
    for gateway in made:
        gateway.close()


def assert_no_start(gateway, *words, **flags):
    ended = gateway.start_once(**flags)
    assert ended.returncode == 1, ended.stderr[-800:]
    plain = [line for line in ended.stderr.splitlines() if not line.startswith("{")]
    assert len(plain) == 1 and all(word in plain[0] for word in ("--ledger", *words)), ended.stderr[-800:]


def test_everything_moves(sandbox, moving, on_file, elsewhere, postgres_cluster):
    kept = fill(on_file, sandbox, moving.file)
    moving.copy().refused("a server runs on it")
    leave_running(on_file, sandbox, kept)
    before = moving.file.json("audit"), moving.file.json("stats")
    told = moving.copy("--json").json()
    assert told["was_there"] is False and told["became_unknown"] == "1" and told["resume_tokens_go_on"] is True
    counts = {part["part"]: part["count"] for part in told["parts"]}
    assert counts["requests"] == "11" and counts["audit entries"] == "1" and counts["webhooks"] == "2"
    assert counts["receiver times"] == "1" and counts["keys"] == "1" and int(counts["changes"]) >= 10
    assert moving.on_database("audit")["entries"] == before[0]["entries"]

    gateway = elsewhere()
    # What waited is worked on, once the reading is possible; what is done is known.
    wait_for(lambda: gateway.metric("userintent_webhook_unprocessed") == 1, "the webhook that waits")
    sandbox.review(kept.intent.id, status="approved")
    seen = Watch(gateway, token=kept.token).wait("synced")
    assert (kept.missed.request_id, "CREATED", "pending") in seen.events and "reset" not in seen.events
    assert (kept.done.request_id, "CREATED", "pending") not in seen.events
    sandbox.clear_faults()
    seen.wait((kept.done.request_id, "CREATED", "approved"))
    seen.close()
    wait_for(lambda: gateway.metric("userintent_webhook_unprocessed") == 0, "the webhook that waited is done")
    database = moving.url.partition("?")[0].rpartition("/")[2]
    tries = postgres_cluster.primary.value("SELECT tries FROM userintent.webhook WHERE webhook_id = 'hook-done'", database)
    assert deliver(gateway, "hook-done", "nobodys") == 200
    assert postgres_cluster.primary.sql("SELECT count(*), max(tries) FROM userintent.webhook WHERE webhook_id = 'hook-done' "
                                        "AND due_at IS NULL", database) == [("1", tries)]
    assert_kept(gateway, sandbox, kept)
    assert gateway.create(person()).ok().user_intent.id
    gateway.stop()

    moving.copy().refused("was copied to postgresql", "is served there")
    assert_no_start(on_file, "was copied to postgresql", "is served there")
    assert_no_start(elsewhere(start=False), "another key", ledger_key_file=_other_key(on_file))


def _other_key(gateway):
    path = gateway.directory / "other.key"
    path.write_bytes(b"k" * 48)
    path.chmod(0o600)
    return path


def test_what_it_prints(sandbox, moving, on_file):
    on_file.create(person()).ok()
    on_file.stop()
    said = moving.copy().done().out
    assert said.startswith("copied\n") and "requests" in said and "1, the same on both sides by SHA-256" in said
    assert "go on with the resume tokens" in said and "no start takes the file now" in said


def test_a_database_that_is_not_empty(sandbox, moving, on_file, elsewhere):
    on_file.create(person()).ok()
    on_file.stop()
    other = elsewhere()
    moving.copy().refused("holds a ledger already, or a gateway was started on it")
    other.create(person()).ok()
    other.stop()
    moving.copy().refused("holds a ledger already, or a gateway was started on it")
    on_file.start()  # nothing has happened to the file
    on_file.create(person()).ok()


def test_a_database_without_tables(sandbox, moving, on_file, postgres_cluster):
    on_file.create(person()).ok()
    on_file.stop()
    run("copy", f"--from=sqlite:{moving.path}", f"--to={postgres_cluster.database()}").refused("userintent-ledger migrate makes them")


def test_a_second_file_into_the_same_database(sandbox, moving, on_file, tmp_path):
    on_file.create(person()).ok()
    on_file.stop()
    another = Gateway(sandbox, ledger=f"sqlite:{tmp_path}/another/ledger.db")
    another.create(person()).ok()
    another.close()
    moving.copy().done()
    run("copy", f"--from=sqlite:{tmp_path}/another/ledger.db", f"--to={moving.url}").refused("holds a ledger already")
    run(f"--ledger=sqlite:{tmp_path}/another/ledger.db", "stats").done()  # as it was


def test_a_copy_of_the_file_from_before(sandbox, moving, on_file, tmp_path):
    """Put back in its place, with or without the tool: a start does not take it for the ledger."""
    on_file.create(person()).ok()
    on_file.stop()
    backup = tmp_path / "backup.db"
    moving.file("backup", backup).done()
    moving.copy().done()
    marked = tmp_path / "marked.db"
    shutil.copy(moving.path, marked)
    moving.file("restore", marked).refused("was copied to postgresql")
    shutil.copy(backup, moving.path)
    assert_no_start(on_file, "--ledger_restored")


def trigger(cluster, url, how, body):
    """Something in the database that does not leave the copy alone."""
    cluster.primary.sql(f"CREATE FUNCTION userintent.meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$; {how}",
                        url.partition("?")[0].rpartition("/")[2])


def test_a_value_that_arrives_changed(sandbox, moving, on_file, postgres_cluster):
    request = person()
    on_file.create(request).ok()
    on_file.stop()
    trigger(postgres_cluster, moving.url, "CREATE TRIGGER meddle BEFORE INSERT ON userintent.request FOR EACH ROW "
            "EXECUTE FUNCTION userintent.meddle()", "NEW.http_status := 299; RETURN NEW;")
    moving.copy().refused("the requests in the database are not those of the file: with other values; nothing was copied")
    database = moving.url.partition("?")[0].rpartition("/")[2]
    assert postgres_cluster.primary.value("SELECT count(*) FROM userintent.request", database) == "0"
    on_file.start()
    assert on_file.create(request).ok().replayed


def test_a_commit_that_is_refused(sandbox, moving, on_file, postgres_cluster):
    """The file was marked before; nothing was copied, and it may be served again."""
    request = person()
    on_file.create(request).ok()
    on_file.stop()
    trigger(postgres_cluster, moving.url, "CREATE CONSTRAINT TRIGGER meddle AFTER INSERT ON userintent.request "
            "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION userintent.meddle()",
            "RAISE EXCEPTION 'not now'; RETURN NULL;")
    moving.copy().refused("the database refused: SQLSTATE P0001")
    on_file.start()
    assert on_file.create(request).ok().replayed
    on_file.stop()
    postgres_cluster.primary.sql("DROP TRIGGER meddle ON userintent.request", moving.url.partition("?")[0].rpartition("/")[2])
    moving.copy().done()


def test_undo(sandbox, moving, on_file, postgres_cluster):
    request = person()
    on_file.create(request).ok()
    on_file.stop()
    moving.copy("--undo").refused("was not copied")
    moving.copy().done()
    moving.copy("--undo").refused("DROP SCHEMA userintent CASCADE")
    elsewhere = postgres_cluster.database()
    run("copy", f"--from=sqlite:{moving.path}", f"--to={elsewhere}", "--undo").refused("--to must name that one")
    database = moving.url.partition("?")[0].rpartition("/")[2]
    postgres_cluster.primary.sql("DROP SCHEMA userintent CASCADE", database)
    assert moving.copy("--undo").done().out.startswith("undone")
    on_file.start()
    assert on_file.create(request).ok().replayed
    on_file.stop()
    run(moving.database, "migrate").done()
    moving.copy().done()


def test_a_ledger_that_was_restored(sandbox, moving, on_file, elsewhere, tmp_path):
    """Its changes have numbers that the database does not reach: streams begin anew, and skip nothing."""
    request = person()
    on_file.create(request).ok()
    on_file.stop()
    backup = tmp_path / "backup.db"
    moving.file("backup", backup).done()
    on_file.start()
    on_file.create(person()).ok()
    on_file.stop()
    on_file.flags["ledger_restored"] = moving.file.json("restore", backup)["last_change"]
    on_file.start()
    stream = Watch(on_file, [request]).wait("synced")
    token = stream.close()
    on_file.stop()
    assert moving.copy("--json").json()["resume_tokens_go_on"] is False
    gateway = elsewhere()
    stream = Watch(gateway, [request], token=token).wait("synced")
    assert stream.events[0] == "reset" and (request.request_id, "CREATED", "pending") in stream.events
    stream.close()
    assert gateway.metric("userintent_ledger_restored_at_seconds") > 0


def test_the_page(sandbox, moving, on_file, elsewhere):
    """The commands of docs/replicas.md, one after the other, with this test's places in the place of the page's."""
    request = person()
    on_file.create(request).ok()
    on_file.stop()
    section = (REPO / "docs" / "replicas.md").read_text().partition("## Moving from SQLite")[2].partition("\n## ")[0]
    commands = re.findall(r"^ *\$ userintent-ledger (.*)$", section, re.M)
    assert len(commands) == 3
    for command in commands:
        words = shlex.split(command.replace("$URL", f"'{moving.url}'").replace("data/ledger.db", str(moving.path)))
        run(*words).done()
    assert elsewhere().create(request).ok().replayed


@pytest.mark.parametrize(("words", "why"), [
    ([], "copy needs --from=sqlite:PATH"),
    (["--from=sqlite:/tmp/x.db"], "copy needs --to=postgresql://"),
    (["--from=sqlite:/tmp/x.db", "--to=postgresql://u:secret@h/d"], "password"),
    (["--ledger=sqlite:/tmp/x.db", "--from=sqlite:/tmp/x.db"], "instead of --ledger"),
])
def test_wrong_usage(words, why):
    run("copy", *words).refused(why, code=2)


def test_no_ledger(moving):
    moving.copy().refused("there is no ledger at")
