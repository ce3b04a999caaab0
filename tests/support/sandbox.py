"""astra-sandbox as the tests see it: its admin API and its account of every POST that arrived and every webhook it sent."""

import base64
import hmac
import http.client
import json
import pathlib
import tempfile
import urllib.parse

from support.process import BIN_DIR, Process, as_arguments, clean_environment, parse_log_line, wait_for

CLIENT_ID = "sandbox-client"
CLIENT_SECRET = "sandbox-secret"


def webhook_signature(text, secret=CLIENT_SECRET):
    """The header Astra-Verification of a webhook whose signed text this is."""
    data = text if isinstance(text, bytes) else text.encode()
    return base64.b64encode(hmac.digest(secret.encode(), data, "sha256")).decode()


class Admin:
    """The admin API of a sandbox that runs, at this URL (tests/astra_sandbox/README.md)."""

    def __init__(self, admin):
        self.admin = urllib.parse.urlparse(admin)

    def call(self, method, path, body=None):
        connection = http.client.HTTPConnection(self.admin.hostname, self.admin.port, timeout=20)
        try:
            payload = None if body is None else json.dumps(body)
            connection.request(method, path, payload, {"Content-Type": "application/json"} if payload else {})
            answer = connection.getresponse()
            text = answer.read().decode()
            assert answer.status < 300, f"sandbox admin {method} {path}: {answer.status} {text[:500]}"
            return json.loads(text) if text.strip() else {}
        finally:
            connection.close()

    def fault(self, kind, email=None, times=1, nth=0, every=0, **parameters):
        match = {name: value for name, value in (("email", email), ("nth", nth), ("every", every)) if value}
        return self.call("POST", "/faults", {"match": match, "times": times, "kind": kind, **parameters})

    def get_fault(self, kind, intent_id=None, email=None, times=1, nth=0, every=0, answer_id=None, **parameters):
        """As `fault`, for GETs: of this intent, or of the intents of this address. `answer_id`: whose intent is answered."""
        match = {name: value for name, value in (("email", email), ("intent_id", intent_id), ("nth", nth), ("every", every))
                 if value}
        if answer_id:
            parameters["intent_id"] = answer_id
        return self.call("POST", "/faults", {"match": {"method": "GET", **match}, "times": times, "kind": kind, **parameters})

    def answer_get(self, intent_id, status, body=None, headers=None, times=1, **more):
        """The next GETs of this intent are answered so."""
        text = json.dumps(body) if isinstance(body, (dict, list)) else (body or "")
        return self.get_fault("status", intent_id, times=times, status=status, body=text, headers=headers or {}, **more)

    def review(self, intent_id, *steps, **step):
        """Where the intent stands from now on: one step, or several with `reads` each (the sandbox's README)."""
        self.call("POST", "/intent", {"id": intent_id, **({"steps": list(steps)} if steps else step)})

    def gets(self, intent_id=None):
        """The account of the intent's GETs, or of all."""
        suffix = "" if intent_id is None else "?" + urllib.parse.urlencode({"intent_id": intent_id})
        return self.call("GET", "/accounting" + suffix)["gets"]

    def wait_gets(self, intent_id, count=1):
        """Waits until as many GETs of the intent have arrived, and returns them."""
        return wait_for(lambda: (lambda gets: gets if len(gets) >= count else None)(self.gets(intent_id)),
                        f"{count} GET(s) at the sandbox")

    def answer(self, email, status, body=None, headers=None, times=1, **more):
        """The next POST for this address is answered so, without looking at it."""
        text = json.dumps(body) if isinstance(body, (dict, list)) else (body or "")
        return self.fault("status", email, times, status=status, body=text, headers=headers or {}, **more)

    def raw(self, email, data, times=1, keep=False):
        return self.fault("raw", email, times, base64=base64.b64encode(data).decode(), keep=keep)

    def webhooks(self, url, **settings):
        """Webhooks go there from now on; "": nowhere (the sandbox's README)."""
        self.call("POST", "/webhooks", {"url": url, **settings})

    def webhook_fault(self, email=None, intent_id=None, status=None, times=1, nth=0, every=0, **parameters):
        """Changes the webhooks about the intents of this address, or this intent, that this status is the reason of."""
        match = {name: value for name, value in (("email", email), ("intent_id", intent_id), ("status", status), ("nth", nth),
                                                 ("every", every)) if value}
        return self.call("POST", "/webhooks/faults", {"match": match, "times": times, **parameters})

    def send_webhook(self, intent_id="", wait=True, **parameters):
        """Sends one now and returns its account, with `wait` when the first try is over."""
        return self.call("POST", "/webhooks/send", {"intent_id": intent_id, "wait": wait, **parameters})

    def sent_webhooks(self, intent_id=None):
        """The account of the webhooks about the intent, or of all."""
        suffix = "" if intent_id is None else "?" + urllib.parse.urlencode({"intent_id": intent_id})
        return self.call("GET", "/webhooks" + suffix)["webhooks"]

    def wait_webhooks(self, intent_id=None, count=1):
        """Waits until as many about the intent are done (answered with 200, lost, given up), and returns them."""
        def done():
            found = [one for one in self.sent_webhooks(intent_id) if one["done"]]
            return found if len(found) >= count else None

        return wait_for(done, f"{count} webhook(s) of the sandbox")

    def webhook_summary(self):
        return self.call("GET", "/webhooks/summary")

    def clear_webhook_faults(self):
        self.call("DELETE", "/webhooks/faults")

    def clear_faults(self):
        self.call("DELETE", "/faults")

    def reset(self):
        self.call("POST", "/reset")

    def listener(self, mode):
        self.call("POST", "/listener", {"mode": mode})

    def drop_connections(self):
        self.call("POST", "/drop_connections")

    def accounting(self, email=None):
        suffix = "" if email is None else "?" + urllib.parse.urlencode({"email": email.lower()})
        account = self.call("GET", "/accounting" + suffix)
        account["posts"] = account.get("posts") or []
        account["intents"] = account.get("intents") or []
        return account

    def posts(self, email):
        return self.accounting(email)["posts"]

    def intents(self, email):
        return self.accounting(email)["intents"]

    def summary(self):
        return self.call("GET", "/accounting/summary")

    def wait_posts(self, email, count=1):
        """Waits until as many POSTs have arrived for the address, and returns them."""
        return wait_for(lambda: (lambda posts: posts if len(posts) >= count else None)(self.posts(email)),
                        f"{count} POST(s) at the sandbox")


class Sandbox(Admin):
    """A sandbox of the test's own. Its files are in `directory`, or in one of its own that stop() removes."""

    def __init__(self, *, directory=None, log=None, dies_with_us=False,
                 program=BIN_DIR / "astra-sandbox", **flags):
        self._directory = tempfile.TemporaryDirectory(prefix="e2e-sandbox-") if directory is None else None
        self.directory = pathlib.Path(directory or self._directory.name)
        settings = {"listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0"}
        if "tls_cert_file" not in flags:
            settings["self_signed_dir"] = str(self.directory / "tls")
        settings.update(flags)
        self.process = Process(program, as_arguments(settings), env=clean_environment(), log=log,
                               dies_with_us=dies_with_us)
        told = self.process.wait_line("stdout", parse_log_line)
        super().__init__(told["admin"])
        self.url = told["url"]
        self.ca_file = told.get("ca_file", "")
        self.port = urllib.parse.urlparse(self.url).port

    def stop(self):
        self.process.kill()
        if self._directory is not None:
            self._directory.cleanup()

    close = stop
