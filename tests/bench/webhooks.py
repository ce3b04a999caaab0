"""How long the webhook door takes to answer beside a busy gateway: 200 webhooks a second beside 1,000 creations a second.

    build/tools/venv/bin/python tests/bench/webhooks.py [--events=200] [--creations=1000] [--seconds=20] [--directory=DIR]

One process of its own sends the webhooks over connections that stay open, each on its time whatever became of the last
one, and measures from the time at which a webhook was due to its answer. Any answer but 200 fails the run. An answer
waits for the disk: --directory says where the ledger lies (build/bench unless told). The figures hold for a machine on
which nothing else runs; the load average is printed beside them.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]

from support.process import BIN_DIR  # noqa: E402
from support.sandbox import Sandbox  # noqa: E402
from support.server import Server  # noqa: E402
from support.webhook_door import Door, body_of, post  # noqa: E402

CONNECTIONS = 64  # so that a slow answer holds up no other one


class Address:
    """What Door needs of a gateway, in the sending process."""

    def __init__(self, webhook_address):
        self.webhook_address = webhook_address


def send(address, events, seconds, results):
    """Each connection sends every CONNECTIONS-th webhook."""
    start = time.monotonic() + 0.2
    times, failures = [], []

    def run(number):
        with Door(Address(address)) as door:
            for n in range(number, int(events * seconds), CONNECTIONS):
                due = start + n / events
                time.sleep(max(0, due - time.monotonic()))
                door.send(post(body_of(f"bench-{n}", f"intent-{n}")))
                answer = door.answer()
                times.append(time.monotonic() - due)
                if not answer or answer[0] != 200:
                    failures.append(answer and answer[0])
                    return

    threads = [threading.Thread(target=run, args=(number,)) for number in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.put((sorted(times), failures))


def measure(options, directory):
    with contextlib.ExitStack() as stack:
        sandbox = Sandbox(directory=directory / "sandbox", keep_bodies="false", dies_with_us=True)
        stack.callback(sandbox.stop)
        server = Server(sandbox, directory=directory, dies_with_us=True, ledger=f"sqlite:{directory}/ledger/ledger.db",
                        webhook_listen="127.0.0.1:0", email_attempt_limit=0)
        stack.callback(server.close)
        generator = None
        if options.creations:
            generator = subprocess.Popen(
                [BIN_DIR / "bench-loadgen", server.address, f"--rate={options.creations}", "--warmup=2",
                 f"--seconds={options.seconds + 2}"], stdout=subprocess.PIPE, text=True)
            stack.callback(generator.kill)
            time.sleep(2)
        results = multiprocessing.Queue()
        sender = multiprocessing.Process(target=send, args=(server.webhook_address, options.events, options.seconds, results))
        sender.start()
        times, failures = results.get(timeout=options.seconds + 120)
        sender.join()
        creations = generator.communicate(timeout=120)[0] if generator else ""
        assert not failures, f"answers: {failures}"
        return times, creations


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=float, default=200)
    parser.add_argument("--creations", type=float, default=1000)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--directory", type=pathlib.Path, default=BIN_DIR.parent.parent / "bench")
    options = parser.parse_args()
    before = os.getloadavg()[0]
    root = options.directory
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as directory:
        (pathlib.Path(directory) / "sandbox").mkdir()
        times, creations = measure(options, pathlib.Path(directory))
    report = {f"p{p}_ms": round(1e3 * times[min(len(times) - 1, int(len(times) * p / 100))], 2) for p in (50, 90, 99)}
    print(json.dumps({"webhooks": len(times), **report, "max_ms": round(1e3 * times[-1], 2),
                      "load_before": round(before, 1), "load_after": round(os.getloadavg()[0], 1),
                      "cores": os.cpu_count(), "creations": json.loads(creations.splitlines()[-1]) if creations else None}))


if __name__ == "__main__":
    main()
