"""Lives a plan through: the real gateway on one ledger, killed and restarted, in front of a real sandbox that
fails; two callers with client certificates. Gives the history; judges nothing."""

import asyncio
import contextlib
import json
import pathlib
import random
import re
import time
import unittest.mock
import uuid

import grpc
import grpc.aio

from support import errors
from support.gateway import CHANNEL_OPTIONS, Gateway
from support.people import PERSON
from support.process import free_port, write_secret
from support.protos import pb, pb_grpc
from support.sandbox import Sandbox

from histories import leaks, ledgers
from histories.plan import CALLERS
from histories.record import History, key_of

UPSTREAM_TIMEOUT = 0.5
HOOK_PATH = "/astra/webhooks"
_STATES = ("", "SENDING", "SUCCEEDED", "FAILED", "UNKNOWN", "RELEASED")  # by their number in the ledger
_PEOPLE = tuple(PERSON["first_name"] + ending for ending in ("", "ne", "nette", "na", "nia", "nova"))

# `sent` is that of the id: one whose earlier try was refused by Astra may be refused here next. The table of support.errors
# knows single refusals only; what `sent` may be in a history is for the checker to say.
_TABLE = {reason: (row[0], row[1] | {"yes", "maybe"}, *row[2:]) if reason not in
          ("MALFORMED_REQUEST", "UNKNOWN_FIELDS", "FIELD_INVALID", "REQUEST_ID_REUSED") else row
          for reason, row in errors.TABLE.items()}


def message(spec, *, shout=False, **more):
    metadata = {"customer_ref": spec.ref, "canary_key": "canary-value-1"}
    if spec.full_metadata:  # no room for the gateway's own key
        metadata.update((f"canary_key.{number}", "canary-value") for number in range(25 - len(metadata)))
    person = {**PERSON, "first_name": _PEOPLE[spec.person], "metadata": metadata,
              "request_id": spec.request_id.upper() if shout else spec.request_id,
              "email": spec.email.upper() if shout else spec.email}
    if spec.unverified:
        del person["ssn_last_four"]
        person["verification_type"] = pb.VERIFICATION_TYPE_UNVERIFIED
    request = pb.CreateUserIntentRequest(**person)
    for name, value in more.items():
        setattr(request, name, value)
    return request


def _when(stamp):
    """In nanoseconds: a repeat must show the very same time."""
    return stamp.seconds * 10**9 + stamp.nanos


def _budget(attempts):
    return {"min": attempts.used_min, "max": attempts.used_max, "limit": attempts.limit}


def _ok(answer):
    out = {"replayed": answer.replayed, "rid": answer.astra_request_id, **_budget(answer.attempts)}
    if answer.HasField("user_intent"):
        intent = answer.user_intent
        out.update(id=intent.id, status=intent.status, word=intent.astra_status, at=_when(intent.create_time))
    return out


def _row(creation):
    row = {"state": pb.CreationState.Name(creation.state).removeprefix("CREATION_STATE_"),
           "rid": creation.astra_request_id, "attempt": creation.gateway_attempt_id,
           "created": _when(creation.create_time), "updated": _when(creation.update_time),
           "by": creation.superseded_by_request_id, **_budget(creation.attempts)}
    if creation.HasField("user_intent"):
        row.update(id=creation.user_intent.id, word=creation.user_intent.astra_status,
                   at=_when(creation.user_intent.create_time))
    if creation.HasField("error"):
        row.update(reason=creation.error.reason, meta=dict(creation.error.metadata))
    return row


# The callers meet at the same addresses all the time, which looks like probing.
POLICY = {"version": 1, "callers": [
    {"name": name, "methods": ["CreateUserIntent", "GetCreation", "GetUserIntent", "WatchUserIntents"],
     "probe_rate": {"per_second": 100_000, "burst": 1_000_000}}
    for name in ("spiffe://example.test/a", "b.example.test")]}


