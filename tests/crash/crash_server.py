"""crash-server as a process; what it leaves behind is read by ledgers.py."""

import asyncio
import collections
import json
import secrets
import signal
import time

import grpc

from ledgers import OnDisk
from support.gateway import CHANNEL_OPTIONS
from support.people import STEMS
from support.process import BIN_DIR, clean_environment, write_secret
from support.protos import pb_grpc
from support.server import Server

PROGRAM = BIN_DIR / "crash-server"
CHANNELS = 2

# What all tests together did, for the last line of a run.
TALLY = collections.Counter({name: 0 for name in (
    "kills", "calls", "outcomes told", "requests", "POSTs", "intents", "left SENDING by a kill")})


# The callers meet at the same addresses all the time, which looks like probing.
POLICY = {"version": 1, "callers": [
    {"name": "local", "methods": ["CreateUserIntent", "GetCreation", "GetUserIntent", "WatchUserIntents"],
     "probe_rate": {"per_second": 100_000, "burst": 1_000_000}}]}


class CrashServer:
    """Processes on one ledger, one after the other. Callers wait for the next one by `serving()`."""

    def __init__(self, sandbox, ledger=OnDisk):
        """`ledger`: makes one for this directory."""
        self._server = Server(sandbox, start=False, program=PROGRAM, metrics_listen="", upstream_timeout="8s",
                              drain_timeout=None, upstream_breaker=False)  # faults at every point of the code
        self.ledger = ledger(self._server.directory)
        self.flags = self._server.flags
        self.flags.update(self.ledger.flags)
        self.flags["policy_file"] = write_secret(self._server.directory / "policy.json", json.dumps(POLICY))
        self._keys = 0
        self.epoch = 0        # counts processes that served
        self.recovered = None
        self.stubs = []
        self._channels = []
        self._up = False
        self._next = asyncio.Event()  # set when another process serves, and then replaced

    def rotate_key(self):
        """For the next start."""
        previous = [self.flags["ledger_key_file"], *filter(None, [self.flags.get("ledger_previous_key_file")])]
        self.flags["ledger_previous_key_file"] = ",".join(map(str, previous))
        self._keys += 1
        self.flags["ledger_key_file"] = write_secret(self._server.directory / f"ledger-{self._keys}.key",
                                                     secrets.token_bytes(48))

    async def start(self, crash_at=None, at_once=False, linger_ms=0, **flags):
        """True: it serves. False: it ended before, by SIGKILL, which only a crash at once may bring about."""
        self._server.environment = clean_environment()
        if crash_at:
            self._server.environment |= {"CRASH_AT": crash_at, "CRASH_ARM": "start" if at_once else "signal",
                                         "CRASH_LINGER_MS": str(linger_ms)}
        self._server.flags = {**self.flags, **flags}
        try:
            await asyncio.to_thread(self._server.start)
        except AssertionError as error:
            code = self._process.popen.poll()
            assert at_once and code == -signal.SIGKILL, f"the start ended with {code}: {error}"
            TALLY["kills"] += 1
            return False
        self.recovered = self._server.announced("listening")["recovered"]
        self._channels = [grpc.aio.insecure_channel(self._server.address, CHANNEL_OPTIONS) for _ in range(CHANNELS)]
        self.stubs = [pb_grpc.UserIntentServiceStub(channel) for channel in self._channels]
        self.epoch += 1
        self._up = True
        self._next.set()
        self._next = asyncio.Event()
        return True

    @property
    def _process(self):
        return self._server.process

    async def serving(self, but_not=0):
        """Waits until a process serves whose epoch is not this one, and returns its epoch."""
        while self.epoch == but_not or not self._up:
            await self._next.wait()
        return self.epoch

    def arm(self):
        self._server.signal(signal.SIGUSR1)

    def running(self):
        return self._process is not None and self._process.running()

    async def dead(self, timeout):
        """True once the process has ended; it must have been by SIGKILL."""
        end = time.monotonic() + timeout
        while self._process.running():
            if time.monotonic() > end:
                return False
            await asyncio.sleep(0.002)
        code = self._process.wait()
        assert code == -signal.SIGKILL, f"crash-server ended with {code}: {self._process.lines()[-3:]}"
        self._up = False
        self._server.stopped = True
        return True

    def kill(self):
        """From outside."""
        self._server.signal(signal.SIGKILL)

    async def bury(self):
        """After the end of a process: its connections. Nobody calls any more."""
        TALLY["kills"] += 1
        await self._close_channels()
        self._search_log()

    def _search_log(self):
        text = self._process.text().lower()
        assert not any(stem in text for stem in STEMS), "the log holds personal data"

    async def _close_channels(self):
        for channel in self._channels:
            await channel.close()

    async def stop(self):
        """SIGTERM, and the program must end with 0 by itself."""
        self._up = False
        await self._close_channels()
        await asyncio.to_thread(self._server.stop)
        drained = [entry for entry in self._server.log() if entry.get("event") == "drained"]
        assert len(drained) == 1, f"drained {len(drained)} times"
        self._search_log()

    async def close(self):
        if self.running():
            self._server.kill()
        await self._close_channels()
        self._server.stopped = True
        self._server.close()
