"""Tests of the instrument: its arithmetic with invented samples, and that the Go peer does what the gateway does.

The second half needs the programs (GATEWAY_BIN_DIR, default build/release/bin) and takes a few seconds.
"""

import argparse
import contextlib
import json
import uuid

import grpc
import pytest

import bench
import replicas
import results
from support import names, postgres
from support.people import PERSON
from support.process import BIN_DIR as BIN
from support.protos import pb, pb_grpc
from support.sandbox import Sandbox


def sample(number, cpu_us=100.0, foreign=0.0, **more):
    base = dict(round=number, calls=1000, total=1100, failed=0, wrong=0, posts=1100, posts_twice=0, per_second=5000.0,
                cpu_us=cpu_us, p50_us=2000.0, p99_us=9000.0, rss_mb=50.0, connections=2, switches=0.5, syscalls=None,
                written=1000.0, commits=None, upstream_us=40.0, loadgen_us=40.0, foreign=foreign)
    return {**base, **more}


def cell(in_flight=256, delay_ms=20, **servers):
    """Servers by name (- written _): one CPU time a round, or whole samples."""
    samples = {name.replace("_", "-"): [s if isinstance(s, dict) else sample(i, s) for i, s in enumerate(group)]
               for name, group in servers.items()}
    return {"in_flight": in_flight, "delay_ms": delay_ms, "samples": samples}


# -- medians and ratios --------------------------------------------------------------------------------------------------


def test_a_ratio_is_taken_within_a_round():
    # The machine was half as fast in round 1: both medians say 0.6, but the server was twice as cheap in every round.
    c = cell(memory_x=[50, 100, 60], go=[100, 200, 120])
    assert results.ratio(c["samples"]["memory-x"], c["samples"]["go"], "cpu_us") == 0.5
    c = cell(memory_x=[50, 100, 90], go=[100, 100, 90])
    assert results.ratio(c["samples"]["memory-x"], c["samples"]["go"], "cpu_us") == 1.0


def test_rounds_are_matched_by_number_and_not_by_place():
    ours = [sample(1, 50), sample(0, 300)]
    assert results.ratio(ours, [sample(0, 300), sample(1, 100)], "cpu_us") == 0.75
    assert results.ratio(ours, [sample(7, 100)], "cpu_us") is None


def test_noisy_rounds_do_not_count_while_half_are_quiet():
    group = [sample(0, 100), sample(1, 900, foreign=0.16), sample(2, 110)]
    assert results.median(group, "cpu_us") == 105
    assert results.median(group[:2], "cpu_us") == 100
    assert results.median([sample(0, 100, foreign=0.5), sample(1, 300, foreign=0.5), sample(2, 10)], "cpu_us") == 100
    # A ratio is noisy when either side was.
    peers = [sample(0, 100), sample(1, 100), sample(2, 100, foreign=0.3)]
    assert results.ratio([sample(i, cpu) for i, cpu in enumerate([50, 60, 500])], peers, "cpu_us") == 0.55


def test_spread_added_and_missing_fields():
    assert results.spread([sample(0, 90), sample(1, 100), sample(2, 110)], "cpu_us") == 0.2
    assert results.median([sample(0)], "syscalls") is None and results.spread([sample(0)], "syscalls") is None
    ours = [sample(0, p50_us=7000.0), sample(1, p50_us=9000.0)]
    assert results.added(ours, [sample(0, p50_us=2000.0), sample(1, p50_us=2000.0)], "p50_us") == 6000


def test_what_proves_a_wrong_run():
    assert results.problems(sample(0)) == []
    assert results.problems(sample(0, posts=None)) == []  # the echo has no upstream
    for wrong in [dict(failed=1), dict(wrong=1), dict(posts=1099), dict(posts=1101), dict(posts_twice=1), dict(calls=0)]:
        assert len(results.problems(sample(0, **wrong))) == 1, wrong


def test_the_transports_come_from_the_servers_help():
    before, after = "  --listen=HOST\n      address\n", "\n  --x=A\n      nghttp2\n"
    assert bench.transports_offered(before + after) == ["libcurl"]
    form = "  --upstream_transport=auto|nghttp2|libcurl  (default: auto)\n      how to talk to Astra"
    assert bench.transports_offered(before + form + after) == ["nghttp2", "libcurl"]
    named = "  --upstream_transport=NAME  (default: auto)\n      auto, libcurl or nghttp2"
    assert bench.transports_offered(before + named + after) == ["nghttp2", "libcurl"]
    assert bench.transports_offered(before + "  --upstream_transport=libcurl\n      the only one" + after) == ["libcurl"]


