"""Kills the gateway at every named point of its code, again and again on the same ledger, while callers are at it.

A round: a server runs; many callers at once ask for new people, several of them for the same request_id, some leaving
early, some with another id for the same person or e-mail address; Astra creates, rejects, refuses, fails. The server
ends itself by SIGKILL at the point. Its files are read as they are; another server starts on them, alternately over
HTTP/2 and HTTP/1.1 to Astra; every caller that was cut off repeats its call with the same id; then every id is repeated
and looked up once more. history.py holds what must be true after each step.

  CRASH_ROUNDS   kills at each point (default 20)
  CRASH_SEED     repeats the dice of a run, though not the timing of its threads
"""

import asyncio
import dataclasses
import itertools
import os
import pathlib
import random
import re
import subprocess
from unittest import mock

import grpc
import pytest
from crash_server import PROGRAM, TALLY, CrashServer
from support import errors
from support.gateway import SERVER, Gateway, clean_environment
from support.people import email as new_email
from support.people import other_id, person
from support.process import PATIENCE
from support.protos import REPO, pb
from history import History
from ledgers import SENDING, OnDisk

ROUNDS = int(os.environ.get("CRASH_ROUNDS", "20"))
ROUNDS_OF_A_LEDGER = 20  # then a new one, so that a long run does not read ever longer accounts
CALL_TIMEOUT = 30
# Here an id may have been sent before and refused, and `sent` is the strongest over all its tries.
WITH_EARLIER_TRIES = {reason: (code, errors.SENT, *rest) for reason, (code, _, *rest) in errors.TABLE.items()
                      if reason in ("PERSON_EXISTS", "EMAIL_BUSY", "EMAIL_UNRESOLVED", "SUPERSEDES_INVALID",
                                    "UPSTREAM_RATE_LIMITED", "UPSTREAM_UNAVAILABLE")}
ROTATING = ("during-rotation", "during-rekey")


@dataclasses.dataclass(frozen=True)
class Point:
    name: str
    most: int = 8             # the arrival is drawn from 1 to this
    refusals: int = 9         # each so many POSTs one is refused with 503, and one with 429
    large: bool = False       # some bodies do not fit into one buffer
    delay_ms: int = 4         # Astra's
    kill: str = "at the point"  # or "from outside", or "at the start"


# How processes speak to Astra, one after the other; the first is the default.
UPSTREAM_WAYS = [{"upstream_transport": "auto"}, {"upstream_transport": "libcurl"}, {"upstream_http2": False}]

# In the order of a request's way, then those of the ledger's housekeeping.
POINTS = [
    Point("after-admit", 30),
    Point("before-sending-commit", 4),
    Point("after-sending-commit", 4),
    Point("before-connect", 15),
    Point("after-connect", 15),
    Point("after-first-body-byte", 1, large=True),
    Point("after-body", 15),
    Point("before-first-answer-byte", delay_ms=40, kill="from outside"),
    Point("after-status", 10),
    Point("after-answer-body", 10),
    Point("before-next-attempt-commit", 1, refusals=4),
    Point("after-next-attempt-commit", 1, refusals=4),
    Point("before-outcome-commit", 4),
    Point("after-outcome-commit", 4),
    Point("before-reply", 15),
    Point("after-reply", 15),
    Point("before-checkpoint", 1),
    Point("during-checkpoint", 12),
    Point("before-merge-commit", 12),
    Point("after-merge-commit", 12),
    Point("after-checkpoint", 1),
    Point("during-recovery", 2, delay_ms=40, kill="at the start"),
    Point("during-rotation", 1, delay_ms=40, kill="at the start"),
    Point("during-rekey", 8),
]


def script_faults(sandbox, point, dice):
    """What Astra does; the first that matches wins, each counts every POST."""
    sandbox.clear_faults()
    delay = point.delay_ms

    def fault(kind, every, **more):
        sandbox.fault(kind, times=0, every=every, delay_ms=dice.randint(0, 2 * delay), **more)

    fault("status", point.refusals, status=503, headers={"Retry-After": "0"}, body="")
    fault("status", point.refusals + 2, status=429, headers={"Retry-After": "0"}, body="")
    fault("status", 8, status=400, body="")
    fault("status", 13, status=500, body="", commit=True)
    fault("rst_stream", 17, commit=True)
    fault("rst_stream", 19, code="REFUSED_STREAM")
    fault("cut_body", 23, status=201, commit=True)
    sandbox.fault("delay", times=0, delay_ms=delay)


