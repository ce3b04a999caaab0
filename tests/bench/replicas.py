"""What a call costs where the ledger is in PostgreSQL: in the gateway and in the database, for one replica and for three, with
and without a synchronous standby; and what a ledger of a million rows takes in bytes and at the start.

    build/tools/venv/bin/python tests/bench/replicas.py                               five setups at 256 in flight / 20 ms; 2 minutes
    ... --setups=sqlite,one,one-sync --cells=1/0,64/0,256/20,2000/200 --rounds=4      other ones
    ... --rows=1000000                                                                bytes a row and starts, instead

The database runs on this machine too, and shares it with gateways, generators and sandbox: calls/s and latency are those of all
of them together, CPU a call is each one's own. A round measures every setup once, every other round backwards. Each measurement
has fresh gateways and a fresh database. Any failed or wrong answer, or a number of POSTs that is not the number of calls, fails
the run. Writes replicas.md and replicas.json to build/bench.
"""

import argparse
import contextlib
import json
import pathlib
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import bench  # noqa: E402
import results  # noqa: E402
from support import postgres  # noqa: E402
from support.process import BIN_DIR, REPO, write_secret  # noqa: E402
from support.server import Server  # noqa: E402

# name: (gateways, standby of their database; "" is SQLite's)
SETUPS = {
    "sqlite": (1, ""),
    "one": (1, None),
    "one-sync": (1, "sync"),
    "three": (3, None),
    "three-sync": (3, "sync"),
}
DATABASE = {"shared_buffers": "256MB"}
COLUMNS = [  # of a sample: field, title, digits, scale
    ("per_second", "calls/s", 0, 1), ("p50_us", "p50 ms", 1, 1000), ("p99_us", "p99 ms", 1, 1000),
    ("cpu_us", "gateway CPU us", 0, 1), ("database_us", "database CPU us", 0, 1), ("standby_us", "standby CPU us", 0, 1),
    ("commits", "commits a call", 3, 1), ("bytes", "bytes a row", 0, 1), ("rss_mb", "RSS MB", 0, 1),
    ("foreign", "others", 2, 1),
]


