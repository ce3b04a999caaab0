"""userintent-ledger copy: a ledger with something of everything in it, and what must be true of it wherever it is served."""

import dataclasses
import uuid

from support.check import FAILED, RELEASED, SUCCEEDED, UNKNOWN, assert_posts, assert_row
from support.ledger_tool import Ledger, run
from support.people import again, other_id, person, same_email
from support.process import wait_for
from support.watch import Watch
from support.webhook_door import deliver

DATABASE = {"ledger_single_node": True, "webhook_listen": "127.0.0.1:0"}


class Moving:
    """A file and an empty database that has its tables."""

    def __init__(self, path, url):
        self.path, self.url = path, url
        self.file, self.database = Ledger(path), f"--ledger={url}"
        run(self.database, "migrate").done()

    def words(self, *more):
        return ["copy", f"--from=sqlite:{self.path}", f"--to={self.url}", *more]

    def copy(self, *more, **how):
        return run(*self.words(*more), **how)

    def on_database(self, *words):
        return run("--json", self.database, *words).json()


@dataclasses.dataclass
class Kept:
    """What callers were told."""
    done: object
    intent: object
    rejected: object
    lost: object
    released: object
    settled: object
    settled_intent: str
    used_up: list
    read: object
    token: bytes
    missed: object = None     # created after the token
    running: object = None    # what the process had under way when it was killed
    told: dict = dataclasses.field(default_factory=dict)


def fill(gateway, sandbox, ledger):
    """Every state, an address without attempts left, an operator's deed, a reading, webhooks that wait and that are done."""
    done, rejected, lost, released, settled, read = (person() for _ in range(6))
    stream = Watch(gateway).wait("synced")
    intent = gateway.create(done).ok().user_intent
    stream.wait((done.request_id, "CREATED", "pending"))
    token = stream.close()
    sandbox.answer(rejected.email, 400, "", headers={"Request-Id": "req-400"})
    gateway.create(rejected).failed("UPSTREAM_REJECTED")
    for request in (lost, settled):
        sandbox.answer(request.email, 500, "")
        gateway.create(request).failed("OUTCOME_UNKNOWN")
    settled_intent = str(uuid.uuid4())
    ledger.resolve(settled, f"--created={settled_intent}").done()
    sandbox.answer(released.email, 404, "")
    gateway.create(released).failed("UPSTREAM_MISCONFIGURED")
    used_up = [person()]
    used_up += [same_email(used_up[0]) for _ in range(2)]
    for request in used_up:
        gateway.create(request).ok()
    read_intent = gateway.create(read).ok().user_intent.id
    sandbox.answer_get(read_intent, 200, {"id": read_intent, "status": "converted_to_user", "user_id": "user-77"})
    gateway.read(read.request_id).ok()
    assert deliver(gateway, "hook-done", "nobodys") == 200
    wait_for(lambda: gateway.metric("userintent_webhook_unprocessed") == 0, "a webhook that is done")
    sandbox.get_fault("status", intent.id, times=0, status=503)
    assert deliver(gateway, "hook-waits", intent.id) == 200
    wait_for(lambda: gateway.metric("userintent_webhook_unprocessed") == 1, "a webhook that waits")
    kept = Kept(done, intent, rejected, lost, released, settled, settled_intent, used_up, read, token)
    kept.missed = person()
    gateway.create(kept.missed).ok()
    for request in (done, rejected, lost, released, settled, read, *used_up, kept.missed):
        kept.told[request.request_id] = gateway.get(request.request_id).ok()
    return kept


def leave_running(gateway, sandbox, kept):
    """The process is killed while it waits for Astra."""
    kept.running = person()
    sandbox.fault("hang", kept.running.email, commit=True)
    running = gateway.begin(kept.running)
    sandbox.wait_posts(kept.running.email)
    gateway.kill()
    assert running.reply().raw


def assert_kept(gateway, sandbox, kept):
    """The same answers, and no POST that was not made before."""
    sandbox.clear_faults()
    posts = {request.email: len(sandbox.posts(request.email))
             for request in (kept.done, kept.rejected, kept.lost, kept.settled, kept.running, *kept.used_up)}
    for request_id, told in kept.told.items():
        now = gateway.get(request_id).ok()
        for intent in (each.user_intent for each in (now, told) if each.HasField("user_intent")):
            for field in ("status", "astra_status", "status_time"):  # it may have been read again meanwhile
                intent.ClearField(field)
        assert now == told, f"{now}\nwas {told}"
    repeat = gateway.create(kept.done).ok()
    assert repeat.replayed and repeat.user_intent == kept.intent
    assert_row(gateway, sandbox, kept.done, SUCCEEDED)
    gateway.create(kept.rejected).failed("UPSTREAM_REJECTED", replayed="true", astra_request_id="req-400")
    assert_row(gateway, sandbox, kept.rejected, FAILED, "UPSTREAM_REJECTED")
    assert_row(gateway, sandbox, kept.lost, UNKNOWN, "OUTCOME_UNKNOWN")
    assert_row(gateway, sandbox, kept.running, UNKNOWN, "OUTCOME_UNKNOWN")
    repeat = gateway.create(kept.settled).ok()
    assert repeat.replayed and repeat.user_intent.id == kept.settled_intent
    gateway.create(other_id(kept.done)).failed("PERSON_EXISTS", user_intent_id=kept.intent.id)
    gateway.create(same_email(kept.lost)).failed("EMAIL_UNRESOLVED", unresolved_request_id=kept.lost.request_id)
    gateway.create(again(kept.done, city="Vexmoor Other")).failed("REQUEST_ID_REUSED")
    for request in kept.used_up:
        assert gateway.create(request).ok().replayed
    gateway.create(same_email(kept.used_up[0])).failed("EMAIL_ATTEMPTS_EXHAUSTED")
    for email, count in posts.items():
        assert_posts(sandbox, email, count)
    if kept.released:  # it is sent now
        assert_row(gateway, sandbox, kept.released, RELEASED, "UPSTREAM_MISCONFIGURED")
        del kept.told[kept.released.request_id]
        kept.released = None
