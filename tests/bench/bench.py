"""The benchmark: CPU per call of the gateway beside a bare gRPC echo, in one run, rounds alternating.

    python3 tests/bench/bench.py [--bin build/release/bin] [--rounds 3] [--seconds 3] [--out build/bench]

Measures, never judges by the clock: CPU is user + system time of the process from /proc, divided by the calls that
ended between two reads; ratios are taken inside one round. Writes report.md and report.json.
"""

import argparse
import json
import os
import pathlib
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import urllib.request

CELLS = [  # in flight, upstream delay
    (1, "0s"),
    (256, "20ms"),
    (2000, "200ms"),
]
TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def rss_mb(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def switches(pid):
    total = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if "ctxt_switches" in line:
                total += int(line.split()[1])
    return total


class Process:
    """A server that says on one JSON line where it listens."""

    def __init__(self, argv, stream, key):
        self.process = subprocess.Popen(
            argv,
            stdout=subprocess.PIPE if stream == "stdout" else subprocess.DEVNULL,
            stderr=subprocess.PIPE if stream == "stderr" else subprocess.DEVNULL,
            text=True,
        )
        for line in getattr(self.process, stream):
            try:
                self.hello = json.loads(line)
            except json.JSONDecodeError:
                sys.exit(f"{argv[0]} did not start: {line.strip()}")
            if key(self.hello):
                break
        else:
            sys.exit(f"{argv[0]} did not start")
        if stream == "stderr":  # keep the pipe from filling up
            subprocess.Popen(["cat"], stdin=self.process.stderr, stdout=subprocess.DEVNULL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            self.process.kill()

    @property
    def pid(self):
        return self.process.pid


def load(bin_dir, target, pid, in_flight, warmup, seconds):
    generator = subprocess.Popen(
        [bin_dir / "bench-loadgen", target, str(in_flight), str(warmup), str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
    )
    result = None
    before = after = None
    for line in generator.stdout:
        if line.startswith("begin"):
            before = cpu_seconds(pid), switches(pid)
        elif line.startswith("end"):
            after = cpu_seconds(pid), switches(pid), rss_mb(pid)
        else:
            result = json.loads(line)
    generator.wait()
    if result is None or before is None or after is None:
        sys.exit(f"no measurement against {target}")
    calls = max(result["calls"], 1)
    result["cpu_us"] = 1e6 * (after[0] - before[0]) / calls
    result["switches"] = (after[1] - before[1]) / calls
    result["rss_mb"] = after[2]
    return result


def gateway(bin_dir, work, sandbox, extra):
    return Process(
        [
            bin_dir / "userintent-server",
            "--listen=127.0.0.1:0",
            "--metrics_listen=",
            f"--astra_base_url={sandbox.hello['url']}",
            f"--astra_ca_file={sandbox.hello['ca_file']}",
            f"--astra_client_id_file={work}/client_id",
            f"--astra_client_secret_file={work}/client_secret",
            f"--ledger_key_file={work}/ledger_key",
            *extra,
        ],
        "stderr",
        lambda hello: hello.get("event") == "listening",
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default="build/release/bin", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--warmup", type=float, default=1)
    parser.add_argument("--out", default="build/bench", type=pathlib.Path)
    args = parser.parse_args()

    work = pathlib.Path(tempfile.mkdtemp(prefix="bench-"))
    os.chmod(work, 0o700)
    for name, content in [
        ("client_id", "sandbox-client"),
        ("client_secret", "sandbox-secret"),
        ("ledger_key", secrets.token_hex(32)),
    ]:
        with open(work / name, "w", opener=lambda p, f: os.open(p, f, 0o600)) as out:
            out.write(content)

    variants = {"memory": ["--ledger=memory:"], "sqlite": [f"--ledger=sqlite:{work}/ledger.db"]}
    rows = []
    for in_flight, delay in CELLS:
        samples = {name: [] for name in ["echo", *variants]}
        with Process(
            [
                args.bin / "astra-sandbox",
                "--listen=127.0.0.1:0",
                "--admin_listen=127.0.0.1:0",
                f"--self_signed_dir={work}/sandbox",
                f"--delay={delay}",
                "--keep_bodies=false",
                "--attempt_limit=0",
            ],
            "stdout",
            lambda hello: "url" in hello,
        ) as sandbox:
            for round_number in range(args.rounds):
                with Process([args.bin / "bench-echo"], "stdout", lambda hello: "address" in hello) as echo:
                    samples["echo"].append(
                        load(args.bin, echo.hello["address"], echo.pid, in_flight, args.warmup, args.seconds)
                    )
                for name, extra in variants.items():
                    with gateway(args.bin, work, sandbox, extra) as server:
                        result = load(
                            args.bin, server.hello["address"], server.pid, in_flight, args.warmup, args.seconds
                        )
                        result["connections"] = connections_opened(sandbox)
                        samples[name].append(result)
                print(f"{in_flight} in flight, {delay}: round {round_number + 1} done", file=sys.stderr)
                reset(sandbox)
        for name, results in samples.items():
            row = {"in_flight": in_flight, "delay": delay, "server": name, "samples": results}
            for key in ["per_second", "cpu_us", "p50_us", "p99_us", "rss_mb", "switches"]:
                row[key] = statistics.median(r[key] for r in results)
            row["failed"] = sum(r["calls"] - r["ok"] for r in results)
            row["cpu_ratio_to_echo"] = statistics.median(
                r["cpu_us"] / e["cpu_us"] for r, e in zip(results, samples["echo"]) if e["cpu_us"]
            )
            rows.append(row)

    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "report.json").write_text(json.dumps(rows, indent=1))
    lines = [
        "| in flight | upstream | server | calls/s | CPU us/call | x echo | p50 ms | p99 ms | RSS MB | switches/call | failed |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['in_flight']} | {row['delay']} | {row['server']} | {row['per_second']:.0f} | {row['cpu_us']:.0f} "
            f"| {row['cpu_ratio_to_echo']:.2f} | {row['p50_us'] / 1000:.2f} | {row['p99_us'] / 1000:.2f} "
            f"| {row['rss_mb']:.0f} | {row['switches']:.2f} | {row['failed']} |"
        )
    report = "\n".join(lines) + "\n"
    (args.out / "report.md").write_text(report)
    print(report)



def connections_opened(sandbox):
    with urllib.request.urlopen(sandbox.hello["admin"] + "/accounting/summary") as answer:
        return json.load(answer)["connections_opened"]


def reset(sandbox):
    urllib.request.urlopen(urllib.request.Request(sandbox.hello["admin"] + "/reset", method="POST")).read()


if __name__ == "__main__":
    main()