def tree_cpu(pid):
    """CPU seconds of a server of PostgreSQL: of the postmaster, of its processes, and of those that have ended."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    total = sum(map(int, fields[11:15])) / bench.TICK
    for child in postgres.children(pid):
        with contextlib.suppress(OSError):  # it has just ended
            total += bench.cpu_seconds(child)
    return total


def together(samples):
    """What several generators measured at the same time as one sample: rates and counts add up, and of the latencies the worst
    counts."""
    one = {field: sum(s[field] for s in samples) for field in ("calls", "total", "failed", "wrong", "per_second")}
    return {**one, **{field: max(s[field] for s in samples) for field in ("p50_us", "p99_us", "max_us")}}


def shares(total, count):
    """`total` in `count` parts, as equal as can be."""
    return [total // count + (number < total % count) for number in range(count)]


class Generators:
    """One load generator for each gateway, as far as there are calls to keep in flight. Takes a snapshot when the last has begun to measure, and when the first has ended."""

    def __init__(self, program, addresses, cell, args, snapshot):
        self._snapshot = snapshot
        self._lock = threading.Lock()
        self._begun = self._ended = 0
        self.before = self.after = None
        self.samples = []
        self.processes = [
            subprocess.Popen([program, address, f"--in_flight={part}", f"--warmup={args.warmup}", f"--seconds={args.seconds}"],
                             stdout=subprocess.PIPE, text=True)
            for address, part in zip(addresses, shares(cell["in_flight"], len(addresses)), strict=True) if part]

    def run(self):
        readers = [threading.Thread(target=self._read, args=(process,)) for process in self.processes]
        watchdog = threading.Timer(bench.DEADLINE, lambda: [process.kill() for process in self.processes])
        watchdog.start()
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        watchdog.cancel()
        for process in self.processes:
            process.wait()

    def _read(self, process):
        for line in process.stdout:
            with self._lock:
                if line.startswith("begin"):
                    self._begun += 1
                    if self._begun == len(self.processes):
                        self.before = self._snapshot()
                elif line.startswith("end"):
                    self._ended += 1
                    if self._ended == 1:
                        self.after = self._snapshot()
                else:
                    self.samples.append(json.loads(line))


class ReplicaBench(bench.Bench):
    def __init__(self, args, work):
        super().__init__(argparse.Namespace(bin=args.bin, server_arg=args.server_arg, peer_arg=[]), work)
        self.run_args = args
        self._key = write_secret(work / "ledger.key.shared", secrets.token_bytes(48))
        self._clusters = {}
        self._places = 0

    def close(self):
        for cluster in self._clusters.values():
            cluster.close()

    def cluster(self, standby):
        if standby not in self._clusters:
            self._clusters[standby] = postgres.Cluster(standby, **DATABASE)
        return self._clusters[standby]

    def gateway(self, sandbox, ledger, **flags):
        """One, not started. Gateways of one ledger share its key."""
        self._places += 1
        place = self.work / f"gateway{self._places}"
        place.mkdir()
        gateway = Server(sandbox, start=False, program=self.bin / "userintent-server", directory=place, ledger=ledger,
                         drain_timeout=None, max_in_flight=bench.MAX_IN_FLIGHT, ledger_key_file=self._key, **flags)
        gateway.flags.update(arg.removeprefix("--").split("=", 1) for arg in self.args.server_arg)
        return gateway

    @contextlib.contextmanager
    def gateways(self, setup, sandbox):
        """Those of a setup, serving, with the cluster and the name of their database."""
        count, standby = SETUPS[setup]
        cluster = database = None
        if standby == "":
            self._places += 1
            servers = [self.gateway(sandbox, f"sqlite:{self.work}/ledger{self._places}/ledger.db")]
        else:
            cluster = self.cluster(standby)
            database = f"bench{self._places}"
            url = cluster.database(database)
            servers = [self.gateway(sandbox, url, ledger_migrate=True, replica_name=f"replica-{number}",
                                    ledger_single_node=None if standby else True) for number in range(count)]
        with contextlib.ExitStack() as running:
            for server in servers:
                try:
                    server.start()
                except AssertionError as error:
                    raise bench.Failure(str(error)) from None
                running.enter_context(bench.ending(server.process))
                server.process.forget()
            yield servers, cluster, database

    def measure_setup(self, setup, sandbox, cell, number):
        """One sample."""
        sandbox.reset()
        with self.gateways(setup, sandbox) as (servers, cluster, database):
            pids = [server.process.pid for server in servers]
            for pid in pids:
                bench.forget_peak(pid)
            nodes = cluster.nodes if cluster else []
            generators = None

            def snapshot():
                taken = {"gateways": sum(map(bench.cpu_seconds, pids)), "upstream": bench.cpu_seconds(sandbox.process.pid),
                         "loadgen": sum(bench.cpu_seconds(process.pid) for process in generators.processes),
                         "database": tree_cpu(nodes[0].process.pid) if nodes else 0.0,
                         "standby": tree_cpu(nodes[1].process.pid) if len(nodes) > 1 else 0.0}
                taken["ours"] = sum(taken.values())
                taken["work"], taken["steal"] = bench.machine()
                taken["clock"] = time.monotonic()
                return taken

            generators = Generators(self.bin / "bench-loadgen", [server.address for server in servers], cell, self.run_args,
                                    snapshot)
            generators.run()
            before, after = generators.before, generators.after
            if before is None or after is None or len(generators.samples) != len(generators.processes):
                raise bench.Failure(f"{setup}, {results.cell_name(cell)}: no measurement")
            sample = together(generators.samples)
            spent = {name: after[name] - before[name] for name in before}
            calls = max(1.0, sample["per_second"] * spent["clock"])
            account = sandbox.summary()
            sample.update(
                round=number, cpu_us=1e6 * spent["gateways"] / calls,
                database_us=1e6 * spent["database"] / calls if nodes else None,
                standby_us=1e6 * spent["standby"] / calls if len(nodes) > 1 else None,
                loadgen_us=1e6 * spent["loadgen"] / calls, upstream_us=1e6 * spent["upstream"] / calls,
                rss_mb=max(map(bench.peak_mb, pids)), posts=account["posts"], posts_twice=account["duplicate_attempt_ids"],
                commits=sum(self._commits_of(server) for server in servers) / max(1, sample["total"]),
                foreign=max(0.0, spent["work"] - spent["ours"] + spent["steal"]) / (spent["clock"] * bench.core_count()),
                bytes=bytes_a_row(cluster.primary, database) if cluster else None)
        found = results.problems(sample)
        if found:
            raise bench.Failure(f"{setup}, {results.cell_name(cell)}: {'; '.join(found)}")
        if cluster:
            cluster.primary.sql(f"DROP DATABASE {database} WITH (FORCE)")
        return sample

    def _commits_of(self, server):
        self.metrics_address = server.metrics_address
        return self.metric("userintent_ledger_commit_operations_count")


# -- a ledger with many rows ---------------------------------------------------------------------------------------------

# As many SUCCEEDED rows, each of an address of its own, as creations that went well would have left.
FILL = """
INSERT INTO userintent.email (version, confirmed, possible, digest)
  SELECT 2, 1, 0, sha256(('mail' || i)::bytea) FROM generate_series(1, {rows}) i;
INSERT INTO userintent.request (key_id, email, owner, created_at, updated_at, answered_at, caller, reason, verification_type,
    state, sent, http_status, attempts, confirmed, request_id, attempt_id, content, person, user_intent_id, astra_status,
    astra_request_id)
  SELECT one.key_id, email.id, 0, one.created_at, one.updated_at, one.answered_at, one.caller, 0, one.verification_type, one.state,
    one.sent, one.http_status, 1, one.confirmed, gen_random_uuid(), gen_random_uuid(), sha256(('content' || email.id)::bytea),
    sha256(('person' || email.id)::bytea), 'ui_' || replace(gen_random_uuid()::text, '-', ''), one.astra_status,
    one.astra_request_id
  FROM userintent.email, (SELECT * FROM userintent.request LIMIT 1) one WHERE email.id <> one.email ORDER BY email.id;
