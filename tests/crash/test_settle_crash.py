"""Kills the gateway at every named point of the way on which an unknown outcome becomes known.

A round: a server runs; many callers ask for new people, and most of their answers are lost, or come late; Astra sends
its webhooks, and again as long as they are not answered with 200. The server ends itself by SIGKILL at the point.
Another one starts on its files; every caller repeats. Then, with no operator:

  S1  each request_id was POSTed at most once, over all processes
  S2  whatever was created is CREATED in the end, under the id that Astra gave; a webhook that was answered with 200 was
      not forgotten
  S3  what was not created is not CREATED, and stays UNKNOWN where nothing proves it
  S4  a row was settled at most once, and there is no conflict
  S5  what was settled stays so, whatever process is killed

The variables are those of test_crash.py.
"""

import asyncio
import collections
import dataclasses
import random
import time

import grpc
import pytest
from crash_server import TALLY, CrashServer
from ledgers import FAILED, STATE_NAMES, SUCCEEDED, UNKNOWN, OnDisk
from support.people import person
from support.process import PATIENCE, free_port
from support.protos import pb
from test_crash import CALL_TIMEOUT, ROUNDS, UPSTREAM_WAYS

UPSTREAM_TIMEOUT_MS = 600
ROUNDS_HERE = max(1, ROUNDS // 2)  # a round takes longer: its answers are late


@dataclasses.dataclass(frozen=True)
class Point:
    name: str
    most: int  # the arrival is drawn from 1 to this
    way: str   # what settles: "late answers", "webhooks" or "both"


# In the order of the ways.
POINTS = [
    Point("late-answer-not-recorded", 6, "late answers"),
    Point("before-settle-commit", 3, "both"),
    Point("settled-not-notified", 3, "both"),
    Point("webhook-received-not-committed", 3, "webhooks"),
    Point("webhook-committed-not-answered", 3, "webhooks"),
    Point("webhook-read-not-recorded", 4, "webhooks"),
]

LATE = UPSTREAM_TIMEOUT_MS + 300
# What becomes of a POST: (fault, its parameters, whether it is created)
LATE_ANSWERS = [
    ("delay", {"delay_ms": LATE}, True),
    ("delay", {"delay_ms": LATE + 400}, True),
    ("status", {"status": 400, "delay_ms": LATE}, False),
]
LOST = [
    ("close", {"commit": True}, True),
    ("reset", {"commit": True}, True),
    ("hang", {"commit": True}, True),
    ("status", {"status": 500, "commit": True}, True),
    ("cut_body", {"status": 201, "commit": True}, True),
    ("hang", {}, False),
    ("status", {"status": 500}, False),
]
IN_TIME = [("delay", {"delay_ms": 0}, True)]
FAULTS = {"late answers": LATE_ANSWERS + IN_TIME, "webhooks": LOST + IN_TIME, "both": LATE_ANSWERS + LOST + IN_TIME}


class Run:
    """All rounds of one point on one ledger."""

    def __init__(self, sandbox, point, dice, ledger=OnDisk):
        self.sandbox, self.point, self.dice = sandbox, point, dice
        self.server = CrashServer(sandbox, ledger)
        self.server.flags.update(
            upstream_timeout=f"{UPSTREAM_TIMEOUT_MS}ms", connect_timeout=f"{UPSTREAM_TIMEOUT_MS - 100}ms",
            late_answer_window="0" if point.way == "webhooks" else "60s", astra_read_rate=0, email_attempt_limit=0)
        if point.way != "late answers":
            address = f"127.0.0.1:{free_port()}"
            self.server.flags["webhook_listen"] = address
            sandbox.webhooks(f"http://{address}/astra/webhooks", retry_ms=100, retries=12, timeout_ms=3000)
        self.asks = {}      # request_id: (request, whether its POST is created)
        self.seen = {}      # request_id: the row, once it was settled or ended
        self.tasks = set()
        self.posts_before = 0  # the last POST of the processes that are gone

    # -- callers -------------------------------------------------------------------------------------------------------

    async def call(self, method, message):
        """The answer; None: an error, also of a server that died."""
        try:
            return await getattr(self.dice.choice(self.server.stubs), method)(message, timeout=CALL_TIMEOUT)
        except grpc.aio.AioRpcError as error:
            TALLY["outcomes told"] += "grpc-status-details-bin" in dict(error.trailing_metadata() or ())
            return None
        finally:
            TALLY["calls"] += 1

    def wave(self):
        for _ in range(6):
            request = person()
            kind, parameters, created = self.dice.choice(FAULTS[self.point.way])
            self.sandbox.fault(kind, request.email, **parameters)
            self.asks[request.request_id] = (request, created)
            TALLY["requests"] += 1
            task = asyncio.create_task(self.call("CreateUserIntent", request))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def states(self, ids):
        answers = await asyncio.gather(*(self.call("GetCreation", pb.GetCreationRequest(request_id=one)) for one in ids))
        return {one: answer.creation if answer else None for one, answer in zip(ids, answers)}

    # -- rounds --------------------------------------------------------------------------------------------------------

    async def load_until_dead(self):
        end = time.monotonic() + PATIENCE + 60
        while time.monotonic() < end:
            self.wave()
            if await self.server.dead(0.3):
                return
        raise AssertionError(f"{self.point.name} was not reached")

    def examine_files(self):
        files = self.server.ledger.read()
        for request_id, before in self.seen.items():
            row = files.rows.get(request_id)
            assert row and (row.state, row.intent) == before, \
                f"S5: {STATE_NAMES[before[0]]} became {row and STATE_NAMES[row.state]} {request_id}"
        for request_id, row in files.rows.items():
            if row.state in (SUCCEEDED, FAILED):
                self.seen[request_id] = (row.state, row.intent)
        settled, conflicts = self.server.ledger.settled()
        assert not conflicts, f"S4: {conflicts} conflicts"
        twice = [request_id for request_id, count in settled.items() if count > 1]
        assert not twice, f"S4: settled twice: {twice}"
        self.search_files()
        return files

    def search_files(self):
        leak = self.server.ledger.leak([request.email for request, _ in list(self.asks.values())[-10:]])
        assert leak is None, f"{leak} holds personal data"

    def account(self):
        """POSTs by request_id; S1."""
        posts = collections.defaultdict(list)
        by_email = {request.email: request_id for request_id, (request, _) in self.asks.items()}
        for post in self.sandbox.accounting()["posts"]:
            if post["body_complete"]:
                posts[by_email[post["body"]["email"]]].append(post)
        many = {request_id: len(sent) for request_id, sent in posts.items() if len(sent) > 1}
        assert not many, f"S1: POSTed more than once: {many}"
        return posts

    def expected(self, posts):
        """{request_id: intent id} of what must be CREATED in the end: Astra has it, and its proof can still come."""
        made = {request_id: sent[0]["intent_id"] for request_id, sent in posts.items() if sent[0]["committed"]}
        if self.point.way != "late answers":
            return made
        # A late answer is lost with the process that listened.
        return {request_id: intent for request_id, intent in made.items()
                if request_id in self.seen or posts[request_id][0]["seq"] > self.posts_before}

    async def settled(self):
        """Waits for S2, and looks at S3."""
        end = time.monotonic() + PATIENCE + 30
        while True:
            posts = self.account()
            wanted = self.expected(posts)
            creations = await self.states(list(self.asks))
            missing = [one for one in wanted if creations[one] is None or creations[one].user_intent.id != wanted[one]]
            if not missing:
                break
            assert time.monotonic() < end, f"S2: {len(missing)} of {len(wanted)} stay unknown, {missing[0]} is " \
                f"{creations[missing[0]] and pb.CreationState.Name(creations[missing[0]].state)}"
            await asyncio.sleep(0.05)
        for request_id, creation in creations.items():
            made = bool(posts[request_id]) and posts[request_id][0]["committed"]
            assert made or creation is None or creation.state != pb.CREATION_STATE_CREATED, f"S3: {request_id}"

    async def round(self):
        self.server.arm()
        await self.load_until_dead()
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=PATIENCE)
        await self.server.bury()
        self.examine_files()
        self.posts_before = max((sent[-1]["seq"] for sent in self.account().values() if sent), default=0)
        assert await self.server.start(crash_at=self.crash_at(), linger_ms=self.dice.choice([0, 25]),
                                       **self.dice.choice(UPSTREAM_WAYS))
        # A repeat of what was not recorded is the first POST of its id; everything else is answered from the ledger.
        self.everybody_again()
        await asyncio.wait(self.tasks, timeout=PATIENCE + 30)
        assert not self.tasks, "calls hang"
        await self.settled()

    def everybody_again(self):
        for request, _ in self.asks.values():
            task = asyncio.create_task(self.call("CreateUserIntent", request))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    def crash_at(self):
        return f"{self.point.name}:{self.dice.randint(1, self.point.most)}"

    async def come_to_rest(self):
        """After the last kill, until nothing waits any more."""

    async def rounds(self, count):
        try:
            assert await self.server.start(crash_at=self.crash_at())
            for number in range(count):
                try:
                    await self.round()
                except AssertionError as error:
                    raise AssertionError(f"round {number + 1} of {self.point.name}: {error}") from error
            await self.come_to_rest()
            await self.server.stop()
            files = self.examine_files()
            posts = self.account()
            for request_id, (_, created) in self.asks.items():
                row, sent = files.rows.get(request_id), posts[request_id]
                if row and row.state == SUCCEEDED:
                    assert [post["intent_id"] for post in sent if post["committed"]] == [row.intent], f"S2: {request_id}"
                elif row and sent and not created and row.state != FAILED:
                    assert row.state == UNKNOWN, f"S3: {request_id} is {STATE_NAMES[row.state]}"
            summary = self.sandbox.summary()
            TALLY["POSTs"] += summary["posts"]
            TALLY["intents"] += summary["intents"]
            assert summary["duplicate_attempt_ids"] == 0
        finally:
            self.sandbox.webhooks("")
            for task in self.tasks:
                task.cancel()
            await self.server.close()


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.name)
def test_killed_while_settling(sandbox, seed, point):
    sandbox.reset()
    asyncio.run(Run(sandbox, point, random.Random(f"{seed} {point.name}")).rounds(ROUNDS_HERE))