class Episode:
    def __init__(self, plan, authority, ledger):
        self.plan = plan
        self.history = History(plan.seed, specs={
            spec.ref: {"caller": spec.caller, "id": spec.request_id, "email": spec.email.lower(),
                       "person": spec.person} for spec in plan.specs.values()})
        self.authority = authority
        self.sandbox = Sandbox(**plan.sandbox_flags)
        key, certificate = authority.server
        self.gateway = Gateway(
            self.sandbox, start=False, tls_cert_file=certificate, tls_key_file=key,
            tls_client_ca_file=authority.ca_file, upstream_timeout=f"{UPSTREAM_TIMEOUT * 1000:.0f}ms",
            connect_timeout="400ms", drain_timeout="5s", reflection="false", astra_read_rate=500,
            webhook_listen=f"127.0.0.1:{free_port()}", **plan.gateway_flags)
        self.gateway.flags["policy_file"] = write_secret(self.gateway.directory / "policy.json", json.dumps(POLICY))
        self.ledger = ledgers.KINDS[ledger](self.gateway.directory)
        self.gateway.flags.update(self.ledger.flags)
        self.credentials = {
            caller: grpc.ssl_channel_credentials(authority.ca_file.read_bytes(), key.read_bytes(),
                                                 certificate.read_bytes())
            for caller, (key, certificate) in authority.callers.items()}
        self.up = asyncio.Event()
        self.stubs = {}
        self.channels = []
        self.unresolved = {}        # (caller, address) -> request_id
        self.held_until = 0.0
        self.number = 0
        self.output = []            # of processes that are gone

    # -- processes -----------------------------------------------------------------------------------------------------

    def _connect(self):
        options = [*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", "localhost"),
                   ("grpc.initial_reconnect_backoff_ms", 100)]
        for caller in CALLERS:
            made = [grpc.aio.secure_channel(self.gateway.address, self.credentials[caller], options)
                    for _ in range(2)]
            self.channels += made
            self.stubs[caller] = [pb_grpc.UserIntentServiceStub(channel) for channel in made]
        self.up.set()

    async def start(self):
        self.sandbox.webhooks(f"http://{self.gateway.flags['webhook_listen']}{HOOK_PATH}", retry_ms=100, retries=6,
                              timeout_ms=3000)
        await asyncio.to_thread(self.gateway.start)
        self._connect()

    async def _restart(self, how, flags):
        self.up.clear()
        if how == "SIGKILL":
            await asyncio.to_thread(self.gateway.kill)
        else:
            try:
                await asyncio.to_thread(self.gateway.stop)
            except AssertionError as error:
                self.history.process.append(f"SIGTERM: {str(error)[:600]}")
        self._keep_output()
        self.gateway.flags.update(flags)
        await asyncio.to_thread(self.gateway.start)
        self._connect()

    def _keep_output(self):
        text = self.gateway.new_output()
        self.output.append(text)
        for line in text.splitlines():
            if '"event":"bug"' in line.replace(" ", "") or re.match(r"(terminate called|[A-Za-z/_.]+:\d+: .*Assert)",
                                                                    line):
                self.history.process.append(f"the log says: {line[:300]}")
        self._search(text.encode("utf-8", "surrogateescape"), "log or metrics")

    def _search(self, data, where):
        self.history.leaks += [f"{where}: {what}" for what in leaks.find(data)]

    def _search_ledger(self):
        for path in self.ledger.files():
            with contextlib.suppress(FileNotFoundError):  # a database removes some of its files while it runs
                self._search(path.read_bytes(), path.name)

    # -- chaos ---------------------------------------------------------------------------------------------------------

    async def _chaos(self, what, *more):
        if what == "faults":
            await asyncio.to_thread(self.sandbox.clear_faults)
            for fault in more[0]:
                await asyncio.to_thread(self.sandbox.call, "POST", "/faults", fault)
        elif what == "hooks":
            await asyncio.to_thread(self.sandbox.clear_webhook_faults)
            for fault in more[0]:
                await asyncio.to_thread(self.sandbox.call, "POST", "/webhooks/faults", fault)
        elif what == "forge":
            await asyncio.to_thread(self._forge, *more)
        elif what == "drop":
            await asyncio.to_thread(self.sandbox.drop_connections)
        elif what == "listener":
            mode, seconds = more
            await asyncio.to_thread(self.sandbox.listener, mode)
            await asyncio.to_thread(self.sandbox.drop_connections)
            await asyncio.sleep(seconds)
            await asyncio.to_thread(self.sandbox.listener, "accept")
        else:
            assert what == "restart"
            await self._restart(*more)

    def _forge(self, whose, which):
        """A webhook that names a true attempt and another request's intent, and is signed with a key that is not ours."""
        posts = [post for post in self.sandbox.accounting()["posts"] if post["attempt_id"]]
        intents = [post["intent_id"] for post in posts if post["intent_id"]]
        if not intents:
            return
        self.sandbox.send_webhook("", wait=False, key="wrong", webhook_id=str(uuid.uuid4()),
                                  attempt_id=posts[int(whose * len(posts))]["attempt_id"],
                                  resource_id=intents[int(which * len(intents))])

    # -- calls ---------------------------------------------------------------------------------------------------------

    async def _finish(self, call, entry, cancel_after=None, keep=True):
        """Waits for the call and writes down what came of it."""
        entry["t0"] = time.time()
        try:
            if cancel_after is not None:
                asyncio.get_running_loop().call_later(cancel_after, call.cancel)
            answer = await call
            if isinstance(answer, pb.GetCreationResponse):
                entry["out"] = {"row": _row(answer.creation)}
            else:
                entry["out"] = {"ok": _ok(answer)}
        except asyncio.CancelledError:
            if not call.cancelled():
                raise
            entry["out"] = {"bare": "CANCELLED"}
        except grpc.aio.AioRpcError as error:
            entry["out"] = self._error(error)
        entry["t1"] = time.time()
        if keep:
            self.history.calls.append(entry)
        return entry

    def _error(self, error):
        trailers = list(error.trailing_metadata() or ())
        if not any(key == "grpc-status-details-bin" for key, _ in trailers):
            return {"bare": error.code().name, "text": (error.details() or "")[:300]}
        try:
            with unittest.mock.patch.dict(errors.TABLE, _TABLE):
                decoded = errors.decode(error)
        except AssertionError as broken:
            return {"broken": str(broken)[:300]}
        spoken = b"\n".join([str(error.details()).encode(), *(v if isinstance(v, bytes) else v.encode()
                                                              for _, v in trailers)])
        if leaks.find(spoken):
            self.history.leaks.append(f"an error with reason {decoded.reason}")
        if decoded.reason == "REQUEST_NOT_FOUND":
            return {"row": None}
        return {"error": {"reason": decoded.reason, "code": decoded.code.name, "meta": decoded.metadata,
                          "retry": decoded.retry_after}}

    def _entry(self, phase, spec, kind, **more):
        self.number += 1
        return {"n": self.number, "phase": phase, "caller": spec.caller, "id": spec.request_id, "ref": spec.ref,
                "kind": kind, **more}

    async def create(self, phase, spec, *, stub=0, kind="create", supersedes="", allow_repeat=False, deadline=5.0,
                     cancel_after=None, shout=False):
        request = message(spec, shout=shout, allow_repeat=allow_repeat, supersedes_request_id=supersedes,
                          validate_only=kind == "validate")
        entry = self._entry(phase, spec, kind, deadline=round(deadline, 4))
        if supersedes:
            entry["supersedes"] = supersedes
        call = self.stubs[spec.caller][stub].CreateUserIntent(request, timeout=deadline)
        await self._finish(call, entry, cancel_after)
        error = entry["out"].get("error")
        if error and error["reason"] == "OUTCOME_UNKNOWN":
            self.unresolved[spec.caller, spec.email] = spec.request_id
        elif error and "unresolved_request_id" in error["meta"]:
            self.unresolved[spec.caller, spec.email] = error["meta"]["unresolved_request_id"]
        elif error and error["reason"] in ("UPSTREAM_RATE_LIMITED", "UPSTREAM_SUSPENDED"):
            # Callers wait as they are told, or a second of it would eat a whole history. Not all, and not for long.
            self.held_until = time.monotonic() + min(error["retry"], 0.25)
        return entry

    async def get(self, phase, spec, stub=0, keep=True):
        entry = self._entry(phase, spec, "get")
        call = self.stubs[spec.caller][stub].GetCreation(pb.GetCreationRequest(request_id=spec.request_id), timeout=10)
        return await self._finish(call, entry, keep=keep)

    async def _planned(self, call, dice):
        spec = call.spec
        if call.wait_for_server:
            await self.up.wait()
        wait = self.held_until - time.monotonic()
        if wait > 0 and dice.random() < 0.95:
            await asyncio.sleep(wait)
        stub = dice.randrange(2)
        if call.kind == "get":
            await self.get("run", spec, stub)
            return
        supersedes = ""
        if call.supersede < 0.7:
            supersedes = self.unresolved.get((spec.caller, spec.email), "")
            if supersedes == spec.request_id:
                supersedes = ""
        elif call.supersede < 0.73:
            supersedes = "00000000-0000-4000-8000-000000000000"
        entry = await self.create("run", spec, stub=stub, kind=call.kind, supersedes=supersedes,
                                  allow_repeat=call.allow_repeat, deadline=call.deadline,
                                  cancel_after=call.cancel_after, shout=call.shout)
        if "error" in entry["out"] and entry["out"]["error"]["retry"]:
            await asyncio.sleep(dice.random() * 0.06)

    async def run(self):
        """All of the plan's steps, `at_once` calls in flight."""
        self.begun = time.monotonic()
        gate = asyncio.Semaphore(self.plan.at_once)
        dice = random.Random(self.plan.seed + 1)
        tasks, chaos = set(), asyncio.Queue()

        async def disturb():
            while (event := await chaos.get()) is not None:
                await self._chaos(*event)

        async def one(call):
            try:
                await self._planned(call, dice)
            finally:
                gate.release()

        async def launch():
            for step in self.plan.steps:
                for event in step.chaos:
                    chaos.put_nowait(event)
                    if event[0] == "restart":
                        while not chaos.empty():  # it falls among these calls, not among all
                            await asyncio.sleep(0.005)
                for call in step.calls:
                    await gate.acquire()
                    task = asyncio.create_task(one(call))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
            chaos.put_nowait(None)

        # A disturber that failed leaves calls waiting for a server that never comes.
        both = [asyncio.create_task(launch()), asyncio.create_task(disturb())]
        try:
            await asyncio.gather(*both)
            await asyncio.gather(*tasks)
        finally:
            for task in [*both, *tasks]:
                task.cancel()

    # -- afterwards ----------------------------------------------------------------------------------------------------

    async def heal(self):
        await asyncio.to_thread(self.sandbox.clear_faults)
        await asyncio.to_thread(self.sandbox.clear_webhook_faults)
        await asyncio.to_thread(self.sandbox.listener, "accept")

    async def quiet(self):
        await self._nothing_is_suspended()
        await self._nothing_runs()
        await self._no_webhook_waits()
        await self._nothing_is_sending()

    async def _nothing_is_sending(self):
        """Rows of a process that was killed: the next one gives them up, at once or once it has fenced the dead one."""
        end = time.monotonic() + 60
        while left := await asyncio.to_thread(self.ledger.sending):
            if time.monotonic() > end:
                self.history.process.append(f"after 60 s of peace {left} rows are SENDING")
                return
            await asyncio.sleep(0.1)

    async def _nothing_is_suspended(self):
        """A probe closes the breaker, within the half minute that is the longest it waits."""
        end = time.monotonic() + 90
        while not (await asyncio.to_thread(self.gateway.metrics))['userintent_upstream_breaker_state{state="closed"}']:
            if time.monotonic() > end:
                self.history.process.append("after 90 s of peace the breaker is open")
                return
            await asyncio.sleep(0.1)

    async def _no_webhook_waits(self):
        """At the sandbox, which sends its last ones when statuses change, nor in the gateway's queue."""
        await asyncio.sleep(1)
        # One that waits for the next of its intent (reorder) may wait for ever: here is the next.
        waiting = [one for one in await asyncio.to_thread(self.sandbox.sent_webhooks)
                   if not one["done"] and not one["tries"]]
        for intent in {one["intent_id"] for one in waiting}:
            await asyncio.to_thread(self.sandbox.send_webhook, intent, wait=False)
        # A webhook that was tried in vain is tried again when it is twice as old, give or take a fifth; and on a busy
        # machine one more GET may not get its connection in time.
        peace = max(300, 4 * (time.monotonic() - self.begun))
        end = time.monotonic() + peace
        while True:
            summary = await asyncio.to_thread(self.sandbox.webhook_summary)
            metrics = await asyncio.to_thread(self.gateway.metrics)
            unprocessed = metrics["userintent_webhook_unprocessed"]
            if summary["waiting"] == 0 and unprocessed == 0:
                return
            if time.monotonic() > end:
                self.history.process.append(f"after {peace:.0f} s of peace {summary['waiting']} webhooks wait at the sandbox, "
                                            f"{unprocessed} at the gateway")
                return
            await asyncio.sleep(0.05)

    async def _nothing_runs(self):
        """At the gateway, and then at the sandbox. Answers that are late have the time of the longest delay."""
        begun = time.monotonic()
        end = begun + 30
        dropped = False
        while True:
            metrics = await asyncio.to_thread(self.gateway.metrics)
            running = sum(value for name, value in metrics.items() if name.split("{")[0] in
                          ("userintent_calls_in_flight", "userintent_upstream_posts_in_flight"))
            late = metrics["userintent_late_exchanges"]
            summary = await asyncio.to_thread(self.sandbox.summary)
            if running == 0 and late == 0 and summary["in_progress"] == 0:
                return
            if running == 0 and not dropped and time.monotonic() > begun + 2:
                # A POST that hangs until its client leaves, on a connection that is kept: the stream's end may wait.
                dropped = True
                await asyncio.to_thread(self.sandbox.drop_connections)
            if time.monotonic() > end:
                self.history.process.append(f"after 30 s of peace {running} calls or POSTs run at the gateway, {late} late, "
                                            f"{summary['in_progress']} at the sandbox")
                return
            await asyncio.sleep(0.02)

    async def _all(self, jobs):
        gate = asyncio.Semaphore(min(64, self.gateway.flags["max_in_flight"] // 2))

        async def one(job):
            async with gate:
                return await job()
        return await asyncio.gather(*(one(job) for job in jobs))

    def _keys(self):
        """One spec of every (caller, id) that was really used."""
        used = {}
        for call in self.history.calls:
            used.setdefault(key_of(call["caller"], call["id"]), self.plan.specs[call["ref"]])
        return used

    async def snapshot(self, when):
        await self.quiet()
        used = self._keys()
        entries = await self._all([lambda spec=spec: self.get(when, spec, keep=False) for spec in used.values()])
        summary = await asyncio.to_thread(self.sandbox.summary)
        rows = {}
        for key, entry in zip(used, entries):
            if "row" in entry["out"]:
                rows[key] = entry["out"]["row"]
            else:
                self.history.process.append(f"GetCreation in the quiet failed: {entry['out']}")
        self.history.snapshots.append({"when": when, "rows": rows, "posts": summary["posts"],
                                       "at": time.time()})

    async def repeat(self, phase):
        """Every content of every id once more, the ids of one address one after the other. `again` leaves out the ids
        without a record: a refusal that was right a moment ago is right again."""
        rows = self.history.snapshots[-1]["rows"]
        refs = {}
        for call in self.history.calls:
            if call["phase"] == "run" and call["kind"] == "create" and (
                    phase == "repeat" or rows.get(key_of(call["caller"], call["id"]))):
                refs.setdefault(self.plan.specs[call["ref"]].email, {})[call["ref"]] = None

        async def address(names):
            for ref in names:
                await self.create(phase, self.plan.specs[ref], deadline=20.0)
        await self._all([lambda names=names: address(names) for names in refs.values()])

    def account(self):
        """The sandbox's account, with the times from its access log. `begun` is the status of an answer that it began
        to send; the account's is 0 where the client left before the answer's end."""
        told = self.sandbox.accounting()
        times = {}
        for line in self.sandbox.process.lines("stderr"):
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if isinstance(entry, dict) and "seq" in entry and "ms" in entry:
                    whole, _, fraction = entry["time"].rstrip("Z").partition(".")
                    end = _epoch(whole) + float("0." + (fraction or "0"))
                    times[entry["seq"]] = (end - entry["ms"] / 1000, end, entry["status"])
        refs = {}
        for post in told["posts"]:
            body = post.pop("body", None)
            post.pop("headers", None)
            post.pop("path", None)
            metadata = body.get("metadata") if isinstance(body, dict) else None
            post["ref"] = metadata.get("customer_ref") if isinstance(metadata, dict) else None
            refs[post["seq"]] = post["ref"]
            post["email"] = post["email"].lower()
            post["t0"], post["t1"], post["begun"] = times.get(post["seq"], (None, None, 0))
            self.history.posts.append(post)
        for intent in told["intents"]:
            self.history.intents.append({"id": intent["id"], "email": intent["email"].lower(), "post": intent["post"],
                                         "ref": refs.get(intent["post"])})

    def proofs(self):
        """What the sandbox sent, and what the ledger of the stopped gateway made of it."""
        for one in self.sandbox.sent_webhooks():
            kept = {name: one[name] for name in ("webhook_id", "webhook_type", "resource_id", "attempt_id", "copy", "key",
                                                 "lost", "done")}
            self.history.sent.append({**kept, "answers": [tried["status"] for tried in one["tries"] or ()]})
        callers = {"uri:spiffe://example.test/a": "a", "dns:b.example.test": "b"}
        for name, resource, attempt, waits, result in self.ledger.rows(
                "webhook_id, resource_id, attempt_id, due_at IS NOT NULL, result", "webhook"):
            self.history.hooks.append({"id": name, "resource": resource, "waits": bool(waits), "result": result,
                                       "attempt": attempt or ""})
        for at, actor, action, caller, request_id, before, after, evidence in self.ledger.rows(
                "at, actor, action, caller, request_id, from_state, to_state, evidence", "audit ORDER BY seq"):
            self.history.audit.append({"at": at / 1e6, "actor": actor, "action": action, "evidence": evidence,
                                       "key": key_of(callers[caller], request_id),
                                       "from": _STATES[before], "to": _STATES[after]})
        for caller, request_id, claimed, intent, action in self.ledger.rows(
                "caller, request_id, claimed_state, claimed_intent, action", "conflict"):
            self.history.conflicts.append({"key": key_of(callers[caller], request_id),
                                           "claimed": _STATES[claimed], "intent": intent, "action": action})

    async def close(self):
        for channel in self.channels:
            await channel.close()

    def end(self):
        try:
            if not self.gateway.stopped:
                self.gateway.kill()
        finally:
            with contextlib.suppress(OSError):
                self.gateway._directory.cleanup()
            self.ledger.close()
            self.sandbox.stop()

    async def live(self):
        await self.start()
        await self.run()
        await self.heal()
        await self.snapshot("quiet")
        self._search_ledger()
        await self._restart("SIGTERM", {})  # nothing runs, so nothing may be left when it drains
        await self.repeat("repeat")
        await self.snapshot("repeated")
        await self._restart("SIGKILL", {})
        await self.repeat("again")
        await self.snapshot("last")
        self._search_ledger()
        await self.close()
        try:
            await asyncio.to_thread(self.gateway.stop)
        except AssertionError as error:
            self.history.process.append(f"SIGTERM: {str(error)[:600]}")
        self._keep_output()
        self._search_ledger()
        self.account()
        self.proofs()
        return self.history


def _epoch(text):
    import calendar
    return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))


def live(plan, authority, ledger="sqlite"):
    """`ledger`: one of ledgers.KINDS."""
    async def everything():
        episode = Episode(plan, authority, ledger)
        try:
            return await asyncio.wait_for(episode.live(), 300 + 0.2 * sum(len(step.calls) for step in plan.steps))
        finally:
            with contextlib.suppress(Exception):
                await episode.close()
            episode.end()
    return asyncio.run(everything())


class Authority:
    """One CA, the gateway's certificate and one for each caller; `a` is known by a URI, `b` by a DNS name."""

    def __init__(self):
        from support.certs import Authority as Certificates
        self._ca = Certificates("histories CA")
        self.ca_file = pathlib.Path(self._ca.ca_file)
        self.server = self._ca.issue("gateway", ["DNS:localhost", "IP:127.0.0.1"])
        self.callers = {"a": self._ca.issue("a", ["URI:spiffe://example.test/a"]),
                        "b": self._ca.issue("b", ["DNS:b.example.test"])}

    def close(self):
        self._ca.close()
