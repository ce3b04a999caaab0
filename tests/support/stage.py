"""Sandbox and gateway for the suites of other languages and for shell; Python's own library is enough for it.

    PYTHONPATH=tests python3 -m support.stage [--directory DIR] [--sandbox NAME=VALUE]... [--gateway NAME=VALUE]...

When both serve, it prints one line of JSON; it ends them in order, the gateway first, when its stdin ends or SIGTERM or
SIGINT comes. Should it be killed, the kernel kills both. The exit status is 0 if the gateway has drained and ended with 0;
otherwise stderr says what went wrong. Flags that are not given have the program's own defaults.

    {"gateway": "127.0.0.1:1", "metrics": "127.0.0.1:2", "sandbox": "https://127.0.0.1:3", "admin": "http://127.0.0.1:4",
     "webhooks": where the sandbox sends them ("" without the gateway's flag webhook_listen), "ca_file": of the sandbox,
     "directory": of all files, "log": of the gateway, "ledger": "sqlite:...",
     "person": {a valid CreateUserIntentRequest in JSON, for one creation}}
"""

import argparse
import contextlib
import json
import pathlib
import select
import signal
import sys
import tempfile

from support import people
from support.process import missing
from support.sandbox import Sandbox
from support.server import Server


def flag(text):
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text} is not NAME=VALUE")
    return name, value


def arguments():
    parser = argparse.ArgumentParser(prog="support.stage", description=__doc__.splitlines()[0])
    parser.add_argument("--directory", type=pathlib.Path, help="for all files; one of its own, removed at the end, if unset")
    parser.add_argument("--sandbox", type=flag, action="append", default=[], metavar="NAME=VALUE", help="a flag of astra-sandbox")
    parser.add_argument("--gateway", type=flag, action="append", default=[], metavar="NAME=VALUE",
                        help="a flag of userintent-server")
    return parser.parse_args()


def wait(server, sandbox, ended):
    """Until stdin ends or a signal came. AssertionError: a program ended by itself."""
    while not ended:
        if select.select([sys.stdin], [], [], 0.2)[0] and not sys.stdin.buffer.read1(4096):
            return
        server.stopped = not server.process.running()
        server.assert_alive()
        assert sandbox.process.running(), f"the sandbox ended: {sandbox.process.text()[-1000:]}"


def serve(directory, sandbox_flags, gateway_flags):
    ended = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: ended.append(number))
    with contextlib.ExitStack() as stack:
        sandbox = Sandbox(directory=directory, log=directory / "sandbox.log", dies_with_us=True, **sandbox_flags)
        stack.callback(sandbox.stop)
        log = directory / "gateway.log"
        ledger = f"sqlite:{directory / 'ledger' / 'ledger.db'}"
        server = Server(sandbox, directory=directory, log=log, dies_with_us=True,
                        **{"ledger": ledger, "drain_timeout": None, **gateway_flags})
        stack.callback(server.close)
        webhooks = f"http://{server.webhook_address}/astra/webhooks" if server.webhook_address else ""
        if webhooks:
            sandbox.webhooks(webhooks)
        print(json.dumps({
            "webhooks": webhooks, "gateway": server.address, "metrics": server.metrics_address, "sandbox": sandbox.url,
            "admin": sandbox.admin.geturl(), "ca_file": sandbox.ca_file, "directory": str(directory), "log": str(log),
            "ledger": server.flags["ledger"], "person": people.fields(),
        }), flush=True)
        wait(server, sandbox, ended)


def main():
    options = arguments()
    if absent := missing("astra-sandbox", "userintent-server"):
        sys.exit(f"error: {absent}")
    with contextlib.ExitStack() as stack:
        directory = options.directory or pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stage-")))
        try:
            serve(directory.resolve(), dict(options.sandbox), dict(options.gateway))
        except AssertionError as error:
            sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
