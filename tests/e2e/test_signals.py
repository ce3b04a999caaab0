"""Signals and descriptors: what a supervisor may do to the process, and what must not hurt."""

import contextlib
import os
import signal
import subprocess
import time

import pytest

from support import names
from support.check import assert_posts
from support.gateway import SERVER, clean_environment, write_secret
from support.people import person
from support.process import BIN_DIR, PATIENCE, wait_for


def slow_calls(gateway, sandbox, count=3, delay_ms=700):
    """Calls that are on their way to Astra and stay there for a while."""
    people = [person() for _ in range(count)]
    for one in people:
        sandbox.fault("delay", one.email, delay_ms=delay_ms)
    calls = [gateway.begin(one) for one in people]
    for one in people:
        sandbox.wait_posts(one.email)
    return people, calls


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE, signal.SIGALRM,
                                    signal.SIGVTALRM, signal.SIGPROF, signal.SIGIO, signal.SIGTTOU, signal.SIGPWR,
                                    signal.SIGXCPU, signal.SIGRTMIN + 3], ids=names.of)
def test_a_signal_that_is_no_order_ends_nothing(new_gateway, sandbox, number):
    own = new_gateway()
    people, calls = slow_calls(own, sandbox)
    own.signal(number)
    for one, call in zip(people, calls):
        call.reply().ok()
        assert_posts(sandbox, one.email, 1)
    own.assert_alive()
    own.stop()


def test_hup_reads_the_secrets_at_once(new_gateway):
    """Not at the next look, which is up to 2 s away: that one cannot have found most of ten changes in a row first."""
    own = new_gateway()
    for turn in range(10):
        write_secret(own.client_secret_file, f"changed-secret-{turn}")
        own.signal(signal.SIGHUP)
        for event in ("reload", "credentials_reloaded"):
            wait_for(lambda: sum(entry["event"] == event for entry in own.log()) > turn, event)
    events = [entry["event"] for entry in own.log()]
    at_once = sum(pair == ("reload", "credentials_reloaded") for pair in zip(events, events[1:]))
    assert at_once >= 6, events
    own.create(person()).failed("UPSTREAM_CREDENTIALS_REJECTED")


def test_quit_ends_at_once_and_the_exchange_is_unknown_afterwards(new_gateway, sandbox, tmp_path):
    own = new_gateway(ledger=f"sqlite:{tmp_path}/ledger.db")
    people, calls = slow_calls(own, sandbox, count=1, delay_ms=5000)
    began = time.monotonic()
    own.signal(signal.SIGQUIT)
    assert own.process.wait() == 128 + signal.SIGQUIT
    assert time.monotonic() - began < 4
    assert any(entry["event"] == "ended_at_once" and entry["signal"] == signal.SIGQUIT for entry in own.log())
    own.stopped = True
    own.start()
    own.create(people[0]).failed("OUTCOME_UNKNOWN")
    assert_posts(sandbox, people[0].email, 1)


@pytest.mark.parametrize("first, second", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT),
                                           (signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGQUIT)],
                         ids=names.of)
def test_a_second_order_to_stop_ends_the_drain(new_gateway, sandbox, first, second):
    own = new_gateway(drain_timeout="30s")
    slow_calls(own, sandbox, count=1, delay_ms=9000)
    own.signal(first)
    wait_for(lambda: any(entry["event"] == "draining" for entry in own.log()), "the drain")
    time.sleep(0.3)  # a repeat within a moment is the same order, passed on twice
    assert own.process.running()
    began = time.monotonic()
    own.signal(second)
    assert own.process.wait() == 128 + second
    assert time.monotonic() - began < 5
    own.stopped = True


def test_an_order_to_stop_that_arrives_twice_within_a_moment_is_one(new_gateway, sandbox):
    """A terminal and a script that both pass a Ctrl-C on: the calls are still answered."""
    own = new_gateway()
    people, calls = slow_calls(own, sandbox)
    own.signal(signal.SIGINT)
    own.signal(signal.SIGTERM)
    for call in calls:
        call.reply().ok()
    assert own.process.wait() == 0
    own.stopped = True


# A shell closes them, and becomes the program: code of Python's that ran between fork and exec would run in a copy of a
# process that has gRPC's threads.
CLOSED_DESCRIPTORS = ["/bin/sh", "-c", 'exec "$@" 0<&- 1>&- 2>&-', "sh"]


def descriptors(pid):
    """What they are open on; one that was closed meanwhile is left out."""
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            yield os.readlink(f"/proc/{pid}/fd/{fd}")


def assert_low_descriptors_are_dev_null(pid):
    assert {fd: os.readlink(f"/proc/{pid}/fd/{fd}") for fd in range(3)} == {fd: "/dev/null" for fd in range(3)}


def test_closed_standard_descriptors_are_dev_null(new_gateway, tmp_path):
    """Whatever opens them first, a library before main included: no log line may go into a socket or the ledger."""
    own = new_gateway(start=False, ledger=f"sqlite:{tmp_path}/ledger.db")
    running = subprocess.Popen([*CLOSED_DESCRIPTORS, str(SERVER), *own.arguments()], env=own.environment,
                               cwd=own.directory)
    try:
        wait_for(lambda: (tmp_path / "ledger.db").exists(), "the start")
        assert_low_descriptors_are_dev_null(running.pid)
    finally:
        running.terminate()
        assert running.wait(PATIENCE + 20) == 0
    assert not [path for path in tmp_path.iterdir() if path.is_file() and b'"event"' in path.read_bytes()]


def test_closed_standard_descriptors_of_the_tool_are_dev_null(new_gateway, tmp_path):
    own = new_gateway(ledger=f"sqlite:{tmp_path}/ledger.db")
    own.signal(signal.SIGSTOP)  # so that the tool waits, and can be looked at
    tool = subprocess.Popen([*CLOSED_DESCRIPTORS, str(BIN_DIR / "userintent-ledger"), "stats",
                             f"--ledger=sqlite:{tmp_path}/ledger.db"], env=clean_environment())
    try:
        wait_for(lambda: any(target.startswith("socket:") for target in descriptors(tool.pid)),
                 "a tool that calls the server")
        assert_low_descriptors_are_dev_null(tool.pid)
    finally:
        own.signal(signal.SIGCONT)
        assert tool.wait(PATIENCE + 20) == 0


def test_the_soft_descriptor_limit_is_raised_to_the_hard_one(new_gateway):
    own = new_gateway(wrapper=["prlimit", "--nofile=64:4096"])
    line = next(line for line in open(f"/proc/{own.process.pid}/limits") if line.startswith("Max open files"))
    assert line.split()[3:5] == ["4096", "4096"]
