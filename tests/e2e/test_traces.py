"""Traces: whose trace a call belongs to, what a collector is sent of it, and what Astra is."""

import http.server
import json
import threading

import pytest

from support.check import assert_posts
from support.people import fields, person
from support.process import wait_for

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


def traceparent(flags="01"):
    return (("traceparent", f"00-{TRACE}-{PARENT}-{flags}"),)


class Collector:
    """Takes OTLP; every body that came is in `bodies`."""

    def __init__(self, status=200):
        bodies = self.bodies = []

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                assert self.path == "/v1/traces" and self.headers["Content-Type"] == "application/json"
                bodies.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
                self.send_response(status)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def spans(self, trace=None):
        found = []
        for body in list(self.bodies):
            for resource in json.loads(body)["resourceSpans"]:
                for scope in resource["scopeSpans"]:
                    found += scope["spans"]
        return [span for span in found if trace in (None, span["traceId"])]

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def collector():
    made = Collector()
    yield made
    made.close()


def attributes(span):
    return {each["key"]: next(iter(each["value"].values())) for each in span.get("attributes", [])}


def line_of(gateway, request):
    [line] = wait_for(lambda: [line for line in gateway.log() if line.get("event") == "call"
                               and line.get("request_id") == request.request_id.lower()], "the call's line")
    return line


def test_without_a_flag_the_trace_id_is_in_the_log_and_nowhere_else(gateway, sandbox):
    request = person()
    gateway.begin(request, metadata=traceparent()).reply().ok()
    assert line_of(gateway, request)["trace_id"] == TRACE
    [post] = assert_posts(sandbox, request.email, 1)
    assert "traceparent" not in {name.lower() for name in post["headers"]}


@pytest.mark.parametrize("value", ["", "00-x", f"00-{TRACE.upper()}-{PARENT}-01", f"00-{'0' * 32}-{PARENT}-01",
                                   f"00-{TRACE}-{PARENT}-01-more", f"ff-{TRACE}-{PARENT}-01"])
def test_a_malformed_one_is_ignored(gateway, value):
    request = person()
    gateway.begin(request, metadata=(("traceparent", value),)).reply().ok()
    assert "trace_id" not in line_of(gateway, request)


def test_the_spans_of_a_creation_and_of_a_read(new_gateway, sandbox, collector):
    own = new_gateway(otlp_endpoint=collector.url)
    request = person()
    sandbox.answer(request.email, 503, "", headers={"Retry-After": "0"})
    own.begin(request, metadata=traceparent()).reply().ok()
    wait_for(lambda: len(collector.spans(TRACE)) == 3, "the spans of two POSTs and of the call")
    [server] = [span for span in collector.spans(TRACE) if span["kind"] == 2]
    posts = [span for span in collector.spans(TRACE) if span["kind"] == 3]
    assert server["name"] == "Recv.userintent.v1.UserIntentService.CreateUserIntent"
    assert server["parentSpanId"] == PARENT and "status" not in server
    assert attributes(server)["rpc.grpc.status_code"] == "0"
    assert [post["parentSpanId"] for post in posts] == [server["spanId"]] * 2
    assert [attributes(post)["http.response.status_code"] for post in posts] == ["503", str(sandbox.posts(request.email)[1]["status"])]
    assert "status" in posts[0] and "status" not in posts[1]
    for span in (server, *posts):
        assert int(span["startTimeUnixNano"]) <= int(span["endTimeUnixNano"])
    assert line_of(own, request)["trace_id"] == TRACE
    for post in sandbox.posts(request.email):
        assert "traceparent" not in {name.lower() for name in post["headers"]}

    own.read(request).ok()  # a trace of its own
    wait_for(lambda: len(collector.spans()) == 5, "the spans of a read")
    get, read = sorted((span for span in collector.spans() if span["traceId"] != TRACE), key=lambda span: -span["kind"])
    assert (get["name"], get["traceId"], get["parentSpanId"]) == ("GET", read["traceId"], read["spanId"])
    assert "parentSpanId" not in read

    own.create(person(state="XX")).failed("FIELD_INVALID")
    [failed] = wait_for(lambda: [span for span in collector.spans() if "userintent.reason" in attributes(span)], "the failed call")
    assert attributes(failed) == {"rpc.system": "grpc", "rpc.grpc.status_code": "3", "userintent.reason": "FIELD_INVALID"}
    assert failed["status"]["code"] == 2
    assert own.metrics()['userintent_trace_spans_total{result="exported"}'] >= 5


def test_no_span_holds_a_value_of_a_request(new_gateway, sandbox, collector):
    own = new_gateway(otlp_endpoint=collector.url, upstream_timeout="1500ms", connect_timeout="1s")
    requests = [person(), person(), person(state="XX")]
    sandbox.fault("hang", requests[1].email)
    for request in requests:
        own.begin(request, metadata=(*traceparent(), ("canary-key", "canary-value"))).reply()
    own.stop()  # the last spans leave at the end
    assert len(collector.spans(TRACE)) == 5
    told = "\n".join(collector.bodies)
    for request in requests:
        for name in fields():
            value = getattr(request, name)
            if isinstance(value, str) and len(value) > 2:
                assert value not in told, name
    assert "canary" not in told and "local" not in told


def test_a_trace_that_the_caller_does_not_sample_is_not_exported(new_gateway, collector):
    own = new_gateway(otlp_endpoint=collector.url)
    request = person()
    own.begin(request, metadata=traceparent("00")).reply().ok()
    assert line_of(own, request)["trace_id"] == TRACE
    own.create(person()).ok()
    wait_for(lambda: len(collector.spans()) == 2, "the spans of the other call")
    assert collector.spans(TRACE) == []


@pytest.mark.parametrize("transport", ["nghttp2", "libcurl"])
def test_astra_is_sent_the_trace_with_the_flag_alone(new_gateway, sandbox, transport):
    own = new_gateway(send_traceparent=True, upstream_transport=transport)
    for flags in ("01", "00"):
        request = person()
        own.begin(request, metadata=traceparent(flags)).reply().ok()
        [post] = assert_posts(sandbox, request.email, 1)
        sent = {name.lower(): value for name, value in post["headers"].items()}["traceparent"]
        version, trace, span, sampled = sent.split("-")
        assert (version, trace, sampled) == ("00", TRACE, flags) and span != PARENT
    request = person()
    own.create(request).ok()
    [post] = assert_posts(sandbox, request.email, 1)
    trace = {name.lower(): value for name, value in post["headers"].items()}["traceparent"].split("-")[1]
    assert trace != TRACE and line_of(own, request)["trace_id"] == trace
    assert own.metrics()['userintent_trace_spans_total{result="exported"}'] == 0


@pytest.mark.parametrize("status", [500, None])
def test_a_collector_that_refuses_or_is_gone_harms_nobody(new_gateway, collector, status):
    refusing = Collector(status or 200)
    if status is None:
        refusing.close()
    own = new_gateway(otlp_endpoint=refusing.url)
    own.create(person()).ok()
    wait_for(lambda: own.metrics()['userintent_trace_spans_total{result="failed"}'] >= 2, "spans that were not taken")
    own.create(person()).ok()
    assert [line["level"] for line in own.log() if line["event"] == "traces_not_exported"] == ["warn"]
    if status:
        refusing.close()


def test_http_off_loopback_is_refused(new_gateway):
    ended = new_gateway(start=False).start_once(otlp_endpoint="http://collector.example:4318")
    assert ended.returncode == 1 and "--otlp_endpoint: off loopback needs https" in ended.stderr
