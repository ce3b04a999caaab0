"""What open streams of WatchUserIntents cost: memory for each, and CPU while nothing happens; and how long one change
takes until every stream has told it.

    build/tools/venv/bin/python tests/bench/watch_streams.py --streams=10000 --seconds=60

Prints one line of JSON. The streams are one caller's and follow everything; they share connections, --per_connection
each. The caller is a process of its own on the same machine, so the machine should have nothing else to do.
"""

import argparse
import asyncio
import json
import os
import pathlib
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]

import grpc  # noqa: E402

from support.people import person  # noqa: E402
from support.protos import pb, pb_grpc  # noqa: E402
from support.sandbox import Sandbox  # noqa: E402
from support.server import Server  # noqa: E402

TICK = os.sysconf("SC_CLK_TCK")
PATIENCE = 300


def memory_kib(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise RuntimeError("no VmRSS")


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


class Counts:
    def __init__(self):
        self.synced = self.changed = self.heartbeats = self.ended = 0


async def follow(stub, counts):
    call = stub.WatchUserIntents(pb.WatchUserIntentsRequest())
    try:
        async for message in call:
            kind = message.WhichOneof("event")
            counts.synced += kind == "synced"
            counts.changed += kind == "changed"
            counts.heartbeats += kind == "heartbeat"
    except grpc.aio.AioRpcError:
        pass
    counts.ended += 1


async def until(condition, what):
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"waited in vain for {what}")
        await asyncio.sleep(0.02)


async def measure(server, streams, per_connection, seconds):
    pid = server.process.pid
    counts = Counts()
    channels = [grpc.aio.insecure_channel(server.address, [("grpc.use_local_subchannel_pool", 1)])
                for _ in range(-(-streams // per_connection))]
    for channel in channels:
        await channel.channel_ready()
    before = memory_kib(pid)
    begun = time.monotonic()
    tasks = [asyncio.create_task(follow(pb_grpc.UserIntentServiceStub(channels[i // per_connection]), counts))
             for i in range(streams)]
    await until(lambda: counts.synced == streams, "all streams")
    opened = time.monotonic() - begun
    await asyncio.sleep(5)
    idle_memory = memory_kib(pid)
    cpu, mark, beats = cpu_seconds(pid), time.monotonic(), counts.heartbeats
    await asyncio.sleep(seconds)
    took = time.monotonic() - mark
    idle = {"cpu_ms_per_s": round(1000 * (cpu_seconds(pid) - cpu) / took, 1),
            "heartbeats_per_s": round((counts.heartbeats - beats) / took, 1)}

    cpu, mark = cpu_seconds(pid), time.monotonic()
    await pb_grpc.UserIntentServiceStub(channels[0]).CreateUserIntent(person())
    await until(lambda: counts.changed == streams, "the change")
    told = {"all_told_ms": round(1000 * (time.monotonic() - mark)), "cpu_us_per_stream": round(1e6 * (cpu_seconds(pid) - cpu) / streams, 1)}
    after = memory_kib(pid)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for channel in channels:
        await channel.close()
    return {"streams": streams, "connections": len(channels), "ended_early": counts.ended, "opened_s": round(opened, 2),
            "rss_kib_before": before, "rss_kib_idle": idle_memory, "kib_per_stream": round((idle_memory - before) / streams, 2),
            "idle": idle, "one_change": told, "rss_kib_after_change": after}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--streams", type=int, default=10_000)
    parser.add_argument("--per_connection", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=60, help="how long nothing happens")
    given = parser.parse_args()
    sandbox = Sandbox()
    server = Server(sandbox, watch_streams=given.streams, watch_streams_per_caller=given.streams, follow_up="0")
    try:
        print(json.dumps(asyncio.run(measure(server, given.streams, given.per_connection, given.seconds))))
    finally:
        server.close()
        sandbox.stop()


if __name__ == "__main__":
    main()
