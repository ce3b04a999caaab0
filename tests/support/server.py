"""The gateway as a process, as its operators see it: the real program, on ports of its own choice. Needs Python's own
library only; gateway.py adds the calls."""

import pathlib
import re
import secrets
import signal
import subprocess
import tempfile
import urllib.error
import urllib.request

from support.process import (BIN_DIR, PATIENCE, Process, as_arguments, clean_environment, parse_log_line, write_secret)
from support.sandbox import CLIENT_ID, CLIENT_SECRET

SERVER = BIN_DIR / "userintent-server"


class Server:
    """`flags` are the flags of the program without their dashes; None drops one of the defaults used here. They say
    what the next start() does. Files are in `directory`, or in one of the server's own that close() removes."""

    def __init__(self, sandbox=None, *, start=True, environment=None, wrapper=(), directory=None, log=None,
                 dies_with_us=False, program=SERVER, **flags):
        self._program = str(program)
        self._directory = tempfile.TemporaryDirectory(prefix="e2e-gateway-") if directory is None else None
        self.directory = pathlib.Path(directory or self._directory.name)
        self.client_id_file = write_secret(self.directory / "client_id", CLIENT_ID)
        self.client_secret_file = write_secret(self.directory / "client_secret", CLIENT_SECRET + "\n")
        self.ledger_key_file = write_secret(self.directory / "ledger.key", secrets.token_bytes(48))
        self.flags = dict(
            listen="127.0.0.1:0",
            metrics_listen="127.0.0.1:0",
            astra_client_id_file=self.client_id_file,
            astra_client_secret_file=self.client_secret_file,
            ledger_key_file=self.ledger_key_file,
            ledger="memory:",
            drain_timeout="15s",
            lame_duck="0s",  # off loopback, too: no test has a load balancer that must notice
        )
        if sandbox is not None:
            self.flags.update(astra_base_url=sandbox.url, astra_ca_file=sandbox.ca_file)
        self.flags.update(flags)
        self.environment = clean_environment(**(environment or {}))
        self._wrapper = list(wrapper)
        self._how = dict(log=log, dies_with_us=dies_with_us)  # the process is started
        self.process = None
        self.address = None
        self.metrics_address = None
        self.webhook_address = None
        self.stopped = True
        self._asked_to_end = False
        self.exit_code = None
        if start:
            self.start()

    # -- the process ---------------------------------------------------------------------------------------------------

    def arguments(self):
        return as_arguments(self.flags)

    def start(self):
        command = [*self._wrapper, self._program, *self.arguments()]
        self.process = Process(command[0], command[1:], env=self.environment, cwd=self.directory, **self._how)
        self.stopped = self._asked_to_end = False
        self._started()
        try:
            self.address = self.announced("listening")["address"]
            if self.flags.get("metrics_listen"):
                self.metrics_address = self.announced("metrics_listening")["address"]
            if self.flags.get("webhook_listen"):
                self.webhook_address = self.announced("webhook_listening")["address"]
        except BaseException:
            self.process.kill()
            self.stopped = True
            raise
        return self

    def _started(self):
        """Called when the process is there and may not serve yet."""

    def announced(self, event):
        """The first line of the log with this event."""
        def look(line):
            entry = parse_log_line(line)
            return entry if entry and entry.get("event") == event else None
        return self.process.wait_line("stderr", look)

    def log(self):
        """Every line of the log as an object; lines that are none are left out."""
        return [entry for entry in map(parse_log_line, self.process.lines()) if entry is not None]

    def assert_alive(self):
        assert self.process.running(), f"the gateway ended with {self.process.popen.poll()}: " \
            f"{self.process.text()[-3000:]}"

    def _before_end(self):
        """Called while the process still runs, before stop() or kill() ends it."""

    def _close_channels(self):
        """Called before SIGTERM and after SIGKILL: ends the connections of this process to the gateway."""

    def kill(self):
        """kill -9."""
        self._before_end()
        self.process.kill()
        self._close_channels()  # not before: the calls would be cancelled first
        self.stopped = True

    def stop(self, timeout=None):
        """SIGTERM, unless the test has asked it to end, and the program must end with 0 by itself."""
        if self.stopped:
            return
        self._before_end()
        self._close_channels()
        # A second signal would end a drain at once, with another exit status.
        code = self.process.terminate(PATIENCE + 20 if timeout is None else timeout, ask=not self._asked_to_end)
        self.stopped = True
        self.exit_code = code
        assert code == 0, f"the gateway's exit status after SIGTERM: {code}; log ends: {self.process.text()[-3000:]}"
        # Every test leaves no call behind, so nothing may have been given up.
        left = [entry.get("in_flight") for entry in self.log() if entry.get("event") == "drained"]
        assert left in ([], [0]), f"calls left when it drained: {left}"

    def start_once(self, *words, **flags):
        """A start of the server that ends by itself, with these flags for this once: how it ended."""
        return subprocess.run([self._program, *as_arguments({**self.flags, **flags}), *words], capture_output=True, text=True,
                              timeout=PATIENCE + 20, env=self.environment, cwd=self.directory)

    def restart(self, **flags):
        """A new process with the same files."""
        if not self.stopped:
            self.stop()
        self.flags.update(flags)
        return self.start()

    def close(self):
        try:
            self.stop()
        finally:
            if self._directory is not None:
                self._directory.cleanup()

    def signal(self, number=signal.SIGTERM):
        self._asked_to_end |= number in (signal.SIGTERM, signal.SIGINT)
        self.process.signal(number)

    # -- HTTP: metrics, livez, readyz ----------------------------------------------------------------------------------

    def http(self, path):
        try:
            with urllib.request.urlopen(f"http://{self.metrics_address}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metrics(self):
        """{name{labels}: value} of every sample."""
        status, text = self.http("/metrics")
        assert status == 200
        samples = {}
        for line in text.splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                samples[name] = float(value)
        return samples

    def metric(self, name):
        """The sum of all samples of that name."""
        values = [value for key, value in self.metrics().items() if re.split(r"[{ ]", key)[0] == name]
        assert values, f"no metric {name}"
        return sum(values)
