"""The benchmark: what a call costs in the gateway, beside a Go gateway that does the same and beside a bare gRPC echo.

    make bench                                    the usual cells, about six minutes
    make bench BENCH_ARGS=--quick                 three cells, 90 s; tells that the instrument works, and little more
    make bench-gate                               ratios to the Go peer against tests/bench/baseline.json
    make bench-gate BENCH_ARGS=--write-baseline   keep today's ratios

docs/benchmark.md says what is measured and how to read it. Rounds alternate between the servers, and servers are compared
only within a round. Any failed or wrong answer, or a number of POSTs that is not the number of calls, fails the run.
"""

import argparse
import contextlib
import datetime
import itertools
import json
import os
import pathlib
import platform
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import results  # noqa: E402
from support.process import REPO, Process, clean_environment, parse_log_line, write_secret  # noqa: E402
from support.sandbox import CLIENT_ID, CLIENT_SECRET, Sandbox  # noqa: E402
from support.server import Server  # noqa: E402

TICK = os.sysconf("SC_CLK_TCK")

CLOSED = [  # in flight, upstream delay in ms
    (1, 0),
    (64, 0),
    (256, 20),
    (2000, 200),
    (5000, 200),
]
OPEN = (1000, 20)  # calls a second, ms
QUICK = [(1, 0), (256, 20), (2000, 200)]
GATE = [(64, 0), (256, 20), (2000, 200)]
AGING = 256  # calls in flight while ledgers are filled
GATE_RETRIES = 2
BASELINE_ROUNDS = 3  # times the rounds of a gate
MAX_IN_FLIGHT = 8192  # above every cell
DEADLINE = 120  # seconds that one measurement may take in all


class Failure(Exception):
    """The run proves nothing, or it proves something wrong."""


# -- what the kernel knows -----------------------------------------------------------------------------------------------


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def machine():
    """(seconds that the machine worked for processes, seconds that the host took away), over all cores. Interrupts are left
    out: they are the network of the run itself and are charged to nobody."""
    user, nice, system, _, _, _, _, steal = map(int, pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:9])
    return (user + nice + system) / TICK, steal / TICK


def switches(pid):
    """Context switches, of its own will and forced, over all threads."""
    total = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that just ended
            for line in (task / "status").read_text().splitlines():
                if "ctxt_switches" in line:
                    total += int(line.split()[1])
    return total


def written(pid):
    """Bytes that the process has had written to the disk: pages that it made dirty, whenever they get there."""
    for line in pathlib.Path(f"/proc/{pid}/io").read_text().splitlines():
        if line.startswith("write_bytes: "):
            return int(line.split()[1])
    raise Failure(f"/proc/{pid}/io has no write_bytes")


