"""A child process whose output is collected line by line, and polling helpers."""

import os
import pathlib
import signal
import subprocess
import threading
import time

from harness.protos import REPO

BIN_DIR = pathlib.Path(os.environ.get("GATEWAY_BIN_DIR", REPO / "build" / "release" / "bin")).resolve()

# Instrumented builds are several times slower, and so is a busy machine; waits end as soon as their condition holds,
# so a generous limit costs nothing where things work.
PATIENCE = float(os.environ.get("E2E_PATIENCE", "20"))


def wait_for(condition, what, timeout=None, interval=0.01):
    """Polls until condition() is true and returns its value; AssertionError after the timeout."""
    end = time.monotonic() + (PATIENCE if timeout is None else timeout)
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited in vain for: {what}")
        time.sleep(interval)
        interval = min(interval * 1.5, 0.1)


class Process:
    def __init__(self, program, arguments, env=None, cwd=None, stdin=subprocess.DEVNULL):
        self.program = str(program)
        self._lock = threading.Lock()
        self._lines = {"stdout": [], "stderr": []}
        self.popen = subprocess.Popen([self.program, *arguments], stdin=stdin, stdout=subprocess.PIPE,
                                      stderr=subprocess.PIPE, env=env, cwd=cwd)
        self._threads = [threading.Thread(target=self._read, args=(name,), daemon=True) for name in self._lines]
        for thread in self._threads:
            thread.start()

    def _read(self, name):
        for line in getattr(self.popen, name):
            with self._lock:
                self._lines[name].append(line.decode("utf-8", "backslashreplace").rstrip("\n"))

    def lines(self, name="stderr", start=0):
        with self._lock:
            return self._lines[name][start:]

    def text(self, name="stderr"):
        return "\n".join(self.lines(name))

    @property
    def pid(self):
        return self.popen.pid

    def running(self):
        return self.popen.poll() is None

    def wait_line(self, name, accept, timeout=None):
        """The first value other than None that accept(line) gives for a line; fails early when the process ended."""
        seen = 0

        def look():
            nonlocal seen
            ended = not self.running()
            if ended:
                self._join()
            for line in self.lines(name, seen):
                seen += 1
                value = accept(line)
                if value is not None:
                    return (value,)
            assert not ended, f"{self.program} ended with {self.popen.returncode}: {self.text()[-2000:]}"
            return None

        return wait_for(look, f"a line on {name} of {self.program}", timeout)[0]

    def _join(self):
        for thread in self._threads:
            thread.join(5)

    def signal(self, number):
        self.popen.send_signal(number)

    def wait(self, timeout=None):
        code = self.popen.wait(PATIENCE if timeout is None else timeout)
        self._join()
        return code

    def kill(self):
        if self.running():
            self.popen.send_signal(signal.SIGKILL)
        self.popen.wait(10)
        self._join()

    def terminate(self, timeout):
        """SIGTERM; the exit code, or None if it had to be killed."""
        if self.running():
            self.popen.send_signal(signal.SIGTERM)
        try:
            code = self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            return None
        self._join()
        return code
