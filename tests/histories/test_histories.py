"""Random histories, in episodes of EPISODE calls: each has a ledger, a sandbox and a seed of its own.

The seed is printed. HISTORY_SEED repeats a run, and one episode alone by its own seed with HISTORY_CALLS of its size;
HISTORY_KEEP names a directory for the histories that were wrong.
"""

import collections
import os
import pathlib
import time

import pytest

from histories import checker, plan, runner
from support import postgres

EPISODE = 2500
CALLS = int(os.environ.get("HISTORY_CALLS", "20000"))
SEED = int(os.environ.get("HISTORY_SEED") or time.time_ns() % 1_000_000_007)
KEEP = os.environ.get("HISTORY_KEEP")

_sizes = [EPISODE] * (CALLS // EPISODE) + ([CALLS % EPISODE] if CALLS % EPISODE else [])

# What a run of the default size meets; the rarest of them about ten times.
_EXPECTED = """ok replayed bare:CANCELLED bare:DEADLINE_EXCEEDED bare:UNAVAILABLE REQUEST_ID_REUSED REQUEST_IN_PROGRESS
PERSON_EXISTS EMAIL_ATTEMPTS_EXHAUSTED EMAIL_BUSY EMAIL_UNRESOLVED SUPERSEDES_INVALID DEADLINE_TOO_SHORT OVERLOADED UPSTREAM_SUSPENDED
UPSTREAM_UNREACHABLE UPSTREAM_RATE_LIMITED UPSTREAM_REJECTED UPSTREAM_CREDENTIALS_REJECTED UPSTREAM_MISCONFIGURED
OUTCOME_UNKNOWN CREATED REJECTED UNKNOWN NOT_SENT superseded HTTP/1.1 HTTP/2.0
settle_by_webhook settle_by_late_answer webhook:settled webhook:read webhook:ignored webhook:lost webhook:copy
webhook:forged""".split()
_KINDS = set(plan.KINDS)

_met = collections.Counter()


@pytest.fixture(scope="module")
def authority():
    made = runner.Authority()
    yield made
    made.close()


def _count(history):
    for call in history.calls:
        if call["phase"] != "run":
            continue
        _met["calls"] += 1
        out = call["out"]
        if "ok" in out and call["kind"] == "create":
            _met["replayed" if out["ok"]["replayed"] else "ok"] += 1
        elif "error" in out:
            _met[out["error"]["reason"]] += 1
        elif "bare" in out:
            _met["bare:" + out["bare"]] += 1
        elif out.get("row"):
            _met[out["row"]["state"]] += 1
    ids = {(call["caller"], call["id"]) for call in history.calls if call["phase"] == "run"}
    _met["ids"] += len(ids)
    for row in history.snapshots[-1]["rows"].values():
        if row:
            _met[row["state"]] += 1
            _met["superseded"] += bool(row["by"])
    for entry in history.audit:
        _met[entry["action"].replace(" ", "_")] += 1
    for hook in history.hooks:
        _met["webhook:" + hook["result"]] += 1
    for one in history.sent:
        _met["webhook:sent"] += 1
        _met["webhook:lost"] += one["lost"]
        _met["webhook:copy"] += one["copy"] > 0
        _met["webhook:forged"] += one["key"] == "wrong"
    for post in history.posts:
        _met["posts"] += 1
        _met[post["proto"]] += 1
        _met["fault:" + post["fault"]] += 1


def _play(seed, calls, authority, ledger="sqlite"):
    again = f"HISTORY_SEED={seed} HISTORY_CALLS={calls}"
    print(f"\nrepeat it with {again}, on {ledger}")
    history = runner.live(plan.make(seed, calls), authority, ledger)
    _count(history)
    found = checker.check(history)
    if found and KEEP:
        history.dump(pathlib.Path(KEEP) / f"history-{seed}.jsonl")
    assert not found, f"{len(found)} violations ({again}):\n" + "\n".join(found[:40])


def _missing():
    return [name for name in _EXPECTED if not _met[name]] + [kind for kind in _KINDS if not _met["fault:" + kind]]


@pytest.mark.parametrize("number", range(len(_sizes)), ids=lambda number: f"seed + {number}")
def test_history(number, authority):
    _play(SEED + number, _sizes[number], authority)


def test_history_in_postgres(authority):
    """One episode, by another seed than the others."""
    postgres.require()
    _play(SEED + len(_sizes), min(EPISODE, CALLS), authority, "postgres")


def test_the_histories_met_everything(authority):
    """Histories in which nothing happens break no promise. What is rare may miss a run: it gets some more episodes."""
    if _met["calls"] < 20000:
        pytest.skip("a run this short need not meet everything")
    for more in range(len(_sizes) + 1, 4 * len(_sizes)):
        if not _missing():
            break
        print(f"\nnot met yet: {_missing()}")
        _play(SEED + more, EPISODE, authority)
    print("\n" + ", ".join(f"{count} {name}" for name, count in sorted(_met.items())))
    assert not _missing(), f"no call or POST met {_missing()} (HISTORY_SEED={SEED})"
    assert _met["ids"] <= 0.7 * _met["calls"], "fewer than 30 % of the calls are duplicates"
    assert _met["posts"] >= 0.1 * _met["calls"], "too few POSTs for as many calls"