# -- targets -------------------------------------------------------------------------------------------------------------


def verdicts(cells, rows_before=0):
    return {what: (value, met) for what, _, value, met in results.targets(cells, "x", rows_before)}


def test_targets_are_met_missed_or_not_measured():
    got = verdicts([cell(memory_x=[55], sqlite_x=[76], go=[100], echo=[30])])
    assert got["CPU per call at 256 in flight / 20 ms, memory ledger, x Go"] == ("0.55", True)
    assert got["CPU per call at 256 in flight / 20 ms, SQLite ledger, x Go"] == ("0.76", False)
    assert got["CPU per call at 256 in flight / 20 ms, SQLite ledger, x Go with a ledger"] == (None, None)
    assert got["CPU per call at 2000 in flight / 200 ms, memory ledger, x Go"] == (None, None)
    assert got["p99 at 256 in flight / 20 ms, memory ledger, x Go"] == ("1.00", True)
    assert got["calls/s at 256 in flight / 20 ms, SQLite x memory"] == ("1.00", True)
    assert got["median added by SQLite at 256 in flight / 20 ms"] == ("0.00 ms", True)

    kept = cell(sqlite_x=[30], go=[100], go_sqlite=[100])
    got = verdicts([kept])
    assert got["CPU per call at 256 in flight / 20 ms, SQLite ledger, x Go with a ledger"] == ("0.30", True)
    big = cell(2000, 200, memory_x=[sample(0, rss_mb=91.0)], sqlite_x=[sample(0, rss_mb=89.0)], go=[sample(0)])
    got = verdicts([big])
    assert got["RSS at 2000 in flight, memory ledger"] == ("91 MB", False)
    assert got["RSS at 2000 in flight, sqlite ledger"] == ("89 MB", True)

    rest = cell(1, 0, memory_x=[sample(0, p50_us=300.0)], go=[sample(0, p50_us=310.0)], echo=[sample(0, p50_us=100.0)])
    got = verdicts([rest])
    assert got["median at rest (1 in flight, no delay), memory ledger, x Go"] == ("0.97", True)
    assert got["median at rest, memory ledger, x echo"] == ("3.00", False)


def test_what_is_written_is_judged_with_a_million_rows_only():
    what = "written a call at 256 in flight / 20 ms with 1,000,000 rows, SQLite ledger"
    measured = [cell(sqlite_x=[sample(0, written=4200.0)], go=[sample(0)])]
    assert verdicts(measured)[what] == (None, None)
    assert verdicts(measured, 1_000_000)[what] == ("4.2 KB", False)


def test_slow_sqlite_misses_its_targets():
    got = verdicts([cell(memory_x=[sample(0)], sqlite_x=[sample(0, per_second=3000.0, p50_us=8000.0)], go=[sample(0)])])
    assert got["calls/s at 256 in flight / 20 ms, SQLite x memory"] == ("0.60", False)
    assert got["median added by SQLite at 256 in flight / 20 ms"] == ("6.00 ms", False)


def test_flatness_needs_both_ends_and_leaves_the_call_at_rest_out():
    ends = [cell(64, 0, memory_x=[80]), cell(5000, 200, memory_x=[96])]
    assert results.flatness(ends, "memory-x") == 1.2
    assert results.flatness([cell(1, 0, memory_x=[400]), *ends], "memory-x") == 1.2
    assert results.flatness([*ends, cell(256, 20, memory_x=[60])], "memory-x") == 1.6
    assert results.flatness(ends[:1], "memory-x") is None


def test_the_report_shows_verdicts_and_noise():
    environment = {"date": "2026-01-01", "rounds": 1, "seconds": 2, "machine": "two cores"}
    noisy = {"environment": environment, "transport": "x",
             "cells": [cell(memory_x=[sample(0, 70, foreign=0.4)], go=[sample(0, 100, foreign=0.4)])]}
    text = results.report(noisy)
    assert "too noisy" in text and "MISSED" in text and "### 256 in flight, 20 ms" in text
    assert "| memory-x | 5000 | 70 | 0.70 | - | 2.00 | 9.00 | 1.00 | 50 | 2 | 0.50 | - | - |" in text
    quiet = {**noisy, "cells": [cell(memory_x=[50], go=[100])]}
    assert "too noisy" not in results.report(quiet)


