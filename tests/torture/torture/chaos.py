"""What happens to the programs, at random: a thread disturbs them while callers are at it."""

import collections
import itertools
import random
import signal
import time

from support.process import clean_environment
from torture.stage import FENCE

# The points of the crash suite that a request passes, with the most arrivals until the kill.
POINTS = {
    "after-admit": 8, "before-sending-commit": 3, "after-sending-commit": 3, "before-connect": 1, "after-connect": 1,
    "after-body": 4, "after-status": 4, "after-answer-body": 4, "before-next-attempt-commit": 1,
    "after-next-attempt-commit": 1, "before-outcome-commit": 3, "after-outcome-commit": 3, "before-reply": 6,
    "after-reply": 6,
}
ARMED = 6.0  # seconds; whoever has not reached its point by then is killed wherever it is


class Chaos:
    """Of the thread that made the stage: the kernel ends servers with the thread that started them."""

    def __init__(self, stage, callers, seed, between_failovers=(3.0, 5.0), behind=0.0):
        self.met = collections.Counter()
        self._stage = stage
        self._callers = callers
        self._dice = random.Random(seed)
        self._between = between_failovers
        self._behind = behind
        self.points = collections.Counter()  # kills at each point
        self._points = itertools.cycle(self._dice.sample(sorted(POINTS), len(POINTS)))
        self._next = {}       # the point at which a replica will end, once it is armed; by its number
        self._armed = {}      # until when it may take to get there
        self._frozen = {}     # until when, by number of the replica
        self._held = {}       # the same, of its way to the database
        self._next_failover = time.monotonic() + self._dice.uniform(*between_failovers)
        self._acts = [(self._kill, 5), (self._arm, 14), (self._freeze, 8), (self._freeze_long, 2), (self._cut, 8), (self._lose_answers, 10),
                      (self._hold, 3), (self._cut_by_server, 3), (self._kill_backend, 2), (self._faults, 12),
                      (self._drop, 4), (self._nothing, 34)]

    def run(self, until):
        """Disturbs until until() is true, then lets everything serve."""
        self._faults()
        while not until():
            time.sleep(self._dice.uniform(0.05, 0.4))
            self._callers.assert_alive()
            self._thaw(time.monotonic())
            self._look()
            if time.monotonic() > self._next_failover:
                self._fail_over()
            else:
                acts, weights = zip(*self._acts)
                self._dice.choices(acts, weights)[0]()
        self._thaw(float("inf"))
        for number in list(self._armed):
            self._stage.kill(number)
            self._start(number)
        self._look()
        self._stage.sandbox.clear_faults()

    def _thaw(self, now):
        for number in [number for number, until in self._frozen.items() if until <= now]:
            del self._frozen[number]
            self._stage.servers[number].process.signal(signal.SIGCONT)
        for number in [number for number, until in self._held.items() if until <= now]:
            del self._held[number]
            self._stage.proxies[number].hold(False)

    # -- starting and ending replicas ----------------------------------------------------------------------------------

    def _start(self, number):
        point = next(self._points)
        server = self._stage.servers[number]
        server.environment = clean_environment(CRASH_AT=f"{point}:{self._dice.randint(1, POINTS[point])}", CRASH_ARM="signal")
        self._armed.pop(number, None)
        self._next[number] = point
        self._stage.start(number)

    def _look(self):
        """Who has ended is started again; an armed one that its load does not carry to its point is killed."""
        for number in [number for number, until in self._armed.items() if until < time.monotonic()]:
            self._stage.kill(number)
            self.met["replicas killed"] += 1
            self._start(number)
        for number in self._stage.look(self._armed):
            if number in self._armed:
                self.met["replicas killed at a point"] += 1
                self.points[self._next[number]] += 1
            self._start(number)

    def _arm(self):
        number = self._free()
        if number in self._next:
            self._stage.servers[number].process.signal(signal.SIGUSR1)
            self._armed[number] = time.monotonic() + ARMED
            if self._next[number].endswith("-connect"):
                self._drop()

    # ------------------------------------------------------------------------------------------------------------------

    def _free(self):
        """A replica that runs and reaches the database; None: all are disturbed."""
        disturbed = {*self._frozen, *self._held, *self._armed}
        free = [number for number in range(len(self._stage.servers)) if number not in disturbed]
        return self._dice.choice(free) if free else None

    def _fail_over(self):
        self.met["failovers"] += 1
        victim = self._free() if self._dice.random() < 0.3 else None
        if victim is not None:
            self._stage.kill(victim)
        self._stage.cluster.fail_over(behind=self._behind, alone=self._dice.uniform(0, 0.8))
        if victim is not None:
            self.met["replicas killed"] += 1
            self._start(victim)
        self._next_failover = time.monotonic() + self._dice.uniform(*self._between)

    def _kill(self):
        if (number := self._free()) is not None:
            self.met["replicas killed"] += 1
            self._stage.kill(number)
            time.sleep(self._dice.choice([0, 0, 0.3]))
            self._start(number)

    def _freeze(self, longest=2.5):
        if (number := self._free()) is not None:
            self.met["replicas frozen"] += 1
            self._stage.servers[number].process.signal(signal.SIGSTOP)
            self._frozen[number] = time.monotonic() + self._dice.uniform(0.2, longest)

    def _freeze_long(self):
        self.met["of them for long"] += 1
        self._freeze(FENCE + 5)

    def _cut(self):
        if (number := self._free()) is not None:
            self.met["connections cut"] += self._stage.proxies[number].cut()

    def _lose_answers(self):
        """What was sent has its effect, and the answer never comes: commits in doubt."""
        if (number := self._free()) is not None:
            self.met["answers lost"] += self._stage.proxies[number].cut(answers_lost=self._dice.uniform(0.01, 0.2))

    def _hold(self):
        if (number := self._free()) is not None:
            self.met["networks held up"] += 1
            self._stage.proxies[number].hold()
            self._held[number] = time.monotonic() + self._dice.uniform(0.5, FENCE + 3)

    def _cut_by_server(self):
        self.met["connections cut"] += self._stage.cluster.primary.cut()

    def _kill_backend(self):
        """The server then ends every connection and recovers."""
        self.met["backends killed"] += self._stage.cluster.primary.kill_backends()

    def _drop(self):
        self.met["connections to Astra cut"] += 1
        self._stage.sandbox.drop_connections()

    def _nothing(self):
        pass

    def _faults(self):
        """What Astra does from now on; the first that matches wins, each counts every POST."""
        sandbox, dice = self._stage.sandbox, self._dice
        sandbox.clear_faults()
        self.met["changes of Astra's ways"] += 1

        def fault(kind, every, **more):
            sandbox.fault(kind, times=0, every=every, delay_ms=dice.randint(0, 30), **more)

        fault("status", 9, status=503, headers={"Retry-After": "0"}, body="")
        fault("status", 11, status=429, headers={"Retry-After": "0"}, body="")
        fault("status", 8, status=400, body="")
        fault("status", 23, status=500, body="", commit=True)
        fault("rst_stream", 29, commit=True)
        fault("rst_stream", 19, code="REFUSED_STREAM")
        fault("cut_body", 31, status=201, commit=True)
        sandbox.fault("delay", times=0, delay_ms=dice.choice([2, 10, 40, 150]))
