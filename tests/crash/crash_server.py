"""crash-server as a process, and its ledger as the bytes that it left behind."""

import asyncio
import collections
import contextlib
import dataclasses
import pathlib
import secrets
import shutil
import signal
import sqlite3
import tempfile
import uuid

import grpc
from harness.gateway import CHANNEL_OPTIONS, as_arguments, clean_environment, parse_log_line, write_secret
from harness.people import STEMS
from harness.process import BIN_DIR, PATIENCE
from harness.protos import pb_grpc
from harness.sandbox import CLIENT_ID, CLIENT_SECRET

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


class CrashServer:
    """Processes on one ledger, one after the other. Callers wait for the next one by `serving()`."""

    def __init__(self, sandbox):
        self._directory = tempfile.TemporaryDirectory(prefix="crash-")
        self.directory = pathlib.Path(self._directory.name)
        self.ledger = self.directory / "ledger"
        self._keys = 0
        self.flags = dict(
            listen="127.0.0.1:0",
            metrics_listen="",
            astra_base_url=sandbox.url,
            astra_ca_file=sandbox.ca_file,
            astra_client_id_file=write_secret(self.directory / "client_id", CLIENT_ID),
            astra_client_secret_file=write_secret(self.directory / "client_secret", CLIENT_SECRET),
            ledger_key_file=self._new_key(),
            ledger=f"sqlite:{self.ledger}/ledger.db",
            upstream_timeout="8s",
        )
        self.process = None
        self.epoch = 0        # counts processes that served
        self.recovered = None
        self.stubs = []
        self.log = []
        self._channels = []
        self._up = False
        self._next = asyncio.Event()  # set when another process serves, and then replaced
        self._reader = None

    def _new_key(self):
        self._keys += 1
        return write_secret(self.directory / f"ledger-{self._keys}.key", secrets.token_bytes(48))

    def rotate_key(self):
        """For the next start."""
        previous = [self.flags["ledger_key_file"], *filter(None, [self.flags.get("ledger_previous_key_file")])]
        self.flags["ledger_previous_key_file"] = ",".join(map(str, previous))
        self.flags["ledger_key_file"] = self._new_key()

    async def start(self, crash_at=None, at_once=False, linger_ms=0, **flags):
        """True: it serves. False: it ended before, by SIGKILL, which only a crash at once may bring about."""
        environment = clean_environment()
        if crash_at:
            environment |= {"CRASH_AT": crash_at, "CRASH_ARM": "start" if at_once else "signal",
                            "CRASH_LINGER_MS": str(linger_ms)}
        self.process = await asyncio.create_subprocess_exec(
            str(PROGRAM), *as_arguments({**self.flags, **flags}), env=environment, cwd=self.directory,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE)
        try:
            entry = await asyncio.wait_for(self._listening(), PATIENCE + 20)
        except TimeoutError:
            raise AssertionError(f"crash-server does not serve: {self.log[-5:]}") from None
        if entry is None:
            code = await self.process.wait()
            assert at_once and code == -signal.SIGKILL, f"the start ended with {code}: {self.log[-3:]}"
            TALLY["kills"] += 1
            return False
        self.recovered = entry["recovered"]
        self._reader = asyncio.create_task(self._read_on())
        self._channels = [grpc.aio.insecure_channel(entry["address"], CHANNEL_OPTIONS) for _ in range(CHANNELS)]
        self.stubs = [pb_grpc.UserIntentServiceStub(channel) for channel in self._channels]
        self.epoch += 1
        self._up = True
        self._next.set()
        self._next = asyncio.Event()
        return True

    async def _listening(self):
        while line := await self.process.stderr.readline():
            self.log.append(line.decode("utf-8", "backslashreplace"))
            entry = parse_log_line(line)
            if entry and entry.get("event") == "listening":
                return entry
        return None

    async def _read_on(self):
        while line := await self.process.stderr.readline():
            self.log.append(line.decode("utf-8", "backslashreplace"))

    async def serving(self, but_not=0):
        """Waits until a process serves whose epoch is not this one, and returns its epoch."""
        while self.epoch == but_not or not self._up:
            await self._next.wait()
        return self.epoch

    def arm(self):
        self.process.send_signal(signal.SIGUSR1)

    def running(self):
        return self.process is not None and self.process.returncode is None

    async def dead(self, timeout):
        """True once the process has ended; it must have been by SIGKILL."""
        try:
            code = await asyncio.wait_for(self.process.wait(), timeout)
        except TimeoutError:
            return False
        assert code == -signal.SIGKILL, f"crash-server ended with {code}: {self.log[-3:]}"
        self._up = False
        return True

    def kill(self):
        """From outside."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()

    async def bury(self):
        """After the end of a process: its connections. Nobody calls any more."""
        TALLY["kills"] += 1
        await self._reader
        for channel in self._channels:
            await channel.close()
        text = "".join(self.log).lower()
        assert not any(stem in text for stem in STEMS), "the log holds personal data"
        self.log = []

    async def stop(self):
        """SIGTERM, and the program must end with 0 by itself."""
        self._up = False
        for channel in self._channels:
            await channel.close()
        self.process.send_signal(signal.SIGTERM)
        code = await asyncio.wait_for(self.process.wait(), PATIENCE + 20)
        await self._reader
        assert code == 0, f"the exit status after SIGTERM: {code}; log ends: {self.log[-3:]}"
        left = [entry["in_flight"] for entry in map(parse_log_line, self.log) if entry and entry.get("event") == "drained"]
        assert left == [0], f"calls left when it drained: {left}"

    async def close(self):
        if self.running():
            self.kill()
            await self.process.wait()
        for channel in self._channels:
            await channel.close()
        self._directory.cleanup()