# -- replicas ------------------------------------------------------------------------------------------------------------


def test_generators_that_run_together_are_one_sample():
    parts = [dict(calls=10, total=12, failed=0, wrong=1, per_second=100.0, p50_us=5.0, p99_us=20.0, max_us=30.0, seconds=2.0),
             dict(calls=5, total=7, failed=2, wrong=0, per_second=50.0, p50_us=9.0, p99_us=11.0, max_us=40.0, seconds=2.0)]
    assert replicas.together(parts) == dict(calls=15, total=19, failed=2, wrong=1, per_second=150.0, p50_us=9.0, p99_us=20.0,
                                            max_us=40.0)
    assert replicas.shares(256, 3) == [86, 85, 85] and replicas.shares(1, 1) == [1]


def test_the_table_of_replicas_shows_what_there_is():
    c = cell(sqlite=[sample(0, 100, commits=0.05)], one_sync=[sample(0, 90, database_us=60.0, standby_us=12.0, bytes=705.4)])
    lines = replicas.table(c)
    assert "| sqlite | 5000 | 2.0 | 9.0 | 100 | - | - | 0.050 | - | 50 | 0.00 | 0/1 |" in lines
    assert "| one-sync | 5000 | 2.0 | 9.0 | 90 | 60 | 12 | - | 705 | 50 | 0.00 | 0/1 |" in lines
    assert "CPU of the gateway a call, one-sync x sqlite: 0.90" in lines


# -- the gate ------------------------------------------------------------------------------------------------------------


def test_the_gate_compares_ratios_and_allows_15_per_cent():
    then = {"memory-x": {"cpu_us": 0.5, "per_second": 1.5, "rss_mb": 1.0}}
    assert results.losses({"memory-x": {"cpu_us": 0.57, "per_second": 1.31, "rss_mb": 0.2}}, then) == []
    (lost,) = results.losses({"memory-x": {"cpu_us": 0.58, "per_second": 1.5, "rss_mb": 1.0}}, then)
    assert lost[:4] == ("memory-x", "cpu_us", 0.5, 0.58) and 0.15 < lost[4] < 0.17
    (lost,) = results.losses({"memory-x": {"cpu_us": 0.1, "per_second": 1.2, "rss_mb": 1.0}}, then)
    assert lost[1] == "per_second" and lost[4] == pytest.approx(0.25)
    assert [x[1] for x in results.losses({"memory-x": {"cpu_us": 0.5, "per_second": 1.5}}, then)] == ["rss_mb"]
    assert len(results.losses({}, then)) == 3


def test_a_baseline_holds_ratios_only_and_of_the_gateway_only():
    c = cell(memory_x=[40, 44], sqlite_x=[60, 60], go=[100, 100], echo=[20, 20])
    assert results.gated(c) == {"memory-x": {"cpu_us": 0.42, "per_second": 1.0},
                                "sqlite-x": {"cpu_us": 0.6, "rss_mb": 1.0}}


class InventedBench:
    """Stands in for bench.Bench: each call of run_cell adds the next batch of CPU times of memory-x; go's is 100."""

    transports = ["x"]

    def __init__(self, *batches):
        self.batches = list(batches)
        self.rounds = []

    def run_cell(self, c, servers, rounds):
        self.rounds.append(rounds)
        samples = c.setdefault("samples", {server: [] for server in servers})
        for cpu in self.batches.pop(0):
            number = len(samples["go"])
            for server in servers:
                samples[server].append(sample(number, cpu if server == "memory-x" else 100))


def run_gate(tmp_path, *batches, write=False):
    invented = InventedBench(*batches)
    args = argparse.Namespace(rounds=2, baseline=tmp_path / "baseline.json", write_baseline=write)
    return bench.gate(args, invented), invented


