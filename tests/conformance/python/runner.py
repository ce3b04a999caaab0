"""Performs the scenarios of a plan with the Python library (tests/conformance/README.md): the blocking client, or with
--asyncio the other one."""

import asyncio
import base64
import concurrent.futures
import itertools
import json
import queue
import sys
import threading
import time
import traceback
import urllib.parse
import urllib.request

from google.protobuf import json_format

import userintent

PATIENCE = 20
EVENT_PATIENCE, STOP_PATIENCE = 30, 15
POOL = concurrent.futures.ThreadPoolExecutor(8)


class Failure(Exception):
    pass


class Blocking:
    """The library's blocking client."""

    def __init__(self, *arguments, **settings):
        self.client = userintent.Client(*arguments, **settings)

    def create(self, request, **options):
        return self.client.create(request, **options)

    def submit(self, request, **options):
        return self.client.submit(request, **options)

    def finish(self, pending):
        return pending.result(60)

    def cancel(self, pending):
        pending.cancel()

    def repeat(self, error, **options):
        return self.client.repeat(error, **options)

    def get(self, request_id):
        return self.client.get_creation(request_id)

    def read(self, **options):
        return self.client.get_user_intent(**options)

    def link(self, **options):
        return self.client.get_authorization_url(**options)

    def wait(self, what, *arguments, **options):
        return getattr(self.client, f"wait_for_{what}")(*arguments, **options)

    def begin_wait(self, what, *arguments, **options):
        """A future."""
        return POOL.submit(self.wait, what, *arguments, **options)

    def watch(self, ids, token):
        return Watching(self.client.watch(ids, resume_token=token))

    def close(self):
        self.client.close()


class Asyncio:
    """The same over the asyncio client; its loop runs in a thread."""

    loop = None

    def __init__(self, *arguments, **settings):
        if Asyncio.loop is None:
            Asyncio.loop = asyncio.new_event_loop()
            threading.Thread(target=Asyncio.loop.run_forever, daemon=True).start()

        async def make():
            return userintent.AsyncClient(*arguments, **settings)
        self.client = self._wait(make())

    def _wait(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, Asyncio.loop).result(150)

    def create(self, request, **options):
        return self._wait(self.client.create(request, **options))

    def submit(self, request, **options):
        async def begin():
            return self.client.submit(request, **options)
        return self._wait(begin())

    def finish(self, pending):
        async def wait():
            return await pending
        return self._wait(wait())

    def cancel(self, pending):
        Asyncio.loop.call_soon_threadsafe(pending.cancel)

    def repeat(self, error, **options):
        return self._wait(self.client.repeat(error, **options))

    def get(self, request_id):
        return self._wait(self.client.get_creation(request_id))

    def read(self, **options):
        return self._wait(self.client.get_user_intent(**options))

    def link(self, **options):
        return self._wait(self.client.get_authorization_url(**options))

    def wait(self, what, *arguments, **options):
        return self._wait(getattr(self.client, f"wait_for_{what}")(*arguments, **options))

    def begin_wait(self, what, *arguments, **options):
        return asyncio.run_coroutine_threadsafe(getattr(self.client, f"wait_for_{what}")(*arguments, **options), Asyncio.loop)

    def watch(self, ids, token):
        return AsyncioWatching(self.client.watch(ids, resume_token=token))

    def close(self):
        self._wait(self.client.close())


