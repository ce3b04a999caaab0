"""One of three replicas ends by SIGKILL at each named point of its code, while callers are at it and the other two live on:
the crash suite's points and program, on PostgreSQL. Its rows are given up by the others; the judge is the torture's.

POINTS_ROUNDS: kills at each point (1)."""

import os
import random
import signal
import time

from support.process import BIN_DIR, PATIENCE, clean_environment, missing, wait_for
from torture.callers import Callers
from torture.judge import Story, judge
from torture.stage import FENCE, QUIET, Stage

PROGRAM = BIN_DIR / "crash-server"
ROUNDS = int(os.environ.get("POINTS_ROUNDS", "1"))
SEED = int(os.environ.get("TORTURE_SEED") or time.time_ns() % 1_000_000_007)

# Those that a request passes, with the most arrivals until the kill.
POINTS = {
    "after-admit": 30, "before-sending-commit": 4, "after-sending-commit": 4, "before-connect": 1, "after-connect": 1,
    "after-body": 15, "after-status": 10, "after-answer-body": 10, "before-next-attempt-commit": 1,
    "after-next-attempt-commit": 1, "before-outcome-commit": 4, "after-outcome-commit": 4, "before-reply": 15,
    "after-reply": 15,
}


def script_faults(stage):
    stage.sandbox.clear_faults()
    stage.sandbox.fault("status", times=0, every=7, status=503, headers={"Retry-After": "0"}, body="")
    stage.sandbox.fault("status", times=0, every=11, status=400, body="")
    stage.sandbox.fault("status", times=0, every=23, status=500, body="", commit=True)
    stage.sandbox.fault("delay", times=0, delay_ms=4)


def kill_at(stage, point, nth):
    """Replica 0 counts arrivals from now on, and dies."""
    server = stage.servers[0]
    server.stop()
    server.environment = clean_environment(CRASH_AT=f"{point}:{nth}", CRASH_ARM="signal")
    stage.start(0)
    if point in ("before-connect", "after-connect"):
        stage.sandbox.drop_connections()
    server.signal(signal.SIGUSR1)

    def dead():
        if point in ("before-connect", "after-connect"):
            stage.sandbox.drop_connections()
        return not server.process.running()

    wait_for(dead, f"{point} is reached", timeout=PATIENCE + 30, interval=0.05)
    assert server.process.wait() == -signal.SIGKILL, f"{point}: ended otherwise: {server.process.text()[-700:]}"
    server.stopped = True


def test_every_point(programs):
    assert not missing("crash-server"), missing("crash-server")
    stage = Stage(None, program=PROGRAM)
    try:
        dice = random.Random(SEED)
        script_faults(stage)
        callers = Callers(stage.addresses, SEED)
        callers.start()
        for point, most in list(POINTS.items()) * ROUNDS:
            callers.assert_alive()
            kill_at(stage, point, dice.randint(1, most))
            stage.servers[0].environment = clean_environment()
            stage.start(0)
        stage.sandbox.clear_faults()
        callers.stop()
        wait_for(lambda: stage.sending() == 0, "nothing is SENDING", timeout=FENCE + QUIET + 5 + PATIENCE, interval=0.2)
        wait_for(lambda: stage.sandbox.summary()["in_progress"] == 0, "Astra has answered everything")
        callers.again()
        rows, counters = stage.rows()
        account = stage.sandbox.accounting()
        stage.stop_replicas()
        story = Story(callers.asks, callers.tags, account["posts"], account["intents"], rows, counters,
                      callers.other + stage.leaks())
        found = judge(story)
        print(f"\nTORTURE_SEED={SEED}: {len(POINTS) * ROUNDS} kills, {callers.calls} calls, {len(callers.asks)} ids, "
              f"{len(account['posts'])} POSTs")
        assert not found, f"{len(found)} violations (TORTURE_SEED={SEED}):\n" + "\n".join(sorted(found)[:40])
    finally:
        stage.close()