def test_the_gate_passes_retries_and_fails(tmp_path, capsys):
    code, invented = run_gate(tmp_path, [50, 50], [50, 50], [50, 50], write=True)
    assert invented.rounds == [6, 6, 6]  # what everything is held to is measured longer
    kept = json.loads((tmp_path / "baseline.json").read_text())
    assert code == 0 and kept["cells"]["256 in flight, 20 ms"]["memory-x"]["cpu_us"] == 0.5

    code, invented = run_gate(tmp_path, [51, 52], [51, 52], [51, 52])
    assert code == 0 and invented.rounds == [2, 2, 2]

    # An unlucky cell gets more rounds, and those count together with the first.
    code, invented = run_gate(tmp_path, [50, 50], [70, 70], [50, 50, 50, 50], [50, 50])
    assert code == 0 and invented.rounds == [2, 2, 4, 2]

    capsys.readouterr()
    code, invented = run_gate(tmp_path, [50, 50], [70, 70], [70] * 4, [70] * 4, [50, 50])
    told = capsys.readouterr().out
    assert code == 1 and invented.rounds == [2, 2, 4, 4, 2]
    assert "LOSS 256 in flight, 20 ms: memory-x: cpu_us x Go was 0.50, is 0.70 (40 % worse)" in told

    # A baseline of other cells or servers proves nothing about these.
    (tmp_path / "baseline.json").write_text(json.dumps({"machine": "a", "cells": {"256 in flight, 20 ms": {"memory-y": {"cpu_us": 1}}}}))
    code, _ = run_gate(tmp_path, [50, 50], *[[50, 50]] * 5)
    told = capsys.readouterr().out
    assert code == 1 and "memory-y: cpu_us x Go was 1.00, is not measured" in told and "64 in flight, 0 ms: not in the baseline" in told


# -- the peer does what the gateway does -----------------------------------------------------------------------------------

WRONG_FIELDS = [
    ("request_id", "0f8fad5b"), ("email", "ada@example"), ("email", "a@b@example.com"), ("phone", "+11025550123"),
    ("first_name", ""), ("first_name", "\u00a0"), ("last_name", "x" * 101), ("preferred_first_name", "a\u202eb"),
    ("preferred_pronouns", "x" * 101), ("address1", "12 Elm St, P.O. Box 9"), ("address1", "Box 7"), ("address2", "POB 7"),
    ("city", " "), ("state", "il"), ("postal_code", "62701-12"), ("date_of_birth", "1990-02-30"), ("date_of_birth", ""),
    ("ssn_last_four", "0000"), ("ssn_last_four", ""), ("ip_address", "10.0.0.1"), ("ip_address", "::ffff:8.8.8.8"),
    ("ip_address", "2001:db8::1"), ("ip_address", "08.8.8.8"), ("supersedes_request_id", "x"),
]
RIGHT_FIELDS = [
    ("first_name", "\u00fc" * 100), ("last_name", "O'Neil \"Q\" <b>"), ("address1", "12 Boxwood Lane"), ("address1", "RR 2 Box 7"),
    ("address2", "Box 7"), ("preferred_pronouns", "they/them"), ("postal_code", "62701-1234"), ("ip_address", "2606:4700::1111"),
    ("verification_type", 2), ("verification_type", 3),
]
ANSWERS = [  # a fault of the sandbox, and the code that both give
    (dict(kind="status", status=400), "INVALID_ARGUMENT"), (dict(kind="status", status=422), "INVALID_ARGUMENT"),
    (dict(kind="status", status=401), "INTERNAL"), (dict(kind="status", status=404), "INTERNAL"),
    (dict(kind="redirect"), "INTERNAL"), (dict(kind="status", status=303), "UNKNOWN"),
    (dict(kind="status", status=409), "UNKNOWN"), (dict(kind="status", status=500), "UNKNOWN"),
    (dict(kind="status", status=503), "UNKNOWN"),
    (dict(kind="status", status=503, headers={"Retry-After": "60"}), "UNAVAILABLE"),
    (dict(kind="status", status=201, body={"status": "pending"}), "UNKNOWN"), (dict(kind="close"), "UNKNOWN"),
    # Last: the gateway then holds everybody back.
    (dict(kind="status", status=429, headers={"Retry-After": "60"}), "RESOURCE_EXHAUSTED"),
]