class Watching:
    """A watch in a thread of its own: `events` holds what it hands out, and after that the error, or None, of its end."""

    def __init__(self, watch):
        self.watch, self.events, self.started = watch, queue.Queue(), time.monotonic()
        self._begin()

    def _begin(self):
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        self._note(lambda: [self.events.put(of_event(event)) for event in self.watch])

    def _note(self, loop):
        end = None
        try:
            loop()
        except userintent.UserIntentError as error:
            end = error
        except BaseException as error:  # the runner's or the library's mistake, told where it is waited for
            end = Failure(f"the loop of the watch ended with {error!r}")
        self.events.put(End(end))

    def close(self):
        self.watch.close()

    def next(self, seconds):
        """An event, or the End; None: nothing came. The End stays."""
        try:
            found = self.events.get(timeout=seconds)
        except queue.Empty:
            return None
        if isinstance(found, End):
            self.events.put(found)
            if isinstance(found.error, Failure):
                raise found.error
        return found

    def wait_end(self, seconds):
        """Leaves out what it hands out before."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = self.next(end - time.monotonic())
            if isinstance(found, End):
                return found
        raise Failure("the watch does not end")


class End:
    def __init__(self, error):
        self.error = error


class AsyncioWatching(Watching):
    def _begin(self):
        async def loop():
            async for event in self.watch:
                self.events.put(of_event(event))
        task = asyncio.run_coroutine_threadsafe(loop(), Asyncio.loop)
        threading.Thread(target=self._note, args=(task.result,), daemon=True).start()

    def close(self):
        Asyncio.loop.call_soon_threadsafe(self.watch.close)


def of_event(event):
    creation = event.creation
    out = {"event": event.kind, "token": bool(event.resume_token), "request_id": "", "state": "", "reason": "",
           "user_intent_id": "", "user_id": "", "status": "", "status_time": "", "verification_type": "",
           "text": [str(event), repr(event)]}
    if creation is not None:
        out.update(request_id=creation.request_id, reason=creation.error.reason,
                   state=userintent.CreationState.Name(creation.state)[len("CREATION_STATE_"):])
        if creation.HasField("user_intent"):
            out.update(of_intent(creation.user_intent))
    return out


def http(url, method="GET", body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
    except urllib.error.HTTPError as error:
        raise Failure(f"{method} {url}: {error.code} {error.read().decode()[:300]}") from None
    return json.loads(text) if text.strip() else {}


def instant(message, field):
    """A time as text, seconds and nanoseconds; empty for none."""
    when = getattr(message, field)
    return f"{when.seconds}.{when.nanos:09}" if message.HasField(field) else ""


def of_intent(intent):
    return {"user_intent_id": intent.id, "user_id": intent.user_id, "status_time": instant(intent, "status_time"),
            "status": userintent.UserIntentStatus.Name(intent.status)[len("USER_INTENT_STATUS_"):],
            "verification_type": userintent.VerificationType.Name(intent.verification_type)[len("VERIFICATION_TYPE_"):]}


def of_read(request_id):
    return lambda answer: {
        **of_intent(answer.user_intent), "ok": True, "code": "OK", "reason": "", "sent": "", "maybe_sent": False,
        "request_id": request_id, "read_time": instant(answer, "read_time"), "stale": answer.stale, "text": [str(answer)]}


def of_create(result):
    return {**of_intent(result.response.user_intent), "ok": True, "code": "OK", "reason": "", "sent": "", "recovery": "", "maybe_sent": False,
            "replayed": result.replayed, "violations": [], "used_min": result.attempts.used_min,
            "used_max": result.attempts.used_max, "limit": result.attempts.limit, "user_intent_id": result.user_intent_id,
            "not_repeated": "", "unresolved_request_id": "", "http_status": 0, "request_id": result.request_id, "tries": result.tries,
            "retry_after_ms": -1, "state": "", "text": [str(result), repr(result)]}


def of_url(request_id):
    return lambda answer: {
        **of_intent(answer.user_intent), "ok": True, "code": "OK", "reason": "", "sent": "", "maybe_sent": False,
        "request_id": request_id, "url": answer.url, "text": [str(answer)],
        "page": userintent.AuthorizationPage.Name(answer.page)[len("AUTHORIZATION_PAGE_"):]}


def of_wait(request_id):
    def convert(answer):
        if isinstance(answer, userintent.Creation):
            return {**of_get(answer), "request_id": request_id}
        return {**of_intent(answer), "ok": True, "code": "OK", "reason": "", "sent": "", "maybe_sent": False, "state": "",
                "request_id": request_id, "text": [str(answer)]}
    return convert


def of_get(creation):
    return {**of_intent(creation.user_intent), "ok": True, "code": "OK", "reason": creation.error.reason,
            "request_id": creation.request_id, "text": [str(creation)],
            "state": userintent.CreationState.Name(creation.state)[len("CREATION_STATE_"):]}


def of_error(error):
    attempts = error.attempts or userintent.Attempts(0, 0)
    retry_after = -1 if error.retry_after is None else round(error.retry_after * 1000)
    return {"ok": False, "code": error.code.name, "reason": error.reason, "sent": error.sent, "recovery": error.recovery,
            "maybe_sent": error.maybe_sent, "replayed": error.replayed, "violations": [v.field for v in error.violations],
            "used_min": attempts.used_min, "used_max": attempts.used_max, "limit": 0,
            "user_intent_id": error.user_intent_id, "unresolved_request_id": error.unresolved_request_id,
            "http_status": error.http_status or 0, "request_id": error.request_id, "tries": error.tries,
            "retry_after_ms": retry_after, "not_repeated": error.not_repeated, "state": "", "final_status": error.final_status,
            "text": [str(error), repr(error)]}


# What a result has beside its own fields.
NONE = {"url": "", "page": "", "final_status": "", "user_id": "", "status": "", "state": "", "status_time": "", "recovery": "",
        "verification_type": "", "read_time": "", "stale": False, "violations": [], "retry_after_ms": -1, "tries": 0}


def holds(field, expected, actual, results):
    if isinstance(expected, str) and expected.startswith("@"):
        return actual == results[expected[1:]][field]
    if expected == "*":
        return bool(actual)
    if isinstance(expected, dict):
        return expected.get("min", actual) <= actual <= expected.get("max", actual)
    if field == "violations":
        return sorted(expected) == sorted(actual)
    if isinstance(expected, list):
        return actual in expected
    return type(expected) is type(actual) and expected == actual


class Scenario:
    def __init__(self, plan, scenario, kind):
        self.plan, self.scenario, self.kind = plan, scenario, kind
        self.clients, self.results, self.errors, self.pending, self.begun = {}, {}, {}, {}, {}
        self.watches, self.waits = {}, {}

    def run(self):
        where = "start"
        try:
            for number, step in enumerate(self.scenario["steps"]):
                where = f"step {number}"
                self.step = number
                getattr(self, step["do"])(step)
            where = "end"
            self.check_end()
        except Failure as failure:
            return f"{where}: {failure}"
        except Exception:
            return f"{where}: {traceback.format_exc().replace(chr(10), ' | ')}"
        finally:
            for watch in self.watches.values():
                watch.close()
            for client in self.clients.values():
                client.close()
        return None

    def client(self, name):
        if name not in self.clients:
            told = dict(self.plan["clients"][name])
            settings = {"max_tries": told["max_tries"]} if "max_tries" in told else {}
            if "ca_file" in told:
                settings["tls"] = userintent.Tls(*(told.get(key) for key in ("ca_file", "cert_file", "key_file", "server_name")))
            else:
                settings["plaintext"] = True
            self.clients[name] = self.kind(told["address"], **settings)
        return self.clients[name]

    def request(self, step):
        request = json_format.ParseDict(step["request"], userintent.CreateUserIntentRequest())
        if step.get("unknown_field"):
            request.MergeFromString(b"\xb0\x01\x01")
        self.clean([str(request), repr(request), f"{request}", userintent.redacted(request)])
        return request

    @staticmethod
    def options(step):
        # Below 0, over before the call begins: what is left of so short a time-out when the call looks at the clock.
        options = {"timeout": max(step["deadline_ms"] / 1000, 1e-12)} if "deadline_ms" in step else {}
        return {**options, "max_tries": step["max_tries"]} if "max_tries" in step else options

    def clean(self, texts):
        for text in texts:
            for word in self.plan["never_in_text"]:
                if word in text:
                    raise Failure(f"a string form holds {word!r}")

    def outcome(self, step, started, call, convert, name=None):
        """Makes the call and holds it to step['expect']."""
        try:
            result = {**NONE, **convert(call())}
        except userintent.UserIntentError as error:
            result = {**NONE, **of_error(error)}
            self.errors[name] = error
        result["elapsed_ms"] = (time.monotonic() - started) * 1000
        if name:
            self.results[name] = result
        self.clean(result["text"])
        if not result["request_id"] and step["do"] in ("create", "end", "repeat"):
            raise Failure("request_id: empty")
        self.compare(step["expect"], result)
        if self.scenario.get("report") and step["do"] in ("create", "get"):
            value = result["user_intent_id"] if result["ok"] else "/".join(
                result[key] for key in ("code", "reason", "sent", "recovery"))
            print(f"answer {self.scenario['name']} {self.step} {value}")

    def compare(self, expect, result):
        for field, expected in expect.items():
            if not holds(field, expected, result[field], self.results):
                told = {key: value for key, value in result.items() if key != "text"}
                raise Failure(f"{field}: expected {expected}, got {result[field]!r} of {told}")

    # -- the steps ---------------------------------------------------------------------------------------------------------

    def create(self, step):
        client, request = self.client(step["client"]), self.request(step)
        self.begun[step.get("name")] = client
        self.outcome(step, time.monotonic(), lambda: client.create(request, **self.options(step)), of_create, step.get("name"))

    def begin(self, step):
        client = self.client(step["client"])
        self.begun[step["name"]] = client
        self.pending[step["name"]] = time.monotonic(), client.submit(self.request(step), **self.options(step))

    def cancel(self, step):
        self.begun[step["name"]].cancel(self.pending[step["name"]][1])

    def end(self, step):
        if step["name"] in self.waits:
            started, future, request_id = self.waits.pop(step["name"])
            self.outcome(step, started, lambda: future.result(60), of_wait(request_id), step["name"])
            return
        started, pending = self.pending[step["name"]]
        self.outcome(step, started, lambda: self.begun[step["name"]].finish(pending), of_create, step["name"])

    def repeat(self, step):
        client, error = self.begun[step["of"]], self.errors[step["of"]]
        self.begun[step.get("name")] = client
        self.outcome(step, time.monotonic(), lambda: client.repeat(error, **self.options(step)), of_create, step.get("name"))

    def get(self, step):
        client, request_id = self.client(step["client"]), self.named(step["request_id"], "request_id")
        self.outcome(step, time.monotonic(), lambda: client.get(request_id), of_get, step.get("name"))

    def named(self, identity, field):
        return self.results[identity[1:]][field] if identity.startswith("@") else identity

    def read(self, step):
        client = self.client(step["client"])
        key = {field: self.named(step[field], field) for field in ("request_id", "user_intent_id") if field in step}
        options = {**key, **self.options(step), "allow_stale": step.get("allow_stale", False)}
        if "max_age_ms" in step:
            options["max_age"] = step["max_age_ms"] / 1000
        self.outcome(step, time.monotonic(), lambda: client.read(**options), of_read(key.get("request_id", "")),
                     step.get("name"))

    def watch(self, step):
        token = base64.b64decode(step.get("resume_token", ""))
        if "resume_of" in step:
            token = self.watches[step["resume_of"]].watch.resume_token
        ids = [self.named(request_id, "request_id") for request_id in step["request_ids"]]
        self.watches[step["name"]] = self.client(step["client"]).watch(ids, token)

    def events(self, step):
        watch = self.watches[step["name"]]
        for number, entry in enumerate(step["expect"]):
            passed = []
            while True:
                event = watch.next(EVENT_PATIENCE)
                if event is None or isinstance(event, End):
                    why = "no such event" if event is None else f"the watch ended: {event.error}"
                    raise Failure(f"entry {number}: {why}; passed over {passed}")
                self.clean(event["text"])
                try:
                    self.compare(entry, event)
                except Failure as other:
                    if step.get("exact") or event["event"] != "changed":
                        raise Failure(f"entry {number}: {other}") from None
                    passed.append(f"{event['state']} ({event['status']})")
                    continue
                self.results[step["name"]] = event
                break

    def stop(self, step):
        watch = self.watches[step["name"]]
        watch.close()
        watch.wait_end(STOP_PATIENCE)

    def watch_ended(self, step):
        watch = self.watches[step["name"]]
        error = watch.wait_end(PATIENCE).error
        if error is None:
            raise Failure("the watch ended without an error")

        def call():
            raise error
        self.outcome(step, watch.started, call, None)

    def wait(self, what, step):
        request_id = self.named(step["request_id"], "request_id")
        statuses = [[userintent.UserIntentStatus.Value(f"USER_INTENT_STATUS_{name}") for name in step["statuses"]]] if (
            what == "status") else []
        return [what, request_id, *statuses], self.options(step), request_id

    def wait_for_outcome(self, step):
        client = self.client(step["client"])
        words, options, request_id = self.wait("outcome", step)
        self.outcome(step, time.monotonic(), lambda: client.wait(*words, **options), of_wait(request_id), step.get("name"))

    def wait_for_status(self, step):
        client = self.client(step["client"])
        words, options, request_id = self.wait("status", step)
        self.outcome(step, time.monotonic(), lambda: client.wait(*words, **options), of_wait(request_id), step.get("name"))

    def begin_wait(self, step):
        words, options, request_id = self.wait(step["wait"], step)
        self.waits[step["name"]] = time.monotonic(), self.client(step["client"]).begin_wait(*words, **options), request_id

    def get_authorization_url(self, step):
        client = self.client(step["client"])
        key = {field: self.named(step[field], field) for field in ("request_id", "user_intent_id") if field in step}
        options = {**key, **self.options(step), "redirect_uri": step["redirect_uri"], "state": step["state"]}
        self.outcome(step, time.monotonic(), lambda: client.link(**options), of_url(key.get("request_id", "")),
                     step.get("name"))

    def authorization_url(self, step):
        of = self.results[step["of"]]
        intent = userintent.UserIntent(id=of["user_intent_id"], user_id=of["user_id"],
                                       status=userintent.UserIntentStatus.Value(f"USER_INTENT_STATUS_{of['status']}"))

        def call():
            made = userintent.authorization_url(step["app_url"], step["client_id"], intent, step["redirect_uri"], step["state"])
            return userintent.GetAuthorizationUrlResponse(url=made.url, page=made.page, user_intent=intent)
        self.outcome(step, time.monotonic(), call, of_url(""), step.get("name"))

    def text(self, step):
        for text in (str(request := self.request(step)), repr(request), f"{[request]}"):
            missing = [word for word in step["shows"] if word not in text]
            leaked = [word for word in step["hides"] if word in text]
            if missing or leaked:
                raise Failure(f"the string form lacks {missing}, holds {leaked}")

    def http(self, step):
        http(self.plan[step["to"]] + step["path"], step.get("method", "POST"), step.get("body", {}))

    def posts_of(self, email, what="posts"):
        account = http(f"{self.plan['sandbox']}/accounting?{urllib.parse.urlencode({'email': email})}")
        return account.get(what) or []

    def wait_posts(self, step):
        end = time.monotonic() + PATIENCE
        while len(self.posts_of(step["email"])) < step["count"]:
            if time.monotonic() > end:
                raise Failure(f"{step['count']} POSTs did not arrive")
            time.sleep(0.02)

    def storm(self, step):
        client, numbers, lock, ends = self.client(step["client"]), itertools.count(), threading.Lock(), {}

        def work():
            while True:
                with lock:
                    number = next(numbers)
                if number >= step["calls"]:
                    return
                email = f"{step['email_prefix']}{number}{step['email_suffix']}"
                request = json_format.ParseDict({**step["request"], "email": email}, userintent.CreateUserIntentRequest())
                end = self.one_of_storm(client, request)
                with lock:
                    ends[email] = end

        with concurrent.futures.ThreadPoolExecutor(step["concurrency"]) as pool:
            for worker in [pool.submit(work) for _ in range(step["concurrency"])]:
                worker.result()
        by_email = http(self.plan["sandbox"] + "/accounting/summary")["by_email"]
        ok = sum(end == "ok" for end in ends.values())
        unknown = sum(end == "unknown" for end in ends.values())
        print(f"storm: {len(ends)} calls, {ok} ok, {unknown} unknown, {self.repeats} repeats by hand, "
              f"{sum(by_email.get(email, {}).get('posts', 0) for email in ends)} POSTs")
        others = sorted({end for end in ends.values()} - {"ok", "unknown"})
        if others or ok < step["min_ok"] or len(ends) != step["calls"]:
            raise Failure(f"{ok} of {len(ends)} ok; other ends: {others[:5]}")
        for email, end in ends.items():
            account = by_email.get(email, {"posts": 0, "intents": 0})
            if account["posts"] > 1 or account["intents"] > 1:
                raise Failure(f"two POSTs: {account}")
            if end == "ok" and (account["posts"], account["intents"]) != (1, 1):
                raise Failure(f"ok, but {account}")

    repeats = 0

    def one_of_storm(self, client, request):
        error = None
        for _ in range(401):
            try:
                client.create(request) if error is None else client.repeat(error)
                return "ok"
            except userintent.UserIntentError as failed:
                error = failed
            if error.reason == "OUTCOME_UNKNOWN":
                return "unknown"
            if not ((error.maybe_sent and not error.reason) or error.recovery == "RETRY_SAME_ID"
                    or error.reason == "REQUEST_IN_PROGRESS"):
                return str(error)
            self.repeats += 1
            time.sleep(0.05)
        return f"given up: {error}"

    def check_end(self):
        for email, count in self.scenario.get("posts", {}).items():
            if len(self.posts_of(email)) != count:
                raise Failure(f"expected {count} POSTs, the sandbox counted {len(self.posts_of(email))}")
        for email, count in self.scenario.get("gets", {}).items():
            if len(self.posts_of(email, "gets")) != count:
                raise Failure(f"expected {count} GETs, the sandbox counted {len(self.posts_of(email, 'gets'))}")
        for email, members in self.scenario.get("bodies", {}).items():
            body = self.posts_of(email)[-1]["body"]
            for name, value in members.items():
                sent = body.get(name)
                if name == "metadata" and isinstance(sent, dict):
                    sent = {key: text for key, text in sent.items() if key != "gateway_attempt_id"}
                if sent != value:
                    raise Failure(f"{name} arrived changed")
        for email, count in self.scenario.get("calls", {}).items():
            calls = http(f"{self.plan['control']}/calls?{urllib.parse.urlencode({'email': email})}")
            if calls["count"] != count or len(calls["ids"]) > 1:
                raise Failure(f"expected {count} RPCs with one id, got {calls}")


def main():
    words = sys.argv[1:]
    kind = Asyncio if "--asyncio" in words else Blocking
    with open(words[-1], encoding="utf-8") as file:
        plan = json.load(file)
    passed = failed = 0
    for scenario in plan["scenarios"]:
        why = Scenario(plan, scenario, kind).run()
        if why is None:
            passed += 1
            print(f"ok {scenario['name']}")
        else:
            failed += 1
            print(f"FAILED {scenario['name']}: {why}")
    print(f"{passed} passed, {failed} failed")
    return 0 if passed and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
