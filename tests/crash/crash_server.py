"""crash-server as a process, and its ledger as the bytes that it left behind."""

import asyncio
import collections
import contextlib
import dataclasses
import json
import pathlib
import secrets
import shutil
import signal
import sqlite3
import tempfile
import time
import uuid

import grpc

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

SENDING, SUCCEEDED, FAILED, UNKNOWN, RELEASED = range(1, 6)
STATE_NAMES = {SENDING: "SENDING", SUCCEEDED: "SUCCEEDED", FAILED: "FAILED", UNKNOWN: "UNKNOWN", RELEASED: "RELEASED"}


@dataclasses.dataclass(frozen=True)
class Row:
    state: int
    reason: int
    confirmed: int
    intent: str
    attempts: int
    attempt_id: str
    superseded: bool
    email: int


@dataclasses.dataclass
class Files:
    """What a process left on disk: rows by request_id, and the counters (confirmed, possible) of each e-mail's number."""
    rows: dict
    counters: dict


def read_files(directory):
    """Reads a copy: opening a database with a log writes to it. The ledger's own process must be dead."""
    with tempfile.TemporaryDirectory(prefix="crash-ledger-") as copy:
        for path in directory.iterdir():
            if path.is_file() and not path.name.endswith(".lock"):  # the administrators' socket is none
                shutil.copy(path, copy)
        with contextlib.closing(sqlite3.connect(pathlib.Path(copy) / "ledger.db")) as database:
            database.execute("PRAGMA synchronous = OFF")  # of the copy: closing it copies the log
            if not database.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                return Files({}, {})
            rows = {str(uuid.UUID(bytes=row[0])): Row(*row[1:6], str(uuid.UUID(bytes=row[6])), row[7] is not None, row[8])
                    for row in database.execute(
                        "SELECT request_id, state, reason, confirmed, user_intent_id, attempts, attempt_id, superseded_by, "
                        "email FROM request")}
            counters = {row[0]: row[1:] for row in database.execute("SELECT id, confirmed, possible FROM email")}
    return Files(rows, counters)


def leak_in(directory, values=()):
    """The name of a file that holds personal data, or None. Values come in other spellings, too."""
    needles = [stem.encode() for stem in STEMS]
    for value in values:
        raw = value.lower().encode()
        needles += [raw, raw.hex().encode(), raw.decode().encode("utf-16-le")]
    for path in filter(pathlib.Path.is_file, directory.iterdir()):
        data = path.read_bytes().lower()
        if any(needle in data for needle in needles):
            return path.name
    return None


# The callers meet at the same addresses all the time, which looks like probing.
POLICY = {"version": 1, "callers": [
    {"name": "local", "methods": ["CreateUserIntent", "GetCreation", "GetUserIntent", "WatchUserIntents"],
     "probe_rate": {"per_second": 100_000, "burst": 1_000_000}}]}


class CrashServer:
    """Processes on one ledger, one after the other. Callers wait for the next one by `serving()`."""

    def __init__(self, sandbox):
        self._server = Server(sandbox, start=False, program=PROGRAM, metrics_listen="", upstream_timeout="8s",
                              drain_timeout=None)
        self.ledger = self._server.directory / "ledger"
        self.flags = self._server.flags
        self.flags["ledger"] = f"sqlite:{self.ledger}/ledger.db"
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