class Both:
    """The gateway, the peer and the sandbox that they share."""

    def __init__(self, work):
        # Without the breaker: the peer has none, and one refusal of the credentials would suspend what comes next.
        args = argparse.Namespace(bin=BIN, server_arg=["--upstream_breaker=false"], peer_arg=[])
        self.bench = bench.Bench(args, work)
        self.sandbox = Sandbox()
        self.processes, self.stubs = [], {}
        for server in [f"memory-{self.bench.transports[0]}", "go"]:
            process, address = self.bench.start(server, self.sandbox)
            self.processes.append(process)
            self.stubs[server] = pb_grpc.UserIntentServiceStub(grpc.insecure_channel(address, [("grpc.enable_retries", 0)]))

    def close(self):
        for process in self.processes:
            process.terminate(30)
        self.sandbox.stop()

    def request(self, email, **changes):
        return pb.CreateUserIntentRequest(**{**PERSON, "request_id": str(uuid.uuid4()), "email": email,
                                             "allow_repeat": True, **changes})

    def ask(self, server, request):
        """(code, broken fields, answer)."""
        from google.rpc import error_details_pb2, status_pb2
        try:
            return "OK", [], self.stubs[server].CreateUserIntent(request, timeout=20)
        except grpc.RpcError as error:
            broken = []
            for key, value in error.trailing_metadata() or ():
                if key == "grpc-status-details-bin":
                    for detail in status_pb2.Status.FromString(value).details:
                        bad = error_details_pb2.BadRequest()
                        if detail.Unpack(bad):
                            broken = [violation.field for violation in bad.field_violations]
            if error.details().startswith("broken fields: "):
                broken = error.details().removeprefix("broken fields: ").split(", ")
            return error.code().name, broken, None


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    pair = Both(tmp_path_factory.mktemp("bench"))
    yield pair
    pair.close()


def twice(both, name, **changes):
    """The same request, each under an id and an e-mail address of its own, to both; and what Astra was sent for each."""
    got, bodies = [], []
    for server in both.stubs:
        email = changes.get("email", f"{name}.{server}@example.com")
        got.append(both.ask(server, both.request(email, **{k: v for k, v in changes.items() if k != "email"})))
        posts = both.sandbox.posts(email) if "email" not in changes else []
        for post in posts:
            post["body"].pop("email")
            assert uuid.UUID(post["body"]["metadata"].pop("gateway_attempt_id"))
            assert post["authorization_ok"] and post["proto"] == "HTTP/2.0" and post["path"] == "/v1/user_intent"
        bodies.append([post["body"] for post in posts])
    return got, bodies


@pytest.mark.parametrize("field, value", WRONG_FIELDS, ids=names.of)
def test_both_refuse_the_same_field(both, field, value):
    (ours, peers), bodies = twice(both, f"wrong{WRONG_FIELDS.index((field, value))}", **{field: value})
    assert ours[:2] == peers[:2] == ("INVALID_ARGUMENT", [field])
    assert bodies == [[], []]


def test_both_name_every_broken_field_in_the_same_order(both):
    (ours, peers), _ = twice(both, "many", city="", phone="1", state="", metadata={"a/b": "c"}, verification_type=9)
    assert ours[:2] == peers[:2] == ("INVALID_ARGUMENT", ["phone", "city", "state", "verification_type", "metadata"])


@pytest.mark.parametrize("field, value", [("city", "Springfield"), *RIGHT_FIELDS], ids=names.of)
def test_both_send_the_same_post_and_give_the_same_answer(both, field, value):
    number = RIGHT_FIELDS.index((field, value)) if (field, value) in RIGHT_FIELDS else 99
    (ours, peers), bodies = twice(both, f"right{number}", **{field: value})
    assert ours[0] == peers[0] == "OK"
    assert len(bodies[0]) == 1 and bodies[0] == bodies[1]
    for _, _, answer in (ours, peers):
        assert answer.user_intent.id and answer.astra_request_id and answer.user_intent.HasField("create_time")
        assert answer.user_intent.astra_status == "pending"
        assert answer.user_intent.status == pb.USER_INTENT_STATUS_PENDING


def test_both_refuse_unknown_fields_and_send_nothing_to_validate(both):
    for server in both.stubs:
        request = both.request(f"unknown.{server}@example.com")
        request.MergeFromString(b"\xf8\x07\x01")  # field 127, varint 1
        assert both.ask(server, request)[0] == "INVALID_ARGUMENT"
    (ours, peers), bodies = twice(both, "validate", validate_only=True)
    assert ours[0] == peers[0] == "OK" and bodies == [[], []]
    assert not ours[2].HasField("user_intent") and not peers[2].HasField("user_intent")


