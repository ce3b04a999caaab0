"""What a caller that floods does to another one: B's success and latency while A is quiet, and while A keeps ten times
--max_in_flight calls under way.

    build/tools/venv/bin/python tests/bench/fair_shares.py --seconds=30

Prints one line of JSON. A and B are two processes with a certificate each; B calls at a fixed rate, whatever the answers.
With --patient, A waits before it repeats what was refused for as long as RetryInfo says, as the client libraries do;
without, it comes at once. All of it shares one machine, so A also costs B the processor time of its own calls.
"""

import argparse
import asyncio
import json
import multiprocessing
import pathlib
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]

import grpc  # noqa: E402
from google.rpc import error_details_pb2, status_pb2  # noqa: E402

from support.certs import Authority  # noqa: E402
from support.people import person  # noqa: E402
from support.protos import pb_grpc  # noqa: E402
from support.sandbox import Sandbox  # noqa: E402
from support.server import Server  # noqa: E402

A, B = "spiffe://test.example/flood", "spiffe://test.example/normal"


def refusal(error):
    """Reason and RetryInfo (in seconds; 0 without) of an error."""
    reason, wait = error.code().name, 0.0
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for any_ in status_pb2.Status.FromString(value).details:
                info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
                if any_.Unpack(info):
                    reason = info.reason
                elif any_.Unpack(retry):
                    wait = retry.retry_delay.ToTimedelta().total_seconds()
    return reason, wait


class Caller:
    """One process that calls. `files`: CA, key, certificate."""

    def __init__(self, address, files):
        ca, key, certificate = (pathlib.Path(file).read_bytes() for file in files)
        credentials = grpc.ssl_channel_credentials(ca, key, certificate)
        options = [("grpc.ssl_target_name_override", "localhost"), ("grpc.enable_retries", 0)]
        self.channel = grpc.aio.secure_channel(address, credentials, options)
        self.stub = pb_grpc.UserIntentServiceStub(self.channel)
        self.reasons = {}

    async def call(self):
        """How long one creation took and why it failed; then also how long to wait."""
        begun = time.monotonic()
        reason, wait = "OK", 0.0
        try:
            await self.stub.CreateUserIntent(person(), timeout=30)
        except grpc.aio.AioRpcError as error:
            reason, wait = refusal(error)
        self.reasons[reason] = self.reasons.get(reason, 0) + 1
        return time.monotonic() - begun, reason, wait


async def flood(address, files, calls, patient, stop):
    caller = Caller(address, files)

    async def one():
        while not stop.is_set():
            _, _, wait = await caller.call()
            if patient and wait:
                await asyncio.sleep(wait)

    await asyncio.gather(*(one() for _ in range(calls)))
    await caller.channel.close()
    return caller.reasons


async def normal(address, files, rate, seconds):
    caller = Caller(address, files)
    await caller.channel.channel_ready()
    for _ in range(20):
        await caller.call()
    caller.reasons = {}
    begun, tasks = time.monotonic(), []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, begun + number / rate - time.monotonic()))
        tasks.append(asyncio.create_task(caller.call()))
    took = sorted(latency for latency, _, _ in await asyncio.gather(*tasks))
    await caller.channel.close()

    def at(share):
        return round(1000 * took[min(len(took) - 1, int(share * len(took)))], 1)

    return {"calls": len(took), "success": caller.reasons.get("OK", 0) / len(took), "reasons": caller.reasons,
            "p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1)}


def in_process(queue, work, *arguments):
    queue.put(asyncio.run(work(*arguments)))


def start(context, work, *arguments):
    queue = context.Queue()
    process = context.Process(target=in_process, args=(queue, work, *arguments), daemon=True)
    process.start()

    def result():
        answer = queue.get(timeout=300)
        process.join(30)
        return answer

    return result


def measure(given, authority, server):
    context = multiprocessing.get_context("spawn")
    files = {name: (authority.ca_file, *authority.issue(name.rsplit("/", 1)[1], [f"URI:{name}"])) for name in (A, B)}
    quiet = start(context, normal, server.address, files[B], given.rate, given.seconds)()
    stop = context.Event()
    flooding = start(context, flood, server.address, files[A], 10 * given.max_in_flight, given.patient, stop)
    end = time.monotonic() + 60
    while server.metric("userintent_upstream_posts_in_flight") < given.max_in_flight:
        if time.monotonic() > end:
            raise RuntimeError("A does not fill the gate")
        time.sleep(0.1)
    flooded = start(context, normal, server.address, files[B], given.rate, given.seconds)()
    stop.set()
    return {"quiet": quiet, "flooded": flooded, "p99_ratio": round(flooded["p99_ms"] / quiet["p99_ms"], 2),
            "flood": flooding()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--max_in_flight", type=int, default=64)
    parser.add_argument("--rate", type=float, default=20, help="calls a second of B")
    parser.add_argument("--delay", default="100ms", help="of the stand-in for Astra")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--patient", action="store_true", help="A waits as RetryInfo says")
    given = parser.parse_args()
    authority = Authority()
    sandbox = Sandbox(delay=given.delay)
    key, certificate = authority.issue("gateway", ["DNS:localhost", "IP:127.0.0.1"])
    with tempfile.TemporaryDirectory(prefix="fair-shares-") as directory:
        server = Server(sandbox, max_in_flight=given.max_in_flight, tls_cert_file=certificate, tls_key_file=key,
                        tls_client_ca_file=authority.ca_file, ledger=f"sqlite:{directory}/ledger.db")
        try:
            print(json.dumps({"max_in_flight": given.max_in_flight, "delay": given.delay, "patient": given.patient,
                              **measure(given, authority, server)}))
        finally:
            server.close()
            sandbox.stop()
            authority.close()


if __name__ == "__main__":
    main()
