"""Callers who repeat as the documentation tells them, until SIGTERM; then all ask once more for what they had made, and what
they heard is held to the sandbox's account.

    load.py [--seconds-per-call 35] [--no-unknown]

Each caller makes a creation after the other; every fourth is sent twice at once, by connections of their own, which a load
balancer gives to different gateways. A line a second tells how many have ended: "ended 120". At the end, status 1 if
  * a creation did not end with an intent within its time (--seconds-per-call, all tries together),
  * Astra got the POST of a creation not exactly once, or two answers to one creation differ, the last one too: what was
    answered must still be known,
  * with --no-unknown, a caller ever heard that an outcome is unknown.
"""

import argparse
import collections
import concurrent.futures
import dataclasses
import os
import pathlib
import signal
import sys
import threading
import time

import grpc

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from caller import Client, failure  # noqa: E402
from support.people import person  # noqa: E402
from support.protos import pb  # noqa: E402
from support.sandbox import Admin  # noqa: E402

CALLERS = 8
PAUSE = 0.05  # between a caller's creations, and before a repeat that the gateway gave no time for
REPEATED = ("RETRY_SAME_ID", "ASK_SAME_ID")


@dataclasses.dataclass
class Heard:
    """What came of one creation at one caller."""

    request: pb.CreateUserIntentRequest
    intent: str = ""  # its id; empty: none came
    reasons: list[str] = dataclasses.field(default_factory=list)  # of the tries that failed


def reason_and_wait(error):
    """(reason, whether the same id may be sent again, seconds to wait). Without details nobody knows: the same id asks."""
    try:
        told = failure(error)
    except AssertionError:
        return error.code().name, True, PAUSE
    info = told.details.get("RetryInfo")
    wait = info.retry_delay.seconds + info.retry_delay.nanos / 1e9 if info else PAUSE
    return told.reason, told.info.metadata["recovery"] in REPEATED, max(wait, PAUSE)


def create(client, request, seconds):
    heard = Heard(request)
    until = time.monotonic() + seconds
    while True:
        try:
            left = max(until - time.monotonic(), 1)
            heard.intent = client.stub.CreateUserIntent(request, timeout=left).user_intent.id
            return heard
        except grpc.RpcError as error:
            reason, again, wait = reason_and_wait(error)
            heard.reasons.append(reason)
            if not again or time.monotonic() + wait > until:
                return heard
            time.sleep(wait)


class Load:
    def __init__(self, seconds):
        self.seconds = seconds
        self.heard, self._lock, self._over = [], threading.Lock(), threading.Event()

    def stop(self, *_):
        self._over.set()

    def _caller(self):
        clients = Client("client"), Client("client")
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            made = 0
            while not self._over.is_set():
                made += 1
                request = person()
                used = clients if made % 4 == 0 else clients[:1]
                heard = list(pool.map(lambda client: create(client, request, self.seconds), used))
                with self._lock:
                    self.heard.append(heard)
                self._over.wait(PAUSE)

    def run(self):
        callers = [threading.Thread(target=self._caller) for _ in range(CALLERS)]
        for caller in callers:
            caller.start()
        while not self._over.wait(1):
            print(f"ended {len(self.heard)}", flush=True)
        for caller in callers:
            caller.join()

    def ask_again(self):
        """Each creation once more, with its own id."""
        clients = [Client("client") for _ in range(CALLERS)]
        with concurrent.futures.ThreadPoolExecutor(CALLERS) as pool:
            again = list(pool.map(lambda at: create(clients[at % CALLERS], self.heard[at][0].request, self.seconds),
                                  range(len(self.heard))))
        for heard, one in zip(self.heard, again):
            heard.append(one)


def problems(creations, sandbox, no_unknown):
    for heard in creations:
        email = heard[0].request.email
        name = f"creation {email.partition('@')[0].rpartition('.')[2]}"  # its number only
        tried = [one.reasons for one in heard]
        intents = {one.intent for one in heard}
        if "" in intents or len(intents) != 1:
            yield f"{name}: {len(intents - {''})} intents for {len(heard)} callers, who heard {tried}"
        posts = sandbox.posts(email)
        if len(posts) != 1 or posts[0]["intent_id"] not in intents:
            yield f"{name}: {len(posts)} POSTs; the callers heard {tried}"
        if no_unknown and any("UNKNOWN" in reason for reasons in tried for reason in reasons):
            yield f"{name}: unknown for a while: {tried}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds-per-call", type=float, default=35)
    parser.add_argument("--no-unknown", action="store_true")
    arguments = parser.parse_args()
    load = Load(arguments.seconds_per_call)
    signal.signal(signal.SIGTERM, load.stop)
    load.run()
    load.ask_again()
    sandbox = Admin(os.environ.get("SANDBOX_ADMIN", "http://astra-sandbox:8444"))
    found = list(problems(load.heard, sandbox, arguments.no_unknown))
    if duplicates := sandbox.summary()["duplicate_attempt_ids"]:
        found.append(f"{duplicates} attempt ids came to Astra twice")
    for problem in found[:20]:
        print(problem)
    repeats = collections.Counter(reason for heard in load.heard for one in heard for reason in one.reasons)
    told = ", ".join(f"{reason} {count}" for reason, count in repeats.most_common()) or "none"
    print(f"{len(load.heard)} creations, {sum(map(len, load.heard))} calls, {len(found)} problems; tries that failed: {told}")
    return 1 if found or not load.heard else 0


if __name__ == "__main__":
    sys.exit(main())
