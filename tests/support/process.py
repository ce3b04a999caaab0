"""A child process whose output is collected line by line, and what belongs to starting one: its environment, arguments and
secret files."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import threading
import time

REPO = pathlib.Path(__file__).resolve().parents[2]
BIN_DIR = pathlib.Path(os.environ.get("GATEWAY_BIN_DIR", REPO / "build" / "release" / "bin")).resolve()

# Instrumented builds are several times slower, and so is a busy machine; waits end as soon as their condition holds,
# so a generous limit costs nothing where things work.
PATIENCE = float(os.environ.get("E2E_PATIENCE", "30"))


def missing(*programs):
    """What to say where a program (a name in BIN_DIR) is not there; None: all are."""
    for program in programs:
        if not (BIN_DIR / program).exists():
            return f"{BIN_DIR / program} is missing: build it, or set GATEWAY_BIN_DIR"
    return None


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


# Settings of the gateway, and what it does not heed and would warn of (server/base/environment.cc).
_NOT_OURS = ("USERINTENT_", "GRPC_", "CURL_", "SSL_CERT_", "OPENSSL_", "SSLKEYLOGFILE", "CTLOG_FILE", "MALLOC_CONF")


def clean_environment(**extra):
    """This process's environment without settings of the gateway, of its libraries and of proxies."""
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith(_NOT_OURS) and not name.lower().endswith("_proxy")}
    environment.update(extra)
    return environment


def as_arguments(flags):
    """{name: value} as words of a command line; a value of None leaves the flag out."""
    words = []
    for name, value in flags.items():
        if value is None:
            continue
        text = str(value).lower() if isinstance(value, bool) else str(value)
        words.append(f"--{name}={text}")
    return words


def write_secret(path, data):
    """Puts a secret in place as an operator should: 0600, replaced in one step."""
    path = pathlib.Path(path)
    temporary = path.with_suffix(path.suffix + ".new")
    temporary.write_bytes(data if isinstance(data, bytes) else data.encode())
    temporary.chmod(0o600)
    temporary.rename(path)
    return path


def parse_log_line(line):
    """The object of a line of JSON; None: the line is none."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def free_port():
    """A port that nothing listens on at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


_held = []


def refusing_address():
    """An address where connections are refused, for as long as this process lives: its port is taken, so that nobody else
    comes to listen there, and nothing listens."""
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    _held.append(taken)
    return "127.0.0.1:%d" % taken.getsockname()[1]


class Process:
    """One thread per stream reads what the program says. `log`: a file that gets every line of stderr, too.
    `dies_with_us`: the kernel kills the program when the thread that started it ends, however that comes."""

    def __init__(self, program, arguments, env=None, cwd=None, stdin=subprocess.DEVNULL, log=None, dies_with_us=False):
        self.program = str(program)
        self._keep = True
        self._changed = threading.Condition()
        self._lines = {"stdout": [], "stderr": []}
        self._open = len(self._lines)  # streams whose end has not come
        self._log = None if log is None else open(log, "ab", 0)
        command = ["setpriv", "--pdeathsig", "KILL"] if dies_with_us else []
        command += [self.program, *map(str, arguments)]
        self.popen = subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env,
                                      cwd=cwd)
        self._threads = [threading.Thread(target=self._read, args=(name,), daemon=True) for name in self._lines]
        for thread in self._threads:
            thread.start()

    def _read(self, name):
        for line in getattr(self.popen, name):
            if self._log is not None and name == "stderr":
                self._log.write(line)
            if self._keep:
                with self._changed:
                    self._lines[name].append(line.decode("utf-8", "backslashreplace").rstrip("\n"))
                    self._changed.notify_all()
        if self._log is not None and name == "stderr":
            self._log.close()
        with self._changed:
            self._open -= 1
            self._changed.notify_all()

    def lines(self, name="stderr", start=0):
        with self._changed:
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
        end = time.monotonic() + (PATIENCE if timeout is None else timeout)
        while True:
            ended = not self.running()
            if ended:
                self._join()
            for line in self.lines(name, seen):
                seen += 1
                value = accept(line)
                if value is not None:
                    return value
            assert not ended, f"{self.program} ended with {self.popen.returncode}: {self.text()[-2000:]}"
            left = end - time.monotonic()
            assert left > 0, f"waited in vain for: a line on {name} of {self.program}"
            with self._changed:
                # The process ends at the same time as its streams, unless a child of its own holds them open.
                if len(self._lines[name]) == seen:
                    self._changed.wait(min(left, 0.25 if self._open else 0.005))

    def forget(self):
        """From now on lines are read and thrown away: a long run shall not fill this process's memory."""
        self._keep = False

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

    def terminate(self, timeout, ask=True):
        """SIGTERM, unless it was asked already; the exit code, or None if it had to be killed."""
        if ask and self.running():
            self.popen.send_signal(signal.SIGTERM)
        try:
            code = self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            return None
        self._join()
        return code