@pytest.mark.parametrize("fault, code", ANSWERS, ids=lambda v: v if isinstance(v, str) else f"{v['kind']}{v.get('status', '')}")
def test_both_read_the_upstreams_answer_alike(both, fault, code):
    both.sandbox.call("POST", "/faults", {"match": {}, "times": 0, **fault})
    try:
        (ours, peers), _ = twice(both, f"answer{ANSWERS.index((fault, code))}")
    finally:
        both.sandbox.call("DELETE", "/faults")
    assert ours[0] == peers[0] == code


# -- a real measurement ----------------------------------------------------------------------------------------------------


def test_a_measurement_counts_calls_posts_and_connections(tmp_path):
    args = argparse.Namespace(bin=BIN, server_arg=[], peer_arg=[], syscalls=False, seconds=0.3, warmup=0.1)
    instrument = bench.Bench(args, tmp_path)
    transport = instrument.transports[0]
    for load in [{"in_flight": 4}, {"rate": 100}]:
        c = {**load, "delay_ms": 1}
        instrument.run_cell(c, ["echo", "go", f"memory-{transport}", f"sqlite-{transport}"], 1)
        assert list(c["samples"]) == ["echo", "go", f"memory-{transport}", f"sqlite-{transport}"]
        for server, (s,) in c["samples"].items():
            assert s["calls"] > 0 and s["total"] > s["calls"] and s["rss_mb"] > 1 and s["p99_us"] >= s["p50_us"] > 0
            assert s["posts"] == (None if server == "echo" else s["total"])
            assert s["connections"] is None or s["connections"] >= 1
            assert (s["commits"] is not None and 0 < s["commits"] <= 2.5) == server.startswith("sqlite")
        assert results.summary(c)["go"]["p50_vs_go"] == 1.0


def test_ledgers_may_begin_with_rows(tmp_path):
    """Each measurement begins with a copy of the same ones, and leaves them as they were."""
    args = argparse.Namespace(bin=BIN, server_arg=[], peer_arg=[], syscalls=False, seconds=0.3, warmup=0.1)
    instrument = bench.Bench(args, tmp_path)
    ours = f"sqlite-{instrument.transports[0]}"
    instrument.age([ours, "go-sqlite", "go"], 30)
    aged = sorted(tmp_path.glob("aged-*/ledger.db"))
    assert [path.parent.name for path in aged] == ["aged-go-sqlite", "aged-sqlite"]
    with contextlib.closing(instrument.sandbox()) as sandbox:
        for server in (ours, "go-sqlite"):
            process, _ = instrument.start(server, sandbox)
            with bench.ending(process):
                if server == ours:
                    assert instrument.metric("userintent_ledger_rows") >= 30
    instrument.run_cell({"in_flight": 4, "delay_ms": 1}, [ours, "go-sqlite"], 1)
    assert sorted(tmp_path.glob("aged-*/ledger.db")) == aged and not list(tmp_path.glob("ledger*/"))


def test_a_failed_call_fails_the_run(tmp_path):
    args = argparse.Namespace(bin=BIN, server_arg=["--max_in_flight=1"], peer_arg=[], syscalls=False, seconds=0.2, warmup=0.1)
    instrument = bench.Bench(args, tmp_path)
    with pytest.raises(bench.Failure, match="calls failed"):
        instrument.run_cell({"in_flight": 4, "delay_ms": 5}, [f"memory-{instrument.transports[0]}"], 1)


def measure_replicas(tmp_path, setup, **more):
    args = argparse.Namespace(bin=BIN, server_arg=[], seconds=0.3, warmup=0.1, **more)
    with contextlib.closing(replicas.ReplicaBench(args, tmp_path)) as instrument, \
            contextlib.closing(instrument.sandbox(1)) as sandbox:
        return instrument.measure_setup(setup, sandbox, {"in_flight": 6, "delay_ms": 1}, 0)


def test_a_measurement_of_replicas_counts_every_part(tmp_path):
    postgres.require()
    s = measure_replicas(tmp_path, "three")
    assert s["posts"] == s["total"] > s["calls"] > 0 and s["cpu_us"] > 0 and s["database_us"] > 0 and s["standby_us"] is None
    assert 0 < s["commits"] <= 2.5 and s["bytes"] > 300


def test_the_same_of_sqlite_has_no_database(tmp_path):
    s = measure_replicas(tmp_path, "sqlite")
    assert s["posts"] == s["total"] > 0 and s["database_us"] is None and s["bytes"] is None
