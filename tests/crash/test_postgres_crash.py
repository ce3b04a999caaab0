"""The kills of test_crash.py and test_settle_crash.py, with the ledger in PostgreSQL.

Here a restart frees nothing: what the dead process had under way is SENDING until a replica has fenced it and has been
quiet, and only then UNKNOWN. To wait for that after each kill would take a quarter of a minute every time. So the next
process starts at once, callers repeat meanwhile what waits, and the next kill comes; after the last one all is waited
for. After every kill: the invariants of history.py, and

  P1  a row that a kill left SENDING stays so, whoever starts and whoever repeats it, and not before fence and quiet are
      over is it UNKNOWN, and never anything else
  P2  whatever else the ledger has is answered by the next process as it was by the last one

There is one replica, killed and started again; `beside`, another one lives on, has half of the calls and fences the dead.

  CRASH_POSTGRES  `all`: each point has a ledger of its own and as many kills as CRASH_ROUNDS says, alone and beside
                  another replica; else the servers of one ledger are killed once at each point, apart from during-rekey
"""

import asyncio
import dataclasses
import functools
import os
import random
import time

import grpc
import pytest
import test_crash
import test_settle_crash
from crash_server import PROGRAM, TALLY
from history import FINAL
from ledgers import SENDING, STATE_NAMES, UNKNOWN, InPostgres
from support import postgres
from support.gateway import CHANNEL_OPTIONS
from support.people import STEMS
from support.process import PATIENCE, wait_for
from support.protos import pb_grpc
from support.server import Server
from test_crash import ROUNDS, UPSTREAM_WAYS, script_faults

ALL = os.environ.get("CRASH_POSTGRES") == "all"

# These are SQLite's: its log, the index that it merges, and its start, which alone gives rows up and hashes them anew.
OF_SQLITE = {"before-checkpoint", "during-checkpoint", "after-checkpoint", "before-merge-commit", "after-merge-commit",
             "during-recovery", "during-rotation"}
POINTS = [point for point in test_crash.POINTS if point.name not in OF_SQLITE]
REKEY = "during-rekey"  # a key is changed while no other replica runs, and each time a fence is waited for


@pytest.fixture(scope="module")
def cluster():
    cluster = postgres.Cluster(memory=True)
    yield cluster
    cluster.close()


def fence_and_quiet(upstream_timeout):
    """So long after a death are its rows SENDING; seconds."""
    return InPostgres.FENCE + upstream_timeout + 5


async def nothing_is_sending(ledger, longest):
    end = time.monotonic() + longest + PATIENCE
    while left := ledger.read().in_state(SENDING):
        assert time.monotonic() < end, f"I9: {len(left)} rows are still SENDING"
        await asyncio.sleep(0.1)


class Left:
    """P1: the rows that kills left SENDING, and when."""

    def __init__(self, ledger, upstream_timeout):
        self._ledger, self._since = ledger, {}
        self._soonest = fence_and_quiet(upstream_timeout) - 2  # its last beat was a second before the kill, or a little more

    def look(self, files, died=None):
        """While the process is dead: what came of the rows of earlier kills, and which are new. The ids of all."""
        now = time.monotonic()
        for request_id, since in self._since.items():
            row = files.rows.get(request_id)
            assert row and row.state in (SENDING, UNKNOWN), \
                f"P1: left SENDING, now {row and STATE_NAMES[row.state]} {request_id}"
            assert row.state == SENDING or now - since > self._soonest, \
                f"P1: given up {now - since:.1f} s after the kill {request_id}"
        new = self._ledger.left() - self._since.keys()
        TALLY["left SENDING by a kill"] += len(new)
        self._since |= dict.fromkeys(new, died)
        return self._since.keys()


class Survivor:
    """Another replica on the ledger of a CrashServer, with a connection to it."""

    def __init__(self, sandbox, mortal):
        self._server = Server(sandbox, start=False, program=PROGRAM, **{
            **mortal.flags, "listen": "127.0.0.1:0", "replica_name": "survivor"})
        self._server.start()
        self._channel = grpc.aio.insecure_channel(self._server.address, CHANNEL_OPTIONS)
        self.stub = pb_grpc.UserIntentServiceStub(self._channel)

    async def stop(self):
        await self._channel.close()
        await asyncio.to_thread(self._server.stop)
        text = self._server.process.text().lower()
        assert not any(stem in text for stem in STEMS), "the log of the other replica holds personal data"

    def close(self):
        if not self._server.stopped:
            self._server.kill()
        self._server.close()


