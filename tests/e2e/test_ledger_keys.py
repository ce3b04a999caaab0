"""The life of the ledger's keys: one rotation after the other, and what is found under each."""

import secrets
import subprocess
import uuid

import pytest

from support.check import SUCCEEDED, UNKNOWN, assert_posts, assert_row
from support.gateway import SERVER, write_secret
from support.ledger_tool import lose
from support.people import other_id, person, same_email
from support.process import PATIENCE


class Keys:
    """Files of keys, and a gateway that is started with some of them."""

    def __init__(self, durable, directory):
        self.durable, self.directory, self.gateway = durable, directory, None

    def __call__(self, current, *previous):
        if self.gateway is None:
            self.gateway = self.durable(start=False)
        elif not self.gateway.stopped:
            self.gateway.stop()
        files = [self.directory / f"key-{number}" for number in (current, *previous)]
        for file in files:
            if not file.exists():
                write_secret(file, secrets.token_bytes(48))
        self.gateway.flags["ledger_key_file"] = files[0]
        self.gateway.flags["ledger_previous_key_file"] = ",".join(map(str, files[1:])) or None
        return self.gateway

    def start(self, *numbers):
        gateway = self(*numbers)
        return gateway.start() if gateway.process is None else gateway.restart()

    def refusal(self, *numbers):
        """What a start with these keys says instead of serving: one line."""
        return refusal(self(*numbers))


def refusal(gateway):
    ended = subprocess.run([str(SERVER), *gateway.arguments()], env=gateway.environment, capture_output=True, text=True,
                           timeout=PATIENCE, cwd=gateway.directory)
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1, (ended.returncode, ended.stderr)
    return ended.stderr


@pytest.fixture
def keys(durable, tmp_path):
    return Keys(durable, tmp_path)


def test_rotation_goes_on_for_ever(keys, ledger, sandbox):
    """Key 1, 2, 3, 4 with rows under each: every promise made under each of them is kept."""
    made = {}
    for number in (1, 2, 3):
        gateway = keys.start(*range(number, 0, -1))
        created, lost = person(), lose(gateway, sandbox, person())
        intent = gateway.create(created).ok().user_intent.id
        made[number] = created, lost, intent
    gateway = keys.start(4, 3, 2, 1)
    for number, (created, lost, intent) in made.items():
        repeat = gateway.create(created).ok()
        assert repeat.replayed and repeat.user_intent.id == intent, number
        gateway.create(other_id(created)).failed("PERSON_EXISTS", user_intent_id=intent)
        gateway.create(same_email(lost)).failed("EMAIL_UNRESOLVED", unresolved_request_id=lost.request_id)
        second = gateway.create(same_email(created)).ok()
        assert second.attempts.used_min == 2, number
        assert_posts(sandbox, created.email, 2)
        assert_posts(sandbox, lost.email, 1)
    gateway.kill()
    gateway.restart()
    for created, lost, _ in made.values():
        assert_row(gateway, sandbox, created, SUCCEEDED)
        assert_row(gateway, sandbox, lost, UNKNOWN, "OUTCOME_UNKNOWN")


def test_a_key_with_rows_cannot_be_left_out(keys, ledger, sandbox):
    gateway = keys.start(1)
    first = [person() for _ in range(3)]
    for request in first:
        gateway.create(request).ok()
    gateway = keys.start(2, 1)
    gateway.create(person()).ok()
    [current, previous] = ledger.json("stats")["keys"]
    assert (current["role"], current["requests"]) == ("current", "1")
    assert (previous["role"], previous["requests"]) == ("previous", "3") and previous["until"] > previous["since"]

    said = keys.refusal(3, 2)
    assert f"3 rows under the older key {previous['key']}" in said
    said = keys.refusal(3, 1)
    assert f"another key ({current['key']}, 1 rows under it)" in said
    said = keys.refusal(2)
    assert f"3 rows under the older key {previous['key']}" in said
    # What was refused has changed nothing.
    gateway = keys.start(2, 1)
    assert [key["role"] for key in ledger.json("stats")["keys"]] == ["current", "previous"]

    # A row moves when its request is repeated; when the last one has, the key may go.
    for request in first:
        assert gateway.create(request).ok().replayed
    gateway = keys.start(3, 2)
    text = ledger("stats").done().out
    assert "previous: 4 requests" in text and "current: 0 requests" in text and previous["key"] not in text
    assert gateway.create(first[0]).ok().replayed
    assert_posts(sandbox, first[0].email, 1)


def test_stats_count_rows_per_key_without_a_server_and_without_a_key(keys, ledger):
    gateway = keys.start(1)
    gateway.create(person()).ok()
    gateway = keys.start(2, 1)
    gateway.create(person()).ok()
    gateway.create(person()).ok()
    gateway.stop()
    stats = ledger.json("stats")
    assert not stats["server_runs"]
    assert [(key["role"], key["requests"]) for key in stats["keys"]] == [("current", "2"), ("previous", "1")]
    for key in stats["keys"]:
        assert len(key["key"]) == 8 and key["since"]


def test_a_previous_key_that_cannot_be_read_is_named(keys, tmp_path):
    keys.start(1)
    gateway = keys(2, 1)
    gateway.flags["ledger_previous_key_file"] = f"{tmp_path}/key-1,{tmp_path}/{uuid.uuid4()}"
    assert "--ledger_previous_key_file (file 2): cannot open the file" in refusal(gateway)
