"""A process that was told to stop and hangs is ended by its watchdog, 5 s after --drain_timeout, and loses no row by it.

What hangs is the ledger, as on a disk that answers no more: the thread stops at a named point of its code and stays."""

import signal
import time

import pytest
from crash_server import PROGRAM
from support.gateway import Gateway
from support.people import again, person
from support.process import PATIENCE, clean_environment

FOREVER_MS = 3_600_000
DRAIN, BEYOND = 1, 5  # seconds


@pytest.fixture
def make(sandbox, tmp_path):
    """Makes a gateway that will hang at its nth arrival at the point."""
    made = []

    def make(point, nth, drain_timeout):
        made.append(Gateway(sandbox, ledger=f"sqlite:{tmp_path}/ledger/ledger.db", drain_timeout=drain_timeout, program=PROGRAM,
                            environment={"CRASH_AT": f"{point}:{nth}", "CRASH_LINGER_MS": str(FOREVER_MS)}))
        return made[-1]

    yield make
    for gateway in made:
        gateway.close()


def ended(gateway, call, code):
    """By itself, with this status; the next start is another one, which hangs nowhere."""
    assert gateway.process.wait(PATIENCE + 20) == code
    call.reply()
    gateway.stopped = True
    gateway._close_channels()
    gateway.environment = clean_environment()
    gateway.restart()


@pytest.mark.parametrize("point, posts, outcome", [
    ("before-sending-commit", 0, "free"), ("before-outcome-commit", 1, "unknown"), ("after-outcome-commit", 1, "recorded")])
def test_a_ledger_that_hangs(make, sandbox, point, posts, outcome):
    own = make(point, 2, drain_timeout=f"{DRAIN}s")
    done, stuck = person(), person()
    own.create(done).ok()
    call = own.begin(stuck, timeout=PATIENCE + 30)
    if posts:
        sandbox.wait_posts(stuck.email)
    time.sleep(0.5)  # to the point
    assert not call.done()
    began = time.monotonic()
    own.signal(signal.SIGTERM)
    own.process.wait(PATIENCE + 20)
    assert DRAIN + BEYOND <= time.monotonic() - began
    assert [entry["signal"] for entry in own.log() if entry["event"] == "ended_by_watchdog"] == [signal.SIGTERM]
    assert len(sandbox.posts(stuck.email)) == posts
    ended(own, call, 124)
    assert own.create(done).ok().replayed
    reply = own.create(again(stuck))
    if outcome == "unknown":
        reply.failed("OUTCOME_UNKNOWN", sent="maybe")
    else:
        assert reply.ok().replayed == (outcome == "recorded")
    assert len(sandbox.posts(stuck.email)) == 1


def test_the_page_and_the_probes_answer_while_the_ledger_hangs(make, sandbox):
    own = make("before-outcome-commit", 1, drain_timeout="1s")
    call = own.begin(person(), timeout=PATIENCE + 30)
    time.sleep(0.5)
    for _ in range(3):
        status, page = own.http("/status")
        assert status == 200 and "Not known: the ledger did not answer in time." in page
        assert own.http("/livez")[0] == 200
    own.signal(signal.SIGTERM)
    ended(own, call, 124)


def test_a_second_order_ends_what_hangs_at_once(make, sandbox):
    own = make("before-outcome-commit", 1, drain_timeout="60s")
    stuck = person()
    call = own.begin(stuck, timeout=PATIENCE + 30)
    sandbox.wait_posts(stuck.email)
    own.signal(signal.SIGTERM)
    time.sleep(0.5)
    own.signal(signal.SIGTERM)
    ended(own, call, 128 + signal.SIGTERM)
    own.create(again(stuck)).failed("OUTCOME_UNKNOWN", sent="maybe")
    assert len(sandbox.posts(stuck.email)) == 1
