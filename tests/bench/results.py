"""What the benchmark makes of its samples: medians, ratios, targets, the gate, and the report. No process is started here.

A sample is what one server did in one round of one cell (a dict, see bench.py). Servers are compared only within a round:
a ratio is the median over the rounds of sample / peer's sample. A round during which others used more than NOISY of the
machine is marked; where at least half of the rounds are quiet, only those count.
"""

import statistics

NOISY = 0.15  # share of the machine that others used
GATE_LOSS = 0.15
PEER = "go"
KEEPING_PEER = "go-sqlite"  # the same with a ledger that keeps the gateway's promise
FLOOR = "echo"

# Fields of a sample with a median of their own in the report.
FIELDS = ["per_second", "cpu_us", "p50_us", "p99_us", "rss_mb", "connections", "switches", "syscalls", "commits", "written",
          "upstream_us", "loadgen_us", "foreign"]

# What the gate compares, as ratios to the peer, and whether more is better. Latencies are left out: closed-loop medians
# follow from calls/s, and p99 is mostly the machine's. calls/s is left out for SQLite, because it follows the disk, which
# the peer does not use; RSS for the ledger in memory, because it grows with every call, so that a faster gateway would look
# like a fatter one.
GATED = {"cpu_us": False, "per_second": True, "rss_mb": False}
NOT_GATED = {("sqlite", "per_second"), ("memory", "rss_mb")}


def cell_name(cell):
    load = f"{cell['in_flight']} in flight" if cell.get("in_flight") else f"{cell['rate']:.0f}/s open loop"
    return f"{load}, {cell['delay_ms']} ms"


def quiet(sample):
    return sample["foreign"] <= NOISY


def usable(samples):
    """The quiet ones, where they are at least half; else all of them."""
    calm = [s for s in samples if quiet(s)]
    return calm if 2 * len(calm) >= len(samples) else samples


def median(samples, field):
    """Median of a field over the usable samples that have it; None where none has."""
    values = [s[field] for s in usable(samples) if s.get(field) is not None]
    return statistics.median(values) if values else None


def spread(samples, field):
    """(largest - smallest) / median over the usable samples; None where there is nothing to compare."""
    values = [s[field] for s in usable(samples) if s.get(field) is not None]
    middle = statistics.median(values) if values else 0
    return (max(values) - min(values)) / middle if middle else None


def ratio(samples, peers, field):
    """Median over the rounds of sample / peer, both of the same round. None where no round has both."""
    by_round = {p["round"]: p for p in peers}
    pairs = [(s, by_round[s["round"]]) for s in samples if s["round"] in by_round]
    pairs = [(s, p) for s, p in pairs if s.get(field) is not None and p.get(field)]
    calm = [(s, p) for s, p in pairs if quiet(s) and quiet(p)]
    if 2 * len(calm) >= len(pairs):
        pairs = calm
    return statistics.median(s[field] / p[field] for s, p in pairs) if pairs else None


def added(samples, peers, field):
    """Median over the rounds of sample - peer, both of the same round."""
    by_round = {p["round"]: p for p in peers}
    pairs = [(s, by_round[s["round"]]) for s in samples if s["round"] in by_round]
    calm = [(s, p) for s, p in pairs if quiet(s) and quiet(p)]
    if 2 * len(calm) >= len(pairs):
        pairs = calm
    return statistics.median(s[field] - p[field] for s, p in pairs) if pairs else None


def summary(cell):
    """server -> its medians, spread and ratios in this cell."""
    table = {}
    for server, samples in cell["samples"].items():
        row = {field: median(samples, field) for field in FIELDS}
        row["cpu_spread"] = spread(samples, "cpu_us")
        row["rounds"] = len(samples)
        row["noisy_rounds"] = sum(not quiet(s) for s in samples)
        for name, against in [("go", PEER), ("echo", FLOOR)]:
            peers = cell["samples"].get(against, [])
            row[f"cpu_vs_{name}"] = ratio(samples, peers, "cpu_us")
            row[f"p50_vs_{name}"] = ratio(samples, peers, "p50_us")
            row[f"p99_vs_{name}"] = ratio(samples, peers, "p99_us")
            row[f"per_second_vs_{name}"] = ratio(samples, peers, "per_second")
            row[f"rss_vs_{name}"] = ratio(samples, peers, "rss_mb")
        table[server] = row
    return table


