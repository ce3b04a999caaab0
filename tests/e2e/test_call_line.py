"""The log's line `call`: one for each call that created an intent or failed, and for no other."""

import pytest

from support.check import assert_posts
from support.people import again, person
from support.process import wait_for

STAGES = ("begin_ms", "upstream_ms", "finish_ms", "total_ms")


def lines(gateway, request=None, event="call"):
    """Those of one request, or of all."""
    return [line for line in gateway.log() if line.get("event") == event
            and (request is None or line.get("request_id") == request.request_id.lower())]


def only_line(gateway, request, event="call"):
    [line] = wait_for(lambda: lines(gateway, request, event), f"the line {event}")
    return line


def test_a_creation_has_one_line_and_its_replays_and_reads_have_none(gateway, sandbox):
    request = person()
    response = gateway.create(request).ok()
    line = only_line(gateway, request)
    [post] = assert_posts(sandbox, request.email, 1)
    assert (line["level"], line["caller"], line["method"], line["reason"]) == ("info", "local", "CreateUserIntent", "NONE")
    assert (line["sent"], line["http_status"], line["attempts"]) == ("yes", post["status"], 1)
    assert line["attempt_id"] == post["attempt_id"]
    assert line.get("astra_request_id", "") == response.astra_request_id
    assert all(isinstance(line[stage], float) and line[stage] >= 0 for stage in STAGES), line
    assert line["total_ms"] >= line["upstream_ms"]
    assert "replayed" not in line and "trace_id" not in line

    assert gateway.create(request).ok().replayed
    gateway.read(request).ok()
    gateway.get(request.request_id).ok()
    gateway.create(again(request, validate_only=True)).ok()
    refused = person(state="XX")
    gateway.create(refused).failed("FIELD_INVALID")  # whose line comes after those that there might have been
    only_line(gateway, refused)
    assert lines(gateway, request) == [line]


def test_what_astra_refuses_and_its_replay(gateway, sandbox):
    request = person()
    sandbox.answer(request.email, 400, "{}", headers={"Request-Id": "req-of-the-test"})
    gateway.create(request).failed("UPSTREAM_REJECTED")
    line = only_line(gateway, request)
    assert (line["reason"], line["sent"], line["http_status"]) == ("UPSTREAM_REJECTED", "yes", 400)
    assert line["astra_request_id"] == "req-of-the-test"
    gateway.create(request).failed("UPSTREAM_REJECTED")
    first, second = wait_for(lambda: len(lines(gateway, request)) == 2 and lines(gateway, request), "two lines")
    assert first == line
    assert second["replayed"] and second["http_status"] == 400 and second["astra_request_id"] == "req-of-the-test"
    assert "attempt_id" not in second and "upstream_ms" not in second  # it sent nothing


def test_an_unknown_outcome_is_a_warning(short_gateway, sandbox):
    request = person()
    sandbox.fault("hang", request.email)
    short_gateway.create(request).failed("OUTCOME_UNKNOWN")
    line = only_line(short_gateway, request)
    assert (line["level"], line["reason"], line["sent"]) == ("warn", "OUTCOME_UNKNOWN", "maybe")
    assert "http_status" not in line and line["upstream_ms"] >= 1000


@pytest.mark.parametrize("request_id", ["", "no-uuid", "\u2028{}\",\"level\":\"error"])
def test_a_request_id_that_is_none_is_not_logged(gateway, request_id):
    before = len(lines(gateway))
    gateway.create(person(request_id=request_id)).failed("FIELD_INVALID")
    line = wait_for(lambda: len(lines(gateway)) > before and lines(gateway)[-1], "the line")
    assert line["reason"] == "FIELD_INVALID" and line["sent"] == "no" and "request_id" not in line


def test_a_caller_that_leaves_and_what_becomes_of_its_request(gateway, sandbox):
    request = person()
    sandbox.fault("delay", request.email, delay_ms=1500)
    running = gateway.begin(request)
    sandbox.wait_posts(request.email)
    running.cancel()
    line = only_line(gateway, request)
    assert (line["reason"], line["sent"], line["attempts"]) == ("CALLER_LEFT", "maybe", 1)
    assert line["begin_ms"] >= 0 and 0 < line["upstream_ms"] <= line["total_ms"]
    gateway.wait_state(request.request_id, "CREATED")
    recorded = only_line(gateway, request, "creation_recorded")
    assert (recorded["level"], recorded["state"], recorded["caller"]) == ("info", "succeeded", "local")
    [post] = assert_posts(sandbox, request.email, 1)
    assert line["attempt_id"] == recorded["attempt_id"] == post["attempt_id"]
    assert recorded["upstream_ms"] >= 1500 > line["upstream_ms"] and recorded["finish_ms"] >= 0
    assert recorded.get("astra_request_id", "") == gateway.create(request).ok().astra_request_id


def test_a_caller_that_leaves_between_two_tries(gateway, sandbox):
    request = person()
    sandbox.answer(request.email, 503, "{}", headers={"Retry-After": "20"})
    running = gateway.begin(request)
    sandbox.wait_posts(request.email)
    wait_for(lambda: lines(gateway, request, "post_ended"), "the answer")
    running.cancel()
    line = only_line(gateway, request)
    assert (line["reason"], line["sent"], line["http_status"], line["attempts"]) == ("CALLER_LEFT", "yes", 503, 1)


def test_who_hears_that_it_runs_has_the_attempt_in_its_line(gateway, sandbox):
    request = person()
    sandbox.fault("delay", request.email, delay_ms=2500)
    gateway.create(request, timeout=1).failed("REQUEST_IN_PROGRESS")
    line = only_line(gateway, request)
    [post] = sandbox.posts(request.email)
    assert line["attempt_id"] == post["attempt_id"] and 500 < line["upstream_ms"] <= line["total_ms"]


def test_reads_that_fail(gateway):
    nobody = person()
    gateway.get(nobody.request_id).failed("REQUEST_NOT_FOUND")
    assert only_line(gateway, nobody)["method"] == "GetCreation"
    gateway.read(nobody).failed("REQUEST_NOT_FOUND")
    wait_for(lambda: len([line for line in lines(gateway) if line["method"] == "GetUserIntent"]) == 1, "the read's line")


def test_callers_that_leave_after_a_post_have_their_lines_whatever_their_number(new_gateway, sandbox):
    own = new_gateway()
    requests = [person() for _ in range(400)]
    for request in requests:
        sandbox.fault("delay", request.email, delay_ms=4000)
    running = [own.begin(request) for request in requests]
    for request in requests:
        sandbox.wait_posts(request.email)
    for call in running:
        call.cancel()
    left = {request.request_id for request in requests}
    wait_for(lambda: left <= {line["request_id"] for line in lines(own) if line.get("attempt_id")}, "a line of each")


def test_a_flood_of_refused_calls_leaves_room_for_others(new_gateway, sandbox):
    """What costs a caller nothing is written a few hundred times a second; the rest is counted. A POST always has its line."""
    own = new_gateway()
    total = 1500
    bad = person(state="XX")
    running = [own.begin(bad) for _ in range(total)]
    request = person()
    own.create(request).ok()
    for call in running:
        call.reply().failed("FIELD_INVALID")
    only_line(own, request)

    def told():
        refused = lines(own, bad)
        return len(refused) + sum(line.get("suppressed", 0) for line in refused)

    def all_told():
        own.create(bad).failed("FIELD_INVALID")  # tells how many were left out before it
        return told() > total

    wait_for(all_told, "every refused call in the log, or counted there")
    assert own.metrics()['userintent_log_lines_dropped_total'] == 0