class Run:
    """All rounds of one point on one ledger."""

    pause = 0.02  # seconds, at most, before a caller repeats what was refused

    def __init__(self, sandbox, point, dice, ledger=OnDisk):
        self.sandbox = sandbox
        self.point = point
        self.dice = dice
        self.server = CrashServer(sandbox, ledger)
        self.history = History()
        self.in_call = 0
        self.tasks = []
        self.ways = itertools.cycle(UPSTREAM_WAYS[1:] + UPSTREAM_WAYS[:1])  # of the next processes

    # -- callers -------------------------------------------------------------------------------------------------------

    def new(self, request=None, **changes):
        if request is None:
            request = person(**changes)
        if self.point.large and self.dice.random() < 0.15:
            for number in range(23):
                request.metadata[f"padding-{number}"] = "\U00010300" * 256
        return self.history.add(request)

    async def one_call(self, make):
        """(what the call gave, None), or (None, its error)."""
        self.in_call += 1
        TALLY["calls"] += 1
        try:
            return await make(self.dice.choice(self.server.stubs)), None
        except grpc.aio.AioRpcError as error:
            return None, error
        finally:
            self.in_call -= 1

    async def call(self, make, request=None):
        """As one_call, but repeated on the next server as long as the server dies under it; errors are decoded."""
        epoch = 0
        while True:
            epoch = await self.server.serving(but_not=epoch)
            response, error = await self.one_call(make)
            if error is None:
                return response, None
            if "grpc-status-details-bin" in dict(error.trailing_metadata() or ()):
                with mock.patch.dict(errors.TABLE, WITH_EARLIER_TRIES):
                    return None, errors.decode(error, request)
            # Made by the caller's library, which it must not be while the server lives.
            assert error.code() == grpc.StatusCode.UNAVAILABLE, f"{error.code()}: {error.details()}"
            for _ in range(500):
                if not self.server.running() or self.server.epoch != epoch:
                    break
                await asyncio.sleep(0.01)
            else:
                raise AssertionError(f"no connection to a server that runs: {error.details()}")

    async def create(self, ask):
        """A caller: repeats its call as long as it is told that this may help. Its last error, or None for OK."""
        while True:
            response, error = await self.call(lambda stub: stub.CreateUserIntent(ask.request, timeout=CALL_TIMEOUT),
                                              ask.request)
            if error is None:
                self.history.on_response(ask, response)
                return None
            self.history.on_error(ask, error)
            if error.retry_after is None:
                return error
            await asyncio.sleep(self.dice.random() * self.pause)

    async def look_up(self, ask, at_rest=False):
        response, error = await self.call(
            lambda stub: stub.GetCreation(pb.GetCreationRequest(request_id=ask.request.request_id), timeout=CALL_TIMEOUT))
        if error is None:
            self.history.on_creation(ask, response.creation, at_rest)
        else:
            assert error.reason == "REQUEST_NOT_FOUND", error
        return response

    async def leave_early(self, ask):
        await self.server.serving()
        if self.server.running():
            call = self.dice.choice(self.server.stubs).CreateUserIntent(ask.request, timeout=CALL_TIMEOUT)
            await asyncio.sleep(self.dice.random() * 0.015)
            call.cancel()

    async def same_address(self):
        """One e-mail address, more people than it has attempts; who is in the way is knowingly superseded, or not."""
        address = new_email()
        in_the_way = None
        for _ in range(5):
            ask = self.new(email=self.dice.choice([address, address.upper()]), supersedes_request_id=in_the_way)
            calls = [self.create(ask)]
            if self.dice.random() < 0.2:
                calls.append(self.create(self.new(email=address)))
            error = (await asyncio.gather(*calls))[0]
            in_the_way = None
            if error and error.reason in ("OUTCOME_UNKNOWN", "EMAIL_UNRESOLVED") and self.dice.random() < 0.7:
                in_the_way = error.metadata.get("unresolved_request_id", ask.request.request_id)

    async def same_person(self):
        first = self.new()
        number = self.dice.random()
        others = [self.new(other_id(first.request, allow_repeat=number < 0.4,
                                    metadata={"canary_key": f"canary-value-{number}-{index}"})) for index in range(2)]
        await asyncio.gather(*(self.create(ask) for ask in [first, *others]))

    async def new_people(self):
        asks = [self.new() for _ in range(6)]
        calls = [self.create(ask) for ask in asks for _ in range(self.dice.choice([1, 1, 2, 4]))]
        calls += [self.leave_early(ask) for ask in self.dice.sample(asks, 1)]
        calls += [self.look_up(ask) for ask in self.dice.sample(asks, 2)]
        self.dice.shuffle(calls)
        tasks = []
        for call in calls:
            tasks.append(asyncio.create_task(call))
            if self.dice.random() < 0.4:
                await asyncio.sleep(self.dice.random() * 0.003)
        await asyncio.gather(*tasks)

    def wave(self):
        for kind in (self.new_people, self.dice.choice([self.same_address, self.same_person])):
            self.tasks.append(asyncio.create_task(kind()))

    # -- rounds --------------------------------------------------------------------------------------------------------

    async def load_until_dead(self, waves=300):
        kill_from_outside = self.point.kill != "at the point"
        if self.point.name == "during-rekey":  # everybody who came under the older key comes again
            old = self.dice.sample(list(self.history.asks.values()), min(20, len(self.history.asks)))
            self.tasks += [asyncio.create_task(self.create(ask)) for ask in old]
        self.wave()
        if kill_from_outside:
            for _ in range(500):
                if self.sandbox.summary()["in_progress"] > 2:
                    break
                await asyncio.sleep(0.003)
            await asyncio.sleep(self.dice.random() * self.point.delay_ms * 2 / 1000)
            self.server.kill()
            assert await self.server.dead(PATIENCE)
            return
        for _ in range(waves):
            if await self.server.dead(0.05):
                return
            failed = [task for task in self.tasks if task.done() and task.exception()]
            assert not failed, failed[0].exception()
            self.wave()
        raise AssertionError(f"{self.point.name} was not reached {waves} times")

    async def callers_cut_off(self):
        """Every call that was on its way has ended, one way or the other."""
        for _ in range(2000):
            if self.in_call == 0:
                return
            await asyncio.sleep(0.002)
        raise AssertionError(f"{self.in_call} calls hang on a dead server")

    async def callers_done(self):
        tasks, self.tasks = self.tasks, []
        await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE + 40)

    def examine_files(self):
        """As the process left them."""
        files = self.server.ledger.read()
        self.history.check_files(files)
        self.history.check_account(files, self.sandbox.accounting())
        self.search_files()
        return files

    def search_files(self):
        recent = [ask.request.email for ask in list(self.history.asks.values())[-10:]]
        leak = self.server.ledger.leak(recent)
        assert leak is None, f"I8: {leak} holds personal data"

    def crash_at(self):
        return f"{self.point.name}:{self.dice.randint(1, self.point.most)}"

    def armed(self):
        """What to start a server with that shall end at the point, once it is told to count."""
        if self.point.kill != "at the point":
            return {}
        return {"crash_at": self.crash_at(), "linger_ms": self.dice.choice([0, 25])}

    async def start(self, files, at_start):
        """The next process, on these files; at_start: one that dies at its start comes before."""
        flags = next(self.ways)
        if self.point.name == "during-rotation":
            self.server.rotate_key()
        if at_start:
            crash_at = self.crash_at()
            if not any(row.state == SENDING for row in files.rows.values()):
                crash_at = f"{self.point.name}:1"  # with nothing to recover there is one look and no second
            assert not await self.server.start(crash_at, at_once=True, **flags), f"{crash_at} not reached"
            left = self.server.ledger.read()
            self.history.check_files(left)
            changed = {i for i, row in files.rows.items() if left.rows.get(i) != row}
            open_rows = {i for i, row in files.rows.items() if row.state == SENDING}
            if changed not in (set(), open_rows):
                self.history.wrong.append("I5: a start that was killed changed what was not SENDING, or a part of it")
            files = left
        assert await self.server.start(**self.armed(), **flags)
        self.history.expect_recovered(files, self.server.recovered)

    async def account_at_rest(self):
        """The sandbox's account once it has no request in hand: one that was cut off may end there a little later."""
        for _ in range(int(PATIENCE * 100)):
            account = self.sandbox.accounting()
            if account["in_progress"] == 0:
                return account
            await asyncio.sleep(0.01)
        raise AssertionError(f"{account['in_progress']} requests are still in progress at the sandbox")

    async def everybody_again(self, asks):
        """Nothing runs any more: each id is repeated, then looked up."""
        async def one(ask):
            error = await self.create(ask)
            assert error is None or error.reason != "REQUEST_IN_PROGRESS"
        await asyncio.gather(*(one(ask) for ask in asks))
        found = await asyncio.gather(*(self.look_up(ask, at_rest=True) for ask in asks))
        account = await self.account_at_rest()
        for ask, response in zip(asks, found):
            if response is not None:
                self.history.check_attempts(ask, response.creation.attempts, account)

    async def round(self):
        begun = len(self.history.asks)
        if self.point.name == "during-rekey":
            if not self.history.asks:
                await self.new_people()  # a key that has no rows is not looked under
            await self.server.stop()
            self.server.rotate_key()
            await self.start(self.examine_files(), at_start=False)
        if self.point.kill == "at the point":
            self.server.arm()
        await self.load_until_dead()
        await self.callers_cut_off()
        await self.server.bury()
        files = self.examine_files()
        self.history.check("after the kill")
        await self.start(files, at_start=self.point.kill == "at the start")
        await self.callers_done()
        asks = list(self.history.asks.values())
        # Where keys rotate, half of all come again, so that rows stay under each of the keys.
        await self.everybody_again(self.dice.sample(asks, len(asks) // 2) if self.point.name in ROTATING else asks[begun:])
        self.history.check("after the restart")

    async def come_to_rest(self):
        """After the last kill, until nothing waits any more."""

    async def rounds(self, count):
        try:
            script_faults(self.sandbox, self.point, self.dice)
            self.sandbox.call("POST", "/drop_connections")
            assert await self.server.start(**self.armed())
            for number in range(count):
                try:
                    await self.round()
                except AssertionError as error:
                    raise AssertionError(f"round {number + 1} of {self.point.name}: {error}") from error
            await self.come_to_rest()
            await self.everybody_again(list(self.history.asks.values()))
            await self.server.stop()
            self.examine_files()
            self.history.check("at the end")
            summary = self.sandbox.summary()
            TALLY["POSTs"] += summary["posts"]
            TALLY["intents"] += summary["intents"]
            assert summary["duplicate_attempt_ids"] == 0
        finally:
            for task in self.tasks:
                task.cancel()
            await self.server.close()


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.name)
def test_killed(sandbox, seed, point):
    dice = random.Random(f"{seed} {point.name}")
    done = 0
    while done < ROUNDS:
        of_a_ledger = 5 if point.name in ROTATING else ROUNDS_OF_A_LEDGER
        count = min(of_a_ledger, ROUNDS - done)
        sandbox.reset()

        async def all_rounds(count=count):
            await Run(sandbox, point, dice).rounds(count)
        asyncio.run(all_rounds())
        done += count
        if ROUNDS > 100:
            print(f"{point.name}: {done} of {ROUNDS}", flush=True)


# -- the points themselves -------------------------------------------------------------------------------------------------

def points_in_the_code():
    pattern = re.compile(r'(?:CrashPoint|[Rr]each|crash_point)\((?:[^;"]*\? )?"([a-z-]+)"(?: : "([a-z-]+)")?\)')
    found = set()
    for path in [*(REPO / "server").rglob("*.cc"), *(REPO / "server").rglob("*.h"), pathlib.Path(__file__).with_name("crash_server.cc")]:
        for match in pattern.finditer(path.read_text()):
            found.update(name for name in match.groups() if name)
    return found


def test_every_point_of_the_code_is_tested():
    from test_migration_crash import POINTS as MIGRATION_POINTS
    from test_settle_crash import POINTS as SETTLE_POINTS
    copied = pathlib.Path(__file__).with_name("test_copy_crash.py").read_text()
    tested = {point.name for point in POINTS if point.kill != "from outside"} | {point.name for point in SETTLE_POINTS} | set(
        re.findall(r'crash\("(copy-[a-z]+)"', copied)) | set(MIGRATION_POINTS)
    assert points_in_the_code() == tested
    assert len(POINTS) >= 14


def symbols(program):
    return subprocess.run(["nm", "-C", str(program)], check=True, capture_output=True, text=True).stdout


def test_production_cannot_install_a_hook(sandbox):
    """The function that could is not in the program, and neither the environment nor a flag does anything."""
    assert "InstallCrashHook" in symbols(PROGRAM)
    production = symbols(SERVER)
    assert "CrashHook::installed_" in production, "the points are gone, or nm shows nothing"
    assert "InstallCrashHook" not in production

    sandbox.reset()
    gateway = Gateway(sandbox, environment={"CRASH_AT": "after-admit:1"})
    try:
        gateway.create(person()).ok()
    finally:
        gateway.close()
    for flag in ("--crash_at=after-admit:1", "--crash_point=after-admit:1"):
        ended = subprocess.run([str(SERVER), *gateway.arguments(), flag], capture_output=True, text=True,
                               timeout=PATIENCE, env=clean_environment())
        assert ended.returncode == 1 and "crash" in ended.stderr
    ended = subprocess.run([str(SERVER), "--help"], capture_output=True, text=True, timeout=PATIENCE)
    assert ended.returncode == 0 and "crash" not in ended.stdout.lower()


def test_a_misspelt_crash_is_refused():
    for text in ("", "after-admit", ":1", "after-admit:", "after-admit:0", "after-admit:x", "after-admit:1x"):
        ended = subprocess.run([str(PROGRAM)], capture_output=True, text=True, timeout=PATIENCE,
                               env=clean_environment(CRASH_AT=text))
        assert ended.returncode == 1 and "CRASH_AT" in ended.stderr