def problems(sample):
    """Why a sample proves that something answered wrongly; empty when all is well."""
    found = []
    if sample["failed"]:
        found.append(f"{sample['failed']} calls failed")
    if sample["wrong"]:
        found.append(f"{sample['wrong']} answers were wrong")
    if sample["posts"] is not None and sample["posts"] != sample["total"]:
        found.append(f"{sample['total']} calls made {sample['posts']} POSTs")
    if sample["posts_twice"]:
        found.append(f"{sample['posts_twice']} POSTs were sent twice")
    if sample["calls"] == 0:
        found.append("no call ended within the window")
    return found


# -- targets -----------------------------------------------------------------------------------------------------------


def find(cells, in_flight, delay_ms):
    for cell in cells:
        if cell.get("in_flight") == in_flight and cell["delay_ms"] == delay_ms:
            return cell
    return None


def find_open(cells):
    return next((cell for cell in cells if cell.get("rate")), None)


def targets(cells, transport, rows_before=0):
    """(what, limit as text, measured or None, met or None) of each target, for the gateway with this transport. rows_before:
    what ledgers begin with; only a million says what a call writes beside its merges."""
    memory, sqlite = f"memory-{transport}", f"sqlite-{transport}"
    rows = []

    def at_most(what, limit, value, digits=2, unit=""):
        rows.append((what, f"<= {limit}{unit}", value if value is None else f"{value:.{digits}f}{unit}",
                     None if value is None else value <= limit))

    def at_least(what, limit, value, digits=2):
        rows.append((what, f">= {limit}", value if value is None else f"{value:.{digits}f}",
                     None if value is None else value >= limit))

    def of(cell, server, against, field):
        if cell is None or server not in cell["samples"] or against not in cell["samples"]:
            return None
        return ratio(cell["samples"][server], cell["samples"][against], field)

    for in_flight, delay_ms in [(256, 20), (2000, 200)]:
        cell = find(cells, in_flight, delay_ms)
        where = f"at {in_flight} in flight / {delay_ms} ms"
        at_most(f"CPU per call {where}, memory ledger, x Go", 0.60, of(cell, memory, PEER, "cpu_us"))
        most = 0.72 if in_flight == 256 else 0.62
        at_most(f"CPU per call {where}, SQLite ledger, x Go", most, of(cell, sqlite, PEER, "cpu_us"))
        if in_flight == 256:
            at_most(f"CPU per call {where}, SQLite ledger, x Go with a ledger", 0.35, of(cell, sqlite, KEEPING_PEER, "cpu_us"))
        for server in [memory, sqlite]:
            at_most(f"p99 {where}, {server.split('-')[0]} ledger, x Go", 1.0, of(cell, server, PEER, "p99_us"))
    cell = find(cells, 2000, 200)
    for server in [memory, sqlite]:
        value = median(cell["samples"][server], "rss_mb") if cell and server in cell["samples"] else None
        at_most(f"RSS at 2000 in flight, {server.split('-')[0]} ledger", 90, value, 0, " MB")
    at_least("calls/s at 2000 in flight / 200 ms, SQLite x Go", 1.0, of(cell, sqlite, PEER, "per_second"))

    cell = find(cells, 1, 0)
    at_most("median at rest (1 in flight, no delay), memory ledger, x Go", 1.0, of(cell, memory, PEER, "p50_us"))
    at_most("median at rest, memory ledger, x echo", 2.5, of(cell, memory, FLOOR, "p50_us"))
    value = median(cell["samples"][sqlite], "p50_us") if cell and sqlite in cell["samples"] else None
    at_most("median at rest, SQLite ledger", 0.75, value if value is None else value / 1000, 2, " ms")

    for server in [memory, sqlite]:
        at_most(f"CPU per call from 64 to 5000 in flight, {server.split('-')[0]} ledger, most over least", 1.25,
                flatness(cells, server))

    cell = find(cells, 256, 20)
    at_least("calls/s at 256 in flight / 20 ms, SQLite x memory", 0.7, of(cell, sqlite, memory, "per_second"))
    for what, where in [("at 256 in flight / 20 ms", cell), ("at 1000/s open loop", find_open(cells))]:
        value = None
        if where and memory in where["samples"] and sqlite in where["samples"]:
            value = added(where["samples"][sqlite], where["samples"][memory], "p50_us")
        at_most(f"median added by SQLite {what}", 5, value if value is None else value / 1000, 2, " ms")
    value = None
    if cell and sqlite in cell["samples"] and rows_before >= 1_000_000:
        value = (median(cell["samples"][sqlite], "written") or 0) / 1000 or None
    at_most("written a call at 256 in flight / 20 ms with 1,000,000 rows, SQLite ledger", 3, value, 1, " KB")
    return rows


