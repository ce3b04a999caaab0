"""Three replicas of one ledger, everything that can fail, and nothing is sent twice; the variables are in README.md."""

import collections
import os
import time

import pytest

from support.process import BIN_DIR, PATIENCE, missing, wait_for
from torture.callers import Callers
from torture.chaos import POINTS, Chaos
from torture.judge import STATES, Story, judge
from torture.stage import FENCE, QUIET, Stage

PROGRAM = "crash-server"  # the gateway, which can be told to end at a point of its code
SECONDS = float(os.environ.get("TORTURE_SECONDS", "60"))
CALLS = int(os.environ.get("TORTURE_CALLS", "20000"))
FAILOVERS = int(os.environ.get("TORTURE_FAILOVERS", "20"))
MET = min(10, FAILOVERS // 2)  # so many of the points
SEED = int(os.environ.get("TORTURE_SEED") or time.time_ns() % 1_000_000_007)


def play(kind, until, *, seed, between=(1.5, 3.0), behind=0.0, at_rest=True):
    """A run and its judgement: (violations, callers, chaos). until(callers, chaos): it is enough.
    at_rest: everything is given the time to come to rest and must; else it ends at once."""
    assert not missing(PROGRAM), missing(PROGRAM)
    stage = Stage(kind, program=BIN_DIR / PROGRAM)
    try:
        callers = Callers(stage.addresses, seed)
        chaos = Chaos(stage, callers, seed + 1, between, behind)
        callers.start()
        chaos.run(lambda: until(callers, chaos))
        callers.stop()
        if at_rest:
            wait_for(lambda: stage.sending() == 0, "nothing is SENDING", timeout=FENCE + QUIET + 5 + PATIENCE, interval=0.2)
            wait_for(lambda: stage.sandbox.summary()["in_progress"] == 0, "Astra has answered everything")
        callers.again()
        rows, counters = stage.rows()
        account = stage.sandbox.accounting()
        story = Story(callers.asks, callers.tags, account["posts"], account["intents"], rows, counters,
                      callers.other + [f"T9: {text}" for text in stage.ended])
        states = collections.Counter(STATES[row.state] for row in rows.values())
        if at_rest:
            stage.stop_replicas()
            story.other += stage.leaks()
        print(f"\nTORTURE_SEED={seed} {kind}: {callers.calls} calls about {len(callers.asks)} ids, {len(account['posts'])} POSTs, "
              f"{len(account['intents'])} intents; slowest answer {callers.slowest:.1f} s"
              f"\n{dict(chaos.met)}\n{dict(chaos.points)}\n{dict(states)}\n{dict(callers.met.most_common())}")
        return judge(story), callers, chaos
    finally:
        stage.close()


def test_nothing_is_sent_twice_and_nothing_heard_is_lost(programs):
    """With a synchronous standby, whatever happens to replicas, connections and the primary."""
    end = time.monotonic() + SECONDS
    longest = end + 2 * SECONDS  # a busy machine gets more time, and then fails for want of calls

    def enough(callers, chaos):
        # Each id is repeated and looked up at the end.
        done = (callers.calls + 2 * len(callers.asks) >= CALLS and chaos.met["failovers"] >= FAILOVERS
                and len(chaos.points) >= MET)
        return time.monotonic() > (end if done else longest)

    found, callers, chaos = play("sync", enough, seed=SEED)
    assert not found, f"{len(found)} violations (TORTURE_SEED={SEED}):\n" + "\n".join(sorted(found)[:40])
    assert callers.calls >= CALLS and chaos.met["failovers"] >= FAILOVERS, "too little happened"
    assert len(chaos.points) >= MET, f"nobody was killed at {set(POINTS) - set(chaos.points)}"


def test_an_asynchronous_standby_loses_the_promise(programs):
    """The same, and what the standby had not heard of is forgotten: the judge must see that. This is why a start without a
    synchronous one is refused."""
    found = []
    for attempt in range(3):
        end = time.monotonic() + 15
        found, _, chaos = play("async", lambda callers, chaos: time.monotonic() > end and chaos.met["failovers"] >= 2,
                               seed=SEED + attempt, between=(2.0, 3.0), behind=0.7, at_rest=False)
        assert chaos.met["failovers"] >= 2
        if [line for line in found if line.startswith(("T1", "T4", "T5"))]:
            break
    print(f"\n{len(found)} violations, such as\n" + "\n".join(sorted(found)[:5]))
    assert [line for line in found if line.startswith(("T1", "T4", "T5"))], "two failovers forgot nothing"


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__, "-q", "-s"]))