def forget_peak(pid):
    pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_mb(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise Failure(f"/proc/{pid}/status has no VmHWM")


def core_count():
    return len(os.sched_getaffinity(0))


class SystemCalls:
    """Counts a process's system calls with perf, where perf is there and may."""

    def __init__(self, pid):
        self._out = tempfile.NamedTemporaryFile("r")  # noqa: SIM115
        self._perf = subprocess.Popen(
            ["perf", "stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-o", self._out.name, "-p", str(pid)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )

    def stop(self):
        self._perf.send_signal(signal.SIGINT)
        self._perf.wait()
        for line in pathlib.Path(self._out.name).read_text().splitlines():
            if "sys_enter" in line and line.split(",")[0].isdigit():
                return int(line.split(",")[0])
        return None


# -- the programs --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def ending(process):
    """For the time of a with block; then SIGTERM."""
    try:
        yield process
    finally:
        process.terminate(30)


def started(process, stream, accept):
    """(process, what accept() gives for the line that tells that it serves); nothing of what it says later is kept."""
    try:
        told = process.wait_line(stream, accept)
    except AssertionError as error:
        process.kill()
        raise Failure(str(error)) from None
    process.forget()
    return process, told


def peer_process(program, *arguments):
    """A program that says in a line of JSON on stdout where it listens."""
    return started(Process(program, arguments, env=clean_environment()), "stdout", parse_log_line)


def transports_offered(help_text):
    """What --upstream_transport takes, best first; a server without the flag has libcurl only."""
    _, flag, rest = help_text.partition("--upstream_transport=")
    about = rest.partition("\n  --")[0]  # up to the next flag
    return [t for t in ("nghttp2", "libcurl") if t in about] if flag else ["libcurl"]


class Bench:
    """One run's settings, files and programs."""

    def __init__(self, args, work):
        self.args = args
        self.bin = args.bin
        self.work = work
        self.metrics_address = None  # of the gateway that was started last
        for name, content in (("client_id", CLIENT_ID), ("client_secret", CLIENT_SECRET)):
            write_secret(work / name, content)
        self.ledger_key = write_secret(work / "ledger_of_all.key", secrets.token_bytes(48))  # aged ones have it, too
        self._ledgers = itertools.count()
        self._aged = {}  # what stands before a measurement, by the word for the server that keeps it
        told = subprocess.run([self.bin / "userintent-server", "--help"], capture_output=True, text=True, check=True).stdout
        self.transports = transports_offered(told)

    def sandbox(self, delay_ms=0):
        """One that costs as little as it can."""
        sandbox = Sandbox(program=self.bin / "astra-sandbox", delay=f"{delay_ms}ms", keep_bodies=False, attempt_limit=0)
        sandbox.process.forget()
        return sandbox

    def start(self, server, sandbox):
        """A fresh process of `server`: echo, go, go-sqlite, or LEDGER-TRANSPORT. Answers (process, address)."""
        if server == results.FLOOR:
            process, told = peer_process(self.bin / "bench-echo")
            return process, told["address"]
        if server in (results.PEER, results.KEEPING_PEER):
            kept = [f"--ledger={self.place(server)}/ledger.db"] if server == results.KEEPING_PEER else []
            process, told = peer_process(
                self.bin / "bench-peer-go", f"--astra_base_url={sandbox.url}", f"--astra_ca_file={sandbox.ca_file}",
                *self.credentials(), *kept, *self.args.peer_arg)
            return process, told["address"]
        ledger, transport = server.split("-")
        place = "memory:" if ledger == "memory" else f"sqlite:{self.place(ledger)}/ledger.db"
        gateway = Server(sandbox, start=False, program=self.bin / "userintent-server", directory=self.work, ledger=place,
                         ledger_key_file=self.ledger_key, drain_timeout=None, max_in_flight=MAX_IN_FLIGHT,
                         upstream_transport=transport if len(self.transports) > 1 else None)
        gateway.flags.update(arg.removeprefix("--").split("=", 1) for arg in self.args.server_arg)
        try:
            gateway.start()
        except AssertionError as error:
            raise Failure(str(error)) from None
        gateway.process.forget()
        self.metrics_address = gateway.metrics_address
        return gateway.process, gateway.address

    def place(self, keeper):
        """A directory of its own for a ledger: empty, or a copy of what was there before all measurements."""
        directory = self.work / f"ledger{next(self._ledgers)}"
        aged = self._aged.get(keeper)
        if aged is None:
            directory.mkdir()
        else:
            shutil.copytree(aged, directory)
            os.sync()  # what is written back later would be the measured one's neighbour
        return directory

    def age(self, servers, rows):
        """Has each that keeps a ledger fill one with so many rows, and keeps it."""
        with contextlib.closing(self.sandbox()) as sandbox:
            for server in servers:
                keeper = server if server == results.KEEPING_PEER else server.split("-")[0]
                if keeper in self._aged or keeper not in (results.KEEPING_PEER, "sqlite"):
                    continue
                say(f"{keeper}: a ledger of {rows} rows")
                process, address = self.start(server, sandbox)
                with ending(process):
                    made = 0
                    while made < rows:
                        load = [f"--in_flight={AGING}", "--warmup=0", f"--seconds={min(20.0, max(0.5, (rows - made) / 10_000)):.1f}"]
                        ended = subprocess.run([self.bin / "bench-loadgen", address, *load], stdout=subprocess.PIPE, text=True,
                                               check=True, timeout=DEADLINE)
                        made += json.loads(ended.stdout.splitlines()[-1])["total"]
                        sandbox.reset()  # it remembers every person
                newest = max(self.work.glob("ledger*/"), key=lambda directory: int(directory.name.removeprefix("ledger")))
                self._aged[keeper] = newest.rename(self.work / f"aged-{keeper}")
                say(f"{keeper}: {made} rows")

    def credentials(self):
        return [f"--astra_client_id_file={self.work}/client_id", f"--astra_client_secret_file={self.work}/client_secret"]

    def measure(self, server, sandbox, cell, number):
        """One sample."""
        args = self.args
        sandbox.reset()
        process, address = self.start(server, sandbox)
        with ending(process):
            load = f"--in_flight={cell['in_flight']}" if cell.get("in_flight") else f"--rate={cell['rate']}"
            forget_peak(process.pid)
            generator = subprocess.Popen(
                [self.bin / "bench-loadgen", address, load, f"--warmup={args.warmup}", f"--seconds={args.seconds}"],
                stdout=subprocess.PIPE, text=True,
            )
            watchdog = threading.Timer(DEADLINE, generator.kill)
            watchdog.start()
            pids = {"server": process.pid, "loadgen": generator.pid, "upstream": sandbox.process.pid, "bench": os.getpid()}
            counter = None
            sample = before = after = None
            for line in generator.stdout:
                if line.startswith("begin"):
                    if args.syscalls:
                        counter = SystemCalls(process.pid)
                    before = self._snapshot(pids)
                elif line.startswith("end"):
                    after = self._snapshot(pids)
                    counted = counter.stop() if counter else None
                else:
                    sample = json.loads(line)
            generator.wait()
            watchdog.cancel()
            if sample is None or before is None or after is None:
                raise Failure(f"{server}, {results.cell_name(cell)}: no measurement")
            # The snapshots are taken a little later than the generator's own marks, so calls are counted at its rate.
            spent = {key: after[key] - before[key] for key in before}
            calls = max(1.0, sample["per_second"] * spent["clock"])
            ours = sum(spent[key] for key in pids)
            capacity = spent["clock"] * core_count()
            sample.update(
                round=number,
                cpu_us=1e6 * spent["server"] / calls,
                loadgen_us=1e6 * spent["loadgen"] / calls,
                upstream_us=1e6 * spent["upstream"] / calls,
                switches=spent["switches"] / calls,
                written=spent["written"] / calls,
                syscalls=counted / calls if args.syscalls and counted is not None else None,
                rss_mb=peak_mb(process.pid),
                foreign=max(0.0, spent["work"] - ours + spent["steal"]) / capacity,
                commits=None, connections=None, posts=None, posts_twice=0,
            )
            if server != results.FLOOR:
                account = sandbox.summary()
                sample.update(connections=account["connections_opened"], posts=account["posts"],
                              posts_twice=account["duplicate_attempt_ids"])
            if server.startswith("sqlite"):
                sample["commits"] = self.metric("userintent_ledger_commit_operations_count") / max(1, sample["total"])
        found = results.problems(sample)
        if found:
            raise Failure(f"{server}, {results.cell_name(cell)}: {'; '.join(found)}")
        return sample

    def _snapshot(self, pids):
        taken = {key: cpu_seconds(pid) for key, pid in pids.items()}
        taken["work"], taken["steal"] = machine()
        taken["switches"] = switches(pids["server"])
        taken["written"] = written(pids["server"])
        taken["clock"] = time.monotonic()
        return taken

    def metric(self, name):
        """Of the gateway that was started last."""
        with urllib.request.urlopen(f"http://{self.metrics_address}/metrics", timeout=30) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith(f"{name} "):
                    return float(line.split()[1])
        raise Failure(f"/metrics has no {name}")

    def run_cell(self, cell, servers, rounds):
        """Adds `rounds` samples of each server to cell["samples"]."""
        samples = cell.setdefault("samples", {})
        first = max((s["round"] for group in samples.values() for s in group), default=-1) + 1
        with contextlib.closing(self.sandbox(cell["delay_ms"])) as sandbox:
            for number in range(first, first + rounds):
                # Every other round backwards, so that nobody always follows the same neighbour.
                for server in servers if number % 2 == 0 else servers[::-1]:
                    samples.setdefault(server, []).append(self.measure(server, sandbox, cell, number))
                say(f"{results.cell_name(cell)}: round {number + 1 - first} of {rounds}" +
                    ("" if all(results.quiet(group[-1]) for group in samples.values()) else ", noisy"))
        # As they were asked for, whichever round ended last.
        cell["samples"] = {server: samples[server] for server in servers}
        for shelf in self.work.glob("ledger*/"):
            shutil.rmtree(shelf)


def say(text):
    print(text, file=sys.stderr, flush=True)


def closed(in_flight, delay_ms):
    return {"in_flight": in_flight, "delay_ms": delay_ms}


# -- the run -------------------------------------------------------------------------------------------------------------


def plan(args, transports):
    """[(cell, servers)] of a run."""
    main, others = transports[0], transports[1:]
    usual = [results.FLOOR, results.PEER, results.KEEPING_PEER, f"memory-{main}", f"sqlite-{main}"]
    if args.cells:
        cells = []
        for text in args.cells.split(","):
            load, delay = text.split("/")
            cells.append({"rate": float(load[:-1]), "delay_ms": int(delay)} if load.endswith("s") else closed(int(load), int(delay)))
    elif args.quick:
        cells = [closed(*c) for c in QUICK]
    elif args.all:
        cells = [closed(n, d) for n in (1, 64, 256, 2000, 5000) for d in (0, 20, 200)]
        cells += [{"rate": OPEN[0], "delay_ms": d} for d in (0, 20, 200)]
    else:
        cells = [closed(*c) for c in CLOSED] + [{"rate": OPEN[0], "delay_ms": OPEN[1]}]
    planned = []
    for cell in cells:
        servers = list(usual)
        for other in others:
            if args.all or args.cells:
                servers += [f"memory-{other}", f"sqlite-{other}"]
            elif not args.quick and cell.get("in_flight") in (64, 256, 2000):
                servers.append(f"memory-{other}")
        if args.servers:
            servers = args.servers.split(",")
        planned.append((cell, servers))
    return planned


def hardware():
    """What ratios to the Go peer depend on, apart from the programs."""
    processor = next((line.split(":")[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
                      if line.startswith("model name")), platform.machine())
    return f"{core_count()} cores, {processor}"


def environment(args, bench):
    def first_line(*argv):
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            return subprocess.run(argv, capture_output=True, text=True, check=True, cwd=REPO).stdout.strip().split("\n")[0]
        return "unknown"

    peer, told = peer_process(bench.bin / "bench-peer-go", "--astra_base_url=https://localhost", *bench.credentials())
    with ending(peer):
        go = f"{told['go']}, grpc-go {told['grpc']}"
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "rounds": args.rounds,
        "seconds": args.seconds,
        **({"ledgers begin with": f"{args.rows:,} rows"} if args.rows else {}),
        "machine": f"{hardware()}, Linux {platform.release()}",
        "load before": f"{os.getloadavg()[0]:.2f}",
        "gateway": first_line(bench.bin / "userintent-server", "--version") + f", commit {first_line('git', 'rev-parse', '--short', 'HEAD')}"
                   + ("" if first_line("git", "status", "--porcelain", "server") == "" else " and changes"),
        "peer": go,
        "fdatasync": f"{fdatasync_us(bench.work):.0f} us where the ledger is",
    }


def fdatasync_us(directory):
    """Median of one small append made durable: what a commit costs at least."""
    took = []
    with open(directory / "sync", "wb", buffering=0) as out:
        for _ in range(30):
            out.write(b"x" * 4096)
            begun = time.perf_counter()
            os.fdatasync(out.fileno())
            took.append(1e6 * (time.perf_counter() - begun))
    return sorted(took)[len(took) // 2]


def compare(args, bench):
    """make bench."""
    result = {"environment": environment(args, bench), "transport": bench.transports[0], "rows": args.rows, "cells": []}
    planned = plan(args, bench.transports)
    if args.rows:
        bench.age([server for _, servers in planned for server in servers], args.rows)
    for cell, servers in planned:
        bench.run_cell(cell, servers, args.rounds)
        result["cells"].append(cell)
    for cell in result["cells"]:
        cell["summary"] = results.summary(cell)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    text = results.report(result)
    (args.out / "report.md").write_text(text)
    print(text)
    say(f"written: {args.out}/report.md, {args.out}/result.json")
    return 0


def gate(args, bench):
    """make bench-gate: 0 when no ratio to the Go peer is more than 15 % worse than in the baseline."""
    main = bench.transports[0]
    servers = [results.PEER, f"memory-{main}", f"sqlite-{main}"]
    baseline = None
    if not args.write_baseline:
        if not args.baseline.exists():
            raise Failure(f"{args.baseline} is missing; --write-baseline makes it")
        baseline = json.loads(args.baseline.read_text())
        if baseline["machine"] != hardware():
            say(f"the baseline is of {baseline['machine']}, this machine has {hardware()}: ratios differ between processors")
    now, failed = {}, []
    for in_flight, delay_ms in GATE:
        cell = closed(in_flight, delay_ms)
        name = results.cell_name(cell)
        then = baseline["cells"].get(name) if baseline else {}
        if then is None:
            failed.append(f"{name}: not in the baseline")
            continue
        bench.run_cell(cell, servers, BASELINE_ROUNDS * args.rounds if args.write_baseline else args.rounds)
        for _ in range(GATE_RETRIES):
            if not results.losses(results.gated(cell), then):
                break
            say(f"{name}: looks worse; more rounds")
            bench.run_cell(cell, servers, 2 * args.rounds)  # all rounds count together
        now[name] = results.gated(cell)
        for server, field, old, new, loss in results.losses(now[name], then):
            failed.append(f"{name}: {server}: {field} x Go was {old:.2f}, is " +
                          ("not measured" if new is None else f"{new:.2f} ({100 * loss:.0f} % worse)"))
    for name, rows in now.items():
        for server, fields in rows.items():
            then = baseline["cells"][name].get(server, {}) if baseline else {}
            print(f"{name}: {server}: " + ", ".join(
                f"{field} x Go {value:.2f}" + (f" (was {then[field]:.2f})" if field in then else "") for field, value in fields.items()))
    if args.write_baseline:
        args.baseline.write_text(json.dumps({"machine": hardware(), "cells": now}, indent=1) + "\n")
        say(f"written: {args.baseline}")
        return 0
    for line in failed:
        print("LOSS", line)
    print("bench-gate: " + (f"{len(failed)} ratios are more than {results.GATE_LOSS:.0%} worse" if failed else "no loss"))
    return 1 if failed else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=REPO / "build/release/bin", type=pathlib.Path, help="where the programs are")
    parser.add_argument("--out", default=REPO / "build/bench", type=pathlib.Path, help="where the report goes, and the ledgers meanwhile")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="three cells, two short rounds")
    size.add_argument("--all", action="store_true", help="every load with every delay, every ledger with every transport; about 25 minutes")
    size.add_argument("--gate", action="store_true", help="compare ratios with the baseline")
    parser.add_argument("--cells", help="only these, for example 256/20,2000/200,1000s/20 (the last one: open loop)")
    parser.add_argument("--servers", help="only these, for example go,memory-nghttp2")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="of each measured window")
    parser.add_argument("--warmup", type=float, help="seconds of load before it")
    parser.add_argument("--rows", type=int, default=0, help="ledgers are not empty: so many rows are made before all else")
    parser.add_argument("--syscalls", action="store_true", help="count system calls, too (perf; costs a few per cent of CPU)")
    parser.add_argument("--server_arg", action="append", default=[], metavar="FLAG", help="one more flag of the gateway")
    parser.add_argument("--peer_arg", action="append", default=[], metavar="FLAG", help="one more flag of the Go peer")
    parser.add_argument("--baseline", default=HERE / "baseline.json", type=pathlib.Path)
    parser.add_argument("--write-baseline", action="store_true", help="with --gate: keep the ratios of this run")
    args = parser.parse_args()
    args.rounds = args.rounds or (2 if args.quick else 4)
    args.seconds = args.seconds or (1.5 if args.quick else 2)
    args.warmup = args.warmup or 0.7
    if args.write_baseline and not args.gate:
        parser.error("--write-baseline goes with --gate")
    if args.rows and args.gate:
        parser.error("--rows does not go with --gate: a baseline is of empty ledgers")
    if args.syscalls and not shutil.which("perf"):
        parser.error("--syscalls needs perf")

    args.out.mkdir(parents=True, exist_ok=True)
    # On the disk of the report, not in a memory file system: a ledger's commits should cost what they cost.
    with tempfile.TemporaryDirectory(prefix="work-", dir=args.out) as work:
        try:
            bench = Bench(args, pathlib.Path(work))
            return gate(args, bench) if args.gate else compare(args, bench)
        except Failure as failure:
            print(f"bench: {failure}", file=sys.stderr)
            return 1


if __name__ == "__main__":
    sys.exit(main())