class Creating(test_crash.Run):
    """As the other one, but of several points, one kill at each, with the waiting at the end."""

    UPSTREAM_TIMEOUT = 2  # seconds
    pause = 0.5  # many wait for what only fence and quiet end

    def __init__(self, cluster, sandbox, points, dice, beside=False):
        super().__init__(sandbox, points[0], dice, functools.partial(InPostgres, cluster))
        self.server.flags.update(upstream_timeout=f"{self.UPSTREAM_TIMEOUT}s", connect_timeout="1s")
        self.next_points = iter([*points[1:], points[-1]])  # whoever is started last is not told to end
        self.left = Left(self.server.ledger, self.UPSTREAM_TIMEOUT)
        self.beside, self.survivor = beside, None

    async def one_call(self, make):
        if not self.survivor or self.dice.random() < 0.5:
            return await super().one_call(make)
        TALLY["calls"] += 1
        try:
            return await make(self.survivor.stub), None
        except grpc.aio.AioRpcError as error:
            return None, error

    def examine_files(self):
        self.server.ledger.buried()
        files = self.server.ledger.read()
        self.history.check_files(files)
        if not self.survivor:  # else the account is of another moment
            self.history.check_account(files, self.sandbox.accounting())
        return files

    async def round(self):
        if self.beside and not self.survivor:
            self.survivor = Survivor(self.sandbox, self.server)
        if self.point.name == REKEY:
            await self.rekey()
        begun = len(self.history.asks)
        if self.point.kill == "at the point":
            self.server.arm()
        await self.load_until_dead()
        died = time.monotonic()
        await self.callers_cut_off()
        await self.server.bury()
        files = self.examine_files()
        left = self.left.look(files, died)
        self.history.check("after the kill")
        asks = list(self.history.asks.values())
        await self.go_on()
        # P2; the others are heard at the end.
        known = [ask for ask in asks if (row := files.rows.get(ask.request.request_id)) and row.state in FINAL]
        await asyncio.gather(*(self.create(ask) for ask in known[-30:]), *(self.look_up(ask) for ask in known[-30:]))
        self.tasks += [asyncio.create_task(self.create(ask)) for ask in asks[begun:] if ask not in known]
        await asyncio.gather(*(self.look_up(self.history.asks[request_id]) for request_id in left))
        self.history.check("after the restart")

    async def go_on(self):
        """The next process, which will end at the next point."""
        before, self.point = self.point, next(self.next_points)
        if self.point != before:
            script_faults(self.sandbox, self.point, self.dice)
        assert await self.server.start(**self.armed(), **next(self.ways))

    async def rekey(self):
        """One that was killed counts as running until it is fenced."""
        await self.come_to_rest()
        await asyncio.to_thread(wait_for, lambda: self.server.ledger.alive() == 1, "the dead are fenced")
        if not self.history.asks:
            await self.new_people()
        await self.server.stop()
        self.server.rotate_key()
        assert await self.server.start(**self.armed(), **next(self.ways))

    async def come_to_rest(self):
        await self.callers_done()
        await nothing_is_sending(self.server.ledger, fence_and_quiet(self.UPSTREAM_TIMEOUT))
        if self.survivor:
            await self.survivor.stop()
            self.survivor.close()
            self.survivor = None
        self.left.look(self.server.ledger.read())

    async def rounds(self, count):
        try:
            await super().rounds(count)
            self.search_files()
        finally:
            if self.survivor:
                self.survivor.close()


class Settling(test_settle_crash.Run):
    """As the other one, but of several points. Webhooks come at each of them, and late answers are heard."""

    def __init__(self, cluster, sandbox, points, dice):
        super().__init__(sandbox, dataclasses.replace(points[0], way="both"), dice, functools.partial(InPostgres, cluster))
        self.point = points[0]
        self.next_points = iter([*points[1:], points[-1]])
        self.left = set()

    def search_files(self):
        """Once, at the end."""

    def expected(self, posts):
        """A late answer may be lost with the process that listened; a webhook that was answered is not."""
        return {request_id: sent[0]["intent_id"] for request_id, sent in posts.items() if sent[0]["committed"]}

    async def round(self):
        self.server.arm()
        await self.load_until_dead()
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=PATIENCE)
        await self.server.bury()
        self.server.ledger.buried()
        self.examine_files()
        self.account()
        new = self.server.ledger.left() - self.left
        self.left |= new
        TALLY["left SENDING by a kill"] += len(new)
        if not ALL:
            self.server.ledger.let_claims_end()
        self.point = next(self.next_points)
        assert await self.server.start(crash_at=self.crash_at(), linger_ms=self.dice.choice([0, 25]),
                                       **self.dice.choice(UPSTREAM_WAYS))
        self.everybody_again()

    async def come_to_rest(self):
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=PATIENCE + 30)
        assert not self.tasks, "calls hang"
        await nothing_is_sending(self.server.ledger, fence_and_quiet(test_settle_crash.UPSTREAM_TIMEOUT_MS / 1000))
        await self.settled()

    async def rounds(self, count):
        await super().rounds(count)
        super().search_files()


# -- the kills -------------------------------------------------------------------------------------------------------------

def kills(points, **how):
    """What a test is given: points, one kill each, and how the run is made."""
    if not ALL:
        return [pytest.param([point for point in points if point.name != REKEY], how, id="tour")]
    return [pytest.param([point] * (3 if point.name == REKEY else ROUNDS), how, id="-".join([point.name, *how]))
            for point in points if point.name != REKEY or not how]


def run(make, sandbox, points):
    sandbox.reset()

    async def all_rounds():
        await make().rounds(len(points))
    asyncio.run(all_rounds())


@pytest.mark.parametrize("points, how", kills(POINTS) + (kills(POINTS, beside=True) if ALL else []))
def test_killed(cluster, sandbox, seed, points, how):
    dice = random.Random(f"{seed} {points[0].name} {how}")
    run(lambda: Creating(cluster, sandbox, points, dice, **how), sandbox, points)


@pytest.mark.parametrize("points, how", kills(test_settle_crash.POINTS))
def test_killed_while_settling(cluster, sandbox, seed, points, how):
    dice = random.Random(f"{seed} {points[0].name}")
    run(lambda: Settling(cluster, sandbox, points, dice, **how), sandbox, points)
