"""userintent-ledger as an operator runs it, and what its tests share."""

import json
import subprocess

import pytest

from support.process import BIN_DIR, PATIENCE, clean_environment

TOOL = BIN_DIR / "userintent-ledger"
BY = ["--actor=operator", "--evidence=ticket 4711"]


class Ended:
    def __init__(self, process):
        self.code, self.out, self.err = process.returncode, process.stdout, process.stderr

    def done(self):
        assert self.code == 0 and self.err == "", (self.code, self.err)
        return self

    def json(self):
        return json.loads(self.done().out)

    def refused(self, *words, code=1):
        """One line on stderr, and nothing else."""
        assert self.code == code and self.out == "", (self.code, self.out, self.err)
        assert self.err.startswith("userintent-ledger: ") and self.err.count("\n") == 1, self.err
        for word in words:
            assert word in self.err, self.err
        return self


def run(*words, environment=None, cwd="/", stdin=""):
    return Ended(subprocess.run([str(TOOL), *words], capture_output=True, text=True, timeout=PATIENCE + 60, cwd=cwd,
                                input=stdin, env=clean_environment(**(environment or {}))))


class Ledger:
    def __init__(self, path):
        self.path = path
        self.said = ""

    def __call__(self, *words, **how):
        ended = run(f"--ledger=sqlite:{self.path}", *words, **how)
        self.said += ended.out + ended.err
        return ended

    def json(self, *words):
        return self("--json", *words).json()

    def state(self, request):
        return self.json("show", request.request_id)["requests"][0]["state"].removeprefix("REQUEST_STATE_")

    def unresolved(self, *words):
        return [entry["request_id"] for entry in self.json("unresolved", *words)["requests"]]

    def resolve(self, request, *words, caller="local"):
        return self("resolve", request.request_id, f"--caller={caller}", *words, *BY)


def lose(gateway, sandbox, request, status=500):
    """A request whose outcome nobody knows."""
    sandbox.answer(request.email, status, "")
    gateway.create(request).failed("OUTCOME_UNKNOWN")
    return request


BESIDE = pytest.mark.parametrize("beside", [True, False], ids=["beside the server", "on the file"])


class Down:
    """The server stopped for the time of a with block, unless the tool is to work beside it."""

    def __init__(self, gateway, beside):
        self.gateway, self.beside = gateway, beside

    def __enter__(self):
        if not self.beside:
            self.gateway.stop()

    def __exit__(self, *_):
        if not self.beside:
            self.gateway.restart()