def flatness(cells, server):
    """Largest over smallest CPU per call of the cells with 64 or more in flight; None unless 64 and 5000 were measured."""
    loads = {c["in_flight"]: median(c["samples"][server], "cpu_us") for c in cells
             if (c.get("in_flight") or 0) >= 64 and server in c["samples"]}
    if 64 not in loads or 5000 not in loads:
        return None
    return max(loads.values()) / min(loads.values())


# -- the gate ----------------------------------------------------------------------------------------------------------


def gated(cell):
    """server -> {field: ratio to the peer}: what a baseline keeps of a cell. Ratios only, so that it outlives a machine."""
    peers = cell["samples"][PEER]
    return {server: {field: round(value, 3) for field in GATED
                     if (server.split("-")[0], field) not in NOT_GATED
                     and (value := ratio(samples, peers, field)) is not None}
            for server, samples in cell["samples"].items() if server not in (PEER, FLOOR)}


def losses(now, then):
    """What got worse by more than GATE_LOSS: [(server, field, ratio then, ratio now, loss)]. A server or a field that the
    baseline has and this run has not is a loss, too: it cannot be shown to be as good."""
    found = []
    for server, fields in then.items():
        for field, old in fields.items():
            new = now.get(server, {}).get(field)
            if new is None:
                found.append((server, field, old, None, None))
                continue
            # The same factor in both directions: half the speed is twice the cost.
            loss = old / new - 1 if GATED[field] else new / old - 1
            if loss > GATE_LOSS:
                found.append((server, field, old, new, loss))
    return found


# -- the report --------------------------------------------------------------------------------------------------------


def show(value, digits=0, scale=1.0):
    return "-" if value is None else f"{value / scale:.{digits}f}"


COLUMNS = ["server", "calls/s", "CPU us", "x Go", "x echo", "p50 ms", "p99 ms", "p99 x Go", "RSS MB", "conns",
           "switches", "syscalls", "commits", "KB written", "spread", "noisy"]


def cell_table(cell):
    table = summary(cell)
    lines = [f"### {cell_name(cell)}", "", "| " + " | ".join(COLUMNS) + " |", "|---" + "|--:" * (len(COLUMNS) - 1) + "|"]
    for server, row in table.items():
        lines.append("| " + " | ".join([
            server, show(row["per_second"]), show(row["cpu_us"]), show(row["cpu_vs_go"], 2), show(row["cpu_vs_echo"], 2),
            show(row["p50_us"], 2, 1000), show(row["p99_us"], 2, 1000), show(row["p99_vs_go"], 2), show(row["rss_mb"]),
            show(row["connections"]), show(row["switches"], 2), show(row["syscalls"], 1), show(row["commits"], 3),
            show(row["written"], 1, 1000),
            "-" if row["cpu_spread"] is None else f"{100 * row['cpu_spread']:.0f} %",
            f"{row['noisy_rounds']}/{row['rounds']}",
        ]) + " |")
    return lines


def target_table(rows):
    lines = ["| target | limit | measured | |", "|---|--:|--:|---|"]
    for what, limit, value, met in rows:
        verdict = "not measured" if met is None else "met" if met else "MISSED"
        lines.append(f"| {what} | {limit} | {value if value is not None else '-'} | {verdict} |")
    return lines


def report(result):
    environment = result["environment"]
    lines = ["# Benchmark", "", f"{environment['date']}, {environment['seconds']:g} s windows, {environment['rounds']} rounds.", ""]
    lines += ["| | |", "|---|---|"] + [f"| {k} | {v} |" for k, v in environment.items() if k not in ("date", "seconds", "rounds")]
    cells = result["cells"]
    samples = [s for c in cells for group in c["samples"].values() for s in group]
    noisy = sum(not quiet(s) for s in samples)
    lines += ["", f"Others used more than {NOISY:.0%} of the machine in {noisy} of {len(samples)} measurements "
              f"(on average {statistics.mean(s['foreign'] for s in samples):.0%})." if samples else "Nothing was measured."]
    if 3 * noisy > len(samples):
        lines += ["", "**This run was too noisy to judge by: repeat it on a quiet machine.**"]
    lines += ["", "## Targets", "", f"For the transport {result['transport']}.", ""] + target_table(targets(cells, result["transport"], result.get("rows", 0)))
    lines += ["", "## Cells", ""]
    for cell in cells:
        lines += [*cell_table(cell), ""]
    return "\n".join(lines).rstrip() + "\n"