"""


def bytes_a_row(node, database):
    """Of requests and addresses with their indexes; None: there are none."""
    text = "SELECT (pg_total_relation_size('userintent.request') + pg_total_relation_size('userintent.email')), count(*) " \
        "FROM userintent.request"
    ((size, rows),) = node.sql(text, database)
    return int(size) / int(rows) if int(rows) else None


def starts(replica_bench, rows, count=5):
    """What `rows` rows take, and how long a gateway needs from its start until it serves, then and with an empty database."""
    with contextlib.closing(replica_bench.sandbox()) as sandbox:
        cluster = replica_bench.cluster(None)
        url = cluster.database("many")
        gateway = replica_bench.gateway(sandbox, url, ledger_migrate=True, ledger_single_node=True)

        def timed():
            took = []
            for _ in range(count):
                begun = time.monotonic()
                gateway.start()
                took.append(time.monotonic() - begun)
                gateway.stop()
            return took

        gateway.start()
        subprocess.run([replica_bench.bin / "bench-loadgen", gateway.address, "--in_flight=1", "--warmup=0.1", "--seconds=0.1"],
                       check=True, capture_output=True)
        gateway.stop()
        empty = timed()
        begun = time.monotonic()
        cluster.primary.sql(FILL.format(rows=rows), "many")
        cluster.primary.sql("VACUUM ANALYZE", "many")
        filled = time.monotonic() - begun
        full = timed()
    return {"rows": rows, "bytes_a_row": round(bytes_a_row(cluster.primary, "many")), "fill_s": round(filled, 1),
            "start_s_empty": round(statistics.median(empty), 3), "start_s": round(statistics.median(full), 3),
            "start_s_longest": round(max(full), 3)}


# -- the run -------------------------------------------------------------------------------------------------------------


def table(cell):
    lines = [f"### {results.cell_name(cell)}", "", "| setup | " + " | ".join(title for _, title, _, _ in COLUMNS) + " | noisy |",
             "|---" + "|--:" * (len(COLUMNS) + 1) + "|"]
    for setup, samples in cell["samples"].items():
        shown = [results.show(results.median(samples, field), digits, scale) for field, _, digits, scale in COLUMNS]
        noisy = sum(not results.quiet(s) for s in samples)
        lines.append(f"| {setup} | " + " | ".join(shown) + f" | {noisy}/{len(samples)} |")
    base = cell["samples"].get("sqlite")
    for setup, samples in cell["samples"].items():
        if base and setup != "sqlite":
            lines += ["", f"CPU of the gateway a call, {setup} x sqlite: {results.ratio(samples, base, 'cpu_us'):.2f}"]
    return lines


def compare(args, replica_bench):
    cells = []
    for text in args.cells.split(","):
        in_flight, delay_ms = map(int, text.split("/"))
        cell = bench.closed(in_flight, delay_ms)
        samples = cell["samples"] = {setup: [] for setup in args.setups}
        with contextlib.closing(replica_bench.sandbox(delay_ms)) as sandbox:
            for number in range(args.rounds):
                for setup in args.setups if number % 2 == 0 else args.setups[::-1]:
                    samples[setup].append(replica_bench.measure_setup(setup, sandbox, cell, number))
                bench.say(f"{results.cell_name(cell)}: round {number + 1} of {args.rounds}")
        cells.append(cell)
    text = "\n".join(line for cell in cells for line in [*table(cell), ""])
    (args.out / "replicas.json").write_text(json.dumps(cells, indent=1) + "\n")
    (args.out / "replicas.md").write_text(text)
    print(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--bin", default=BIN_DIR, type=pathlib.Path, help="where the programs are")
    parser.add_argument("--out", default=REPO / "build/bench", type=pathlib.Path, help="where the report goes, and the ledgers meanwhile")
    parser.add_argument("--setups", default=",".join(SETUPS), type=lambda text: text.split(","), help="of " + ", ".join(SETUPS))
    parser.add_argument("--cells", default="256/20", help="in flight / delay of the sandbox in ms, divided by commas")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=2, help="of each measured window")
    parser.add_argument("--warmup", type=float, default=0.7, help="seconds of load before it")
    parser.add_argument("--rows", type=int, help="measure starts with so many rows, and nothing else")
    parser.add_argument("--server_arg", action="append", default=[], metavar="FLAG", help="one more flag of the gateway")
    args = parser.parse_args()
    unknown = set(args.setups) - set(SETUPS)
    if unknown:
        parser.error(f"no setup {', '.join(sorted(unknown))}")
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="work-", dir=args.out) as work:
        with contextlib.closing(ReplicaBench(args, pathlib.Path(work))) as replica_bench:
            try:
                if args.rows:
                    print(json.dumps(starts(replica_bench, args.rows)))
                else:
                    compare(args, replica_bench)
            except bench.Failure as failure:
                print(f"replicas: {failure}", file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
