"""userintent-ledger find --email and the question that resolve asks on a terminal."""

import os
import pty
import re
import subprocess

import pytest

from support import canary
from support.check import FAILED, SUCCEEDED, UNKNOWN
from support.gateway import clean_environment, write_secret
from support.ledger_tool import BESIDE, BY, TOOL, Down, lose
from support.people import person, same_email
from support.process import PATIENCE


def keys_of(gateway, beside):
    return [] if beside else [f"--ledger_key_file={gateway.flags['ledger_key_file']}"]


@BESIDE
def test_an_address_is_found_with_its_requests_and_attempts(durable, ledger, sandbox, beside):
    gateway = durable()
    first = person()
    gateway.create(first).ok()
    second = same_email(first)
    sandbox.answer(second.email, 400, "")
    gateway.create(second).failed("UPSTREAM_REJECTED")
    third = lose(gateway, sandbox, same_email(first))
    gateway.create(person()).ok()
    with Down(gateway, beside):
        keys = keys_of(gateway, beside)
        found = ledger("--json", "find", "--email", *keys, stdin=first.email + "\n").json()
        assert [r["request_id"] for r in found["requests"]] == [first.request_id, second.request_id, third.request_id]
        assert [r["state"].removeprefix("REQUEST_STATE_") for r in found["requests"]] == [SUCCEEDED, FAILED, UNKNOWN]
        assert (found["attempts_used_min"], found["attempts_used_max"]) == (1, 3)
        # As the address is hashed: letter case does not count, nor the end of the line.
        for text in (first.email.upper(), first.email, first.email + "\r\n"):
            same = ledger("--json", "find", "--email", *keys, stdin=text).json()["requests"]
            assert [r["request_id"] for r in same] == [r["request_id"] for r in found["requests"]]
        text = ledger("find", "--email", *keys, "--limit=2", stdin=first.email).done().out
        assert "there are more than these 2" in text and "attempts used  1 surely, 3 at most" in text
        nobody = ledger("find", "--email", *keys, stdin="nobody@example.com\n").done().out
        assert nobody.startswith("no request of this address\n") and "0 surely, 0 at most" in nobody
    assert canary.find(ledger.said, [first.email, first.email.upper()]) is None
    assert first.email not in "\n".join(gateway.process.lines())


def test_the_address_is_never_on_the_command_line(durable, ledger):
    durable()
    address = person().email
    for words in (["find"], ["find", "--email=" + address], ["find", "--email", address], ["find", address]):
        ledger(*words, stdin=address).refused(code=2)
    for text in ("", "\n", "no address\n", "@example.com", "someone@", "a@b@example.com", "é@example.com",
                 "a" * 2000 + "@example.com"):
        ledger("find", "--email", stdin=text).refused("stdin must hold one line", code=2)
    assert address not in ledger.said and "example.com" not in ledger.said


def test_without_a_server_every_key_is_needed(durable, ledger, tmp_path):
    gateway = durable()
    first = person()
    gateway.create(first).ok()
    old = gateway.ledger_key_file
    new = write_secret(tmp_path / "new.key", os.urandom(48))
    gateway.restart(ledger_key_file=new, ledger_previous_key_file=old)
    gateway.create(person()).ok()
    assert ledger.json("stats")["keys"][1]["requests"] == "1"
    [found] = ledger("--json", "find", "--email", stdin=first.email).json()["requests"]
    assert found["request_id"] == first.request_id
    gateway.stop()
    find = ["--json", "find", "--email"]
    ledger(*find, stdin=first.email).refused("needs --ledger_key_file", code=2)
    ledger(*find, f"--ledger_key_file={new}", stdin=first.email).refused("which was not given")
    ledger(*find, f"--ledger_key_file={old}", stdin=first.email).refused("which was not given")
    ledger(*find, f"--ledger_key_file={tmp_path}/none", stdin=first.email).refused("--ledger_key_file: cannot open",
                                                                                   code=1)
    [found] = ledger(*find, f"--ledger_key_file={new}", f"--ledger_previous_key_file={old}",
                     stdin=first.email).json()["requests"]
    assert found["request_id"] == first.request_id


def at_a_terminal(ledger, answer, *words):
    """What the tool shows when a person sits before it, and how it ends."""
    above, below = pty.openpty()
    tool = subprocess.Popen([str(TOOL), f"--ledger=sqlite:{ledger.path}", *words], stdin=below, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, env=clean_environment())
    os.close(below)
    os.write(above, answer.encode())
    out, err = tool.communicate(timeout=PATIENCE + 60)
    os.close(above)
    return tool.returncode, out, err


@BESIDE
@pytest.mark.parametrize("outcome", ["--created=intent-9", "--not_created"])
def test_resolve_shows_what_changes_and_asks(durable, ledger, sandbox, beside, outcome):
    gateway = durable()
    request = lose(gateway, sandbox, person())
    words = ["resolve", request.request_id, "--caller=local", outcome, *BY]
    with Down(gateway, beside):
        for answer in ("no\n", "\n", "y\n", "YES\n", "\x04"):
            code, out, err = at_a_terminal(ledger, answer, *words)
            assert (code, out) == (1, "") and err.endswith("userintent-ledger: nothing was changed\n"), (code, err)
        assert request.request_id in err and re.search(r"now +UNKNOWN", err) and "HTTP 500" in err
        assert re.search(r"becomes +" + ("SUCCEEDED with the intent intent-9" if "9" in outcome else "FAILED"), err)
        assert ledger.state(request) == UNKNOWN and ledger.json("audit")["entries"] == []
        code, out, err = at_a_terminal(ledger, "yes\n", *words)
        assert code == 0 and out.startswith("resolved\n") and "Go on?" in err
        assert ledger.state(request) == (SUCCEEDED if "9" in outcome else FAILED)


def test_resolve_does_not_ask_scripts(durable, ledger, sandbox):
    gateway = durable()
    first, second = lose(gateway, sandbox, person()), lose(gateway, sandbox, person())
    code, out, err = at_a_terminal(ledger, "", "resolve", first.request_id, "--caller=local", "--created=a", "--yes",
                                   *BY)
    assert code == 0 and out.startswith("resolved\n") and err == ""
    told = ledger.resolve(second, "--created=b").done()  # stdin is no terminal
    assert told.out.startswith("resolved\n")
