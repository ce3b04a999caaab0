"""Who may call what: --policy_file against mTLS callers, how it is read again, and --check_policy."""

import concurrent.futures
import itertools
import json
import os
import random
import re
import subprocess
import threading
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from support import errors
from support.certs import Authority
from support.check import assert_posts
from support.gateway import SERVER, Gateway
from support.people import person
from support.process import PATIENCE, clean_environment, wait_for
from support.protos import REPO, pb
from support.watch import Watch

METHODS = ["CreateUserIntent", "GetCreation", "GetUserIntent", "GetAuthorizationUrl", "WatchUserIntents"]
SHOW_SENT = {"CreateUserIntent", "GetCreation"}  # whose errors say what was sent
GARBAGE = b"\xff"
STATE = "a-state-of-enough-letters"


def rule(name, methods=(), **more):
    return {"name": name, "methods": list(methods), **more}


def policy_text(*rules):
    return json.dumps({"version": 1, "callers": list(rules)})


def replace(path, text):
    """As a careful writer does it."""
    new = path.with_name(path.name + ".new")
    new.write_text(text)
    new.rename(path)


# -- the oracle, written apart from the gateway's ---------------------------------------------------------------------------


def internal(name):
    if name == "local" or name.startswith(("uri:", "dns:")):
        return name
    return ("uri:" if "://" in name else "dns:") + name


def covers(name, caller):
    """How well a rule's name matches; 0: not at all."""
    name = internal(name)
    if name == caller:
        return 2 * len(caller) + 1
    if not name.endswith("/*") or not caller.startswith(name[:-1]):
        return 0
    return 0 if any(part in ("", ".", "..") for part in caller[len(name) - 1:].split("/")) else len(name)


def verdict(policy, caller, method):
    """"allowed", "denied", or "would be denied"."""
    best = max(policy["callers"], key=lambda entry: covers(entry["name"], internal(caller)))
    if not covers(best["name"], internal(caller)):
        return "denied"
    if method in best["methods"]:
        return "allowed"
    return "denied" if best.get("enforce", True) else "would be denied"


# -- callers ------------------------------------------------------------------------------------------------------------------


class Callers:
    """Certificates by caller, and channels with them."""

    def __init__(self):
        self.authority = Authority()
        self.key, self.certificate = self.authority.issue("gateway", ["DNS:localhost", "IP:127.0.0.1"])
        self._issued = {}
        self._number = itertools.count()

    def flags(self):
        return dict(tls_cert_file=self.certificate, tls_key_file=self.key, tls_client_ca_file=self.authority.ca_file)

    def channel(self, gateway, name):
        if name not in self._issued:
            san = ("URI:" if "://" in name else "DNS:") + name
            self._issued[name] = self.authority.issue(f"client{next(self._number)}", [san])
        key, certificate = self._issued[name]
        return gateway.new_channel(grpc.ssl_channel_credentials(
            self.authority.ca_file.read_bytes(), key.read_bytes(), certificate.read_bytes()))


@pytest.fixture(scope="module")
def callers():
    callers = Callers()
    yield callers
    callers.authority.close()


@pytest.fixture
def guarded(new_gateway, callers, tmp_path):
    """A gateway with a policy in tmp_path / policy.json, and that file."""
    def start(*rules, **flags):
        path = tmp_path / "policy.json"
        path.write_text(policy_text(*rules))
        return new_gateway(**callers.flags(), **{"policy_file": path, **flags}), path
    return start


def reason_of(channel, method, data=GARBAGE):
    """What a call with these bytes as its message hears: the reason of its error, or OK."""
    call = channel.unary_unary(f"/userintent.v1.UserIntentService/{method}")
    try:
        call(data, timeout=PATIENCE)
    except grpc.RpcError as error:
        return errors.decode(error, read=method not in SHOW_SENT).reason
    return "OK"


def expected(policy, caller, method):
    """Of a call with GARBAGE: whoever is let in hears that it does not parse."""
    return "CALLER_NOT_ALLOWED" if verdict(policy, caller, method) == "denied" else "MALFORMED_REQUEST"


def told(gateway, event):
    return [line for line in gateway.log() if line.get("event") == event]


def wait_told(gateway, event, count=1):
    wait_for(lambda: len(told(gateway, event)) >= count, f"{count} of {event}")
    return told(gateway, event)[-1]


# -- verdicts -----------------------------------------------------------------------------------------------------------------

ALL = "spiffe://test.example/all"
NONE = "spiffe://test.example/none"
TRIED = "spiffe://test.example/tried"
BATCH = "spiffe://test.example/batch/night/1"
STRANGER = "spiffe://elsewhere.example/all"
DNS = "support.test.example"
URI = "https://app.example.com/astra/done"
RULES = [rule(ALL, METHODS, redirect_uris=[URI]), rule(NONE), rule(TRIED, ["GetCreation"], enforce=False),
         rule("spiffe://test.example/batch/*", ["GetCreation"]), rule("spiffe://test.example/*", ["GetUserIntent"]),
         rule(DNS, ["GetCreation", "GetUserIntent"])]
POLICY = {"version": 1, "callers": RULES}
NAMES = [ALL, NONE, TRIED, BATCH, STRANGER, DNS, "spiffe://test.example/batch", "spiffe://test.example/all/more",
         "spiffe://test.example/batch/../all", "other.test.example"]


@pytest.fixture(scope="module")
def shared(sandbox, callers, tmp_path_factory):
    path = tmp_path_factory.mktemp("policy") / "policy.json"
    path.write_text(json.dumps(POLICY))
    gateway = Gateway(sandbox, **callers.flags(), policy_file=path, shards=2)
    yield gateway
    gateway.close()


def test_every_method_of_every_caller(shared, callers):
    """The verdict is the oracle's, before anything of the request is parsed."""
    for name in NAMES:
        channel = callers.channel(shared, name)
        for method in METHODS:
            assert reason_of(channel, method) == expected(POLICY, name, method), (name, method)
    shared.assert_alive()


def test_check_policy_says_what_the_server_does(shared, callers):
    for name, method in itertools.product(NAMES, METHODS):
        for written in (name, internal(name)):
            asked = subprocess.run([SERVER, f"--policy_file={shared.flags['policy_file']}", f"--check_policy={written},{method}"],
                                   env=clean_environment(), capture_output=True, text=True, timeout=PATIENCE, check=False)
            assert asked.stderr == "" and asked.stdout.count("\n") == 1
            assert asked.returncode == (1 if verdict(POLICY, name, method) == "denied" else 0), asked.stdout
            assert asked.stdout.startswith("allowed: rule " if asked.returncode == 0 else "denied: ")


def test_a_denied_call_reaches_nothing(shared, callers, sandbox):
    """Good requests of a denied caller: the error's form, no POST, no GET, no row."""
    channel = callers.channel(shared, NONE)
    request = person()
    gets = len(sandbox.gets())
    error = shared.create(request, channel=channel).failed("CALLER_NOT_ALLOWED", sent="no", recovery="STOP")
    assert error.code == grpc.StatusCode.PERMISSION_DENIED and error.pushback == "-1"
    assert "rule" not in error.message and NONE not in error.message
    shared.get(request.request_id, channel=channel).failed("CALLER_NOT_ALLOWED")
    shared.read(request, channel=channel).failed("CALLER_NOT_ALLOWED")
    shared.authorize(request, URI, STATE, channel=channel).failed("CALLER_NOT_ALLOWED")
    Watch(shared, channel=channel).failed("CALLER_NOT_ALLOWED")
    assert_posts(sandbox, request.email, 0)
    assert len(sandbox.gets()) == gets
    # The id is as free as before.
    allowed = callers.channel(shared, ALL)
    shared.get(request.request_id, channel=allowed).failed("REQUEST_NOT_FOUND")
    shared.create(request, channel=allowed).ok()
    assert_posts(sandbox, request.email, 1)


def test_denials_are_counted_and_logged(guarded, callers):
    gateway, _ = guarded(rule(NONE), rule(ALL, METHODS))
    channel = callers.channel(gateway, NONE)
    before = gateway.metrics()
    for _ in range(30):
        assert reason_of(channel, "GetCreation") == "CALLER_NOT_ALLOWED"
    assert reason_of(channel, "WatchUserIntents") == "CALLER_NOT_ALLOWED"
    assert reason_of(callers.channel(gateway, STRANGER), "GetUserIntent") == "CALLER_NOT_ALLOWED"
    assert reason_of(callers.channel(gateway, ALL), "GetUserIntent") == "MALFORMED_REQUEST"
    after = gateway.metrics()
    grown = {method: after[f'userintent_policy_denied_total{{method="{method}"}}'] -
             before[f'userintent_policy_denied_total{{method="{method}"}}'] for method in METHODS}
    assert grown == {"CreateUserIntent": 0, "GetCreation": 30, "GetUserIntent": 1, "GetAuthorizationUrl": 0, "WatchUserIntents": 1}
    wait_told(gateway, "call_denied", 3)
    lines = [(line["caller"], line["method"], line["rule"]) for line in told(gateway, "call_denied")]
    assert set(lines) == {(f"uri:{NONE}", "GetCreation", NONE), (f"uri:{NONE}", "WatchUserIntents", NONE),
                          (f"uri:{STRANGER}", "GetUserIntent", "(none)")}
    assert 3 <= len(lines) < 30  # a burst is few lines
    assert not told(gateway, "call_would_be_denied")


def test_a_rule_that_is_tried_out_refuses_nothing_and_counts(shared, callers, sandbox):
    channel = callers.channel(shared, TRIED)
    before = shared.metrics()
    request = person()
    shared.create(request, channel=channel).ok()
    assert_posts(sandbox, request.email, 1)
    assert shared.state(request.request_id, channel=channel) == "CREATED"  # which the rule lists
    after = shared.metrics()
    name = 'userintent_policy_would_deny_total{reason="method"}'
    assert after[name] - before[name] == 1
    denied = [key for key in after if key.startswith("userintent_policy_denied_total")]
    assert [after[key] - before[key] for key in denied] == [0] * len(METHODS)
    line = wait_told(shared, "call_would_be_denied")
    assert line["caller"] == f"uri:{TRIED}" and line["rule"] == TRIED


def test_health_is_open_to_every_caller(shared, callers):
    for name in (NONE, STRANGER):
        stub = health_pb2_grpc.HealthStub(callers.channel(shared, name))
        answer = stub.Check(health_pb2.HealthCheckRequest(service="userintent.v1.UserIntentService"), timeout=PATIENCE)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_redirect_uris_are_those_of_the_rule(guarded, callers):
    other = "https://other.example.com/done"
    gateway, _ = guarded(rule(ALL, METHODS, redirect_uris=[URI]), rule(DNS, METHODS, redirect_uris=[other]),
                         rule(TRIED, enforce=False), oauth_redirect_uri="https://flag.example.com/done")
    for name, good in ((ALL, URI), (DNS, other), (TRIED, None)):
        channel = callers.channel(gateway, name)
        request = person()
        gateway.create(request, channel=channel).ok()
        for uri in (URI, other, "https://flag.example.com/done", URI + "/", ""):
            reply = gateway.authorize(request, uri, STATE, channel=channel)
            if uri == good:
                assert reply.ok().url
            else:
                assert set(reply.failed("FIELD_INVALID").violations) == {"redirect_uri"}


def test_without_tls_the_caller_is_local(new_gateway, tmp_path, sandbox):
    path = tmp_path / "policy.json"
    path.write_text(policy_text(rule("local", ["GetCreation"])))
    gateway = new_gateway(policy_file=path)
    request = person()
    gateway.create(request).failed("CALLER_NOT_ALLOWED", sent="no")
    gateway.get(request.request_id).failed("REQUEST_NOT_FOUND")
    assert_posts(sandbox, request.email, 0)


# -- the file that changes -----------------------------------------------------------------------------------------------------


def test_a_new_file_is_in_force_without_a_restart(guarded, callers):
    """By renaming it; nobody sends a signal."""
    gateway, path = guarded(rule(ALL, ["GetCreation"]))
    channel = callers.channel(gateway, ALL)
    assert reason_of(channel, "GetUserIntent") == "CALLER_NOT_ALLOWED"
    replace(path, policy_text(rule(ALL, ["GetUserIntent"])))
    wait_for(lambda: reason_of(channel, "GetUserIntent") == "MALFORMED_REQUEST", "the new policy", interval=0.1)
    assert reason_of(channel, "GetCreation") == "CALLER_NOT_ALLOWED"
    assert wait_told(gateway, "policy_reloaded")["sha256"] != told(gateway, "policy_loaded")[0]["sha256"]


def test_a_link_that_kubernetes_swaps(new_gateway, callers, tmp_path):
    """policy.json -> ..data/policy.json, where ..data is a link to a directory and is replaced."""
    for number, methods in (("..1", ["GetCreation"]), ("..2", ["GetUserIntent"])):
        (tmp_path / number).mkdir()
        (tmp_path / number / "policy.json").write_text(policy_text(rule(ALL, methods)))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "policy.json").symlink_to("..data/policy.json")
    gateway = new_gateway(**callers.flags(), policy_file=tmp_path / "policy.json")
    channel = callers.channel(gateway, ALL)
    assert reason_of(channel, "GetUserIntent") == "CALLER_NOT_ALLOWED"
    (tmp_path / "..data_tmp").symlink_to("..2")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")
    wait_for(lambda: reason_of(channel, "GetUserIntent") == "MALFORMED_REQUEST", "the new policy", interval=0.1)
    assert reason_of(channel, "GetCreation") == "CALLER_NOT_ALLOWED"


def rules_in_force(gateway):
    """{label sha256: number of rules}; there is one."""
    return {match[1]: value for key, value in gateway.metrics().items()
            if (match := re.fullmatch(r'userintent_policy_rules\{sha256="(\w+)"\}', key))}


def test_a_bad_file_leaves_the_last_good_one_in_force(guarded, callers):
    gateway, path = guarded(rule(ALL, ["GetCreation"]))
    channel = callers.channel(gateway, ALL)
    wait_for(lambda: 0 < gateway.metric("userintent_policy_age_seconds") < PATIENCE, "an age")
    assert gateway.metric("userintent_policy_reload_failures_total") == 0
    in_force = rules_in_force(gateway)
    assert list(in_force.values()) == [1]
    bad = ["", "{", policy_text(), policy_text(rule(ALL, ["Everything"])), policy_text(rule(ALL), rule(ALL)), None]
    for number, text in enumerate(bad, 1):
        if text is None:
            path.unlink()
        else:
            replace(path, text)
        gateway.signal(1)  # at once; test_a_new_file_is_in_force_without_a_restart waits for the poll
        line = wait_told(gateway, "policy_not_reloaded", number)
        assert line["error"].startswith("--policy_file: ") and "Everything" not in line["error"]
        assert gateway.metric("userintent_policy_reload_failures_total") >= number
        assert reason_of(channel, "GetCreation") == "MALFORMED_REQUEST"
        assert reason_of(channel, "GetUserIntent") == "CALLER_NOT_ALLOWED"
        assert rules_in_force(gateway) == in_force
    assert "callers[0].methods[0]" in told(gateway, "policy_not_reloaded")[3]["error"]
    grown = gateway.metric("userintent_policy_age_seconds")
    wait_for(lambda: gateway.metric("userintent_policy_age_seconds") > grown + 3, "an age that grows", interval=0.2)
    old = gateway.metric("userintent_policy_age_seconds")
    failures = gateway.metric("userintent_policy_reload_failures_total")
    wait_for(lambda: gateway.metric("userintent_policy_reload_failures_total") > failures, "a failure of each reading", interval=0.2)
    good = policy_text(rule(ALL, ["GetUserIntent"]), rule(DNS))
    replace(path, good)
    wait_for(lambda: reason_of(channel, "GetUserIntent") == "MALFORMED_REQUEST", "the good policy", interval=0.1)
    assert list(rules_in_force(gateway).values()) == [2]
    wait_for(lambda: gateway.metric("userintent_policy_age_seconds") < old, "a young file")
    digest = subprocess.run(["sha256sum"], input=good.encode(), capture_output=True, check=True).stdout.decode()
    assert digest.startswith(next(iter(rules_in_force(gateway))))


def test_a_watch_ends_when_its_caller_loses_it(guarded, callers, sandbox):
    """The watcher that keeps the right goes on, on the same shard or another."""
    gateway, path = guarded(rule(ALL, METHODS), rule(DNS, METHODS), shards=2)
    losing = [Watch(gateway, channel=callers.channel(gateway, DNS)).wait("synced") for _ in range(3)]
    keeping = [Watch(gateway, channel=callers.channel(gateway, ALL)).wait("synced") for _ in range(3)]
    replace(path, policy_text(rule(ALL, METHODS), rule(DNS, ["GetCreation"])))
    for watch in losing:
        watch.failed("CALLER_NOT_ALLOWED", recovery="STOP")
    request = person()
    gateway.create(request, channel=callers.channel(gateway, ALL)).ok()
    for watch in keeping:
        wait_for(lambda watch=watch: any(event[0] == request.request_id for event in watch.events if len(event) == 3), "the change")
        watch.close()
    name = 'userintent_watch_ends_total{cause="not_allowed"}'
    wait_for(lambda: gateway.metrics()[name] == 3, "three ends")
    wait_for(lambda: gateway.metric("userintent_watch_streams") == 0, "no stream")


class Load:
    """Callers that call without a pause, and what they heard."""

    def __init__(self, channels):
        self._channels = channels
        self._stop = threading.Event()
        self.heard = []  # (begun, ended, caller, method, reason)

    def run(self, seed):
        chance = random.Random(seed)
        while not self._stop.is_set():
            caller, method = chance.choice(list(self._channels)), chance.choice(METHODS)
            begun = time.monotonic()
            reason = reason_of(self._channels[caller], method)
            self.heard.append((begun, time.monotonic(), caller, method, reason))

    def stop(self):
        self._stop.set()


def random_policy(chance):
    """Rules for some of the callers, by names and by wildcards."""
    pool = [ALL, NONE, TRIED, DNS, BATCH, "spiffe://test.example/*", "spiffe://test.example/batch/*",
            "spiffe://test.example/batch/night/*", "spiffe://elsewhere.example/*"]
    names = chance.sample(pool, chance.randint(3, len(pool)))
    return {"version": 1, "callers": [rule(name, [method for method in METHODS if chance.random() < 0.5],
                                           enforce=chance.random() < 0.8) for name in names]}


def test_no_wrong_decision_while_the_policy_changes(guarded, callers):
    """Twenty files one after the other under load, some of them broken: every answer is that of a policy which was in force
    at some moment of the call."""
    seed = int(os.environ.get("E2E_SEED", random.randrange(2**32)))
    print(f"E2E_SEED={seed}")
    chance = random.Random(seed)
    gateway, path = guarded(*RULES, shards=2)
    names = [ALL, NONE, TRIED, DNS, BATCH, STRANGER]
    load = Load({name: callers.channel(gateway, name) for name in names})
    eras = [(POLICY, time.monotonic(), None)]  # policy, from when it may be in force, until when the one before it may
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        running = [pool.submit(load.run, seed + number) for number in range(4)]
        try:
            for number in range(1, 21):
                if number % 4 == 0:  # a broken one in between
                    replace(path, policy_text(rule(ALL, ["Everything"])))
                    gateway.signal(1)
                    wait_told(gateway, "policy_not_reloaded", number // 4)
                policy = random_policy(chance)
                written = time.monotonic()
                replace(path, json.dumps(policy) + " " * number)
                if number % 5:
                    gateway.signal(1)  # the others wait for the poll
                wait_told(gateway, "policy_reloaded", number)
                eras.append((policy, written, time.monotonic()))
                heard = len(load.heard)
                wait_for(lambda heard=heard: len(load.heard) > heard + 40, "calls under this policy", PATIENCE + 30)
        finally:
            load.stop()
        for future in running:
            future.result(timeout=PATIENCE + 30)
    gateway.assert_alive()
    certain = 0
    for begun, ended, caller, method, reason in load.heard:
        possible = set()
        for index, (policy, since, _) in enumerate(eras):
            over = eras[index + 1][2] if index + 1 < len(eras) else None  # the next one is certainly in force
            if since <= ended and (over is None or begun <= over):
                possible.add(expected(policy, caller, method))
        assert reason in possible, (caller, method, reason, begun - eras[0][1])
        certain += len(possible) == 1
    assert certain > 400  # the test can see a wrong decision


# -- the command line and the page ---------------------------------------------------------------------------------------------


def run(*arguments):
    return subprocess.run([SERVER, *arguments], env=clean_environment(), capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_a_bad_file_stops_the_start(new_gateway, tmp_path):
    path = tmp_path / "policy.json"
    path.write_text(policy_text(rule("spiffe://test.example/*", ["GetCreation", "Everything"])))
    gateway = new_gateway(start=False, policy_file=path)
    for more in ([], ["--check_config"]):
        ended = run(*gateway.arguments(), *more)
        assert ended.returncode == 1
        assert ended.stderr.startswith("userintent-server: --policy_file: callers[0].methods[1]: is no method; there are ")
        assert ended.stderr.count("\n") == 1
    path.write_text(policy_text(rule("spiffe://test.example/*", ["GetCreation"])))
    assert run(*gateway.arguments(), "--check_config").returncode == 0
    path.chmod(0o666)
    ended = run(*gateway.arguments())
    assert ended.returncode == 1 and ended.stderr.startswith("userintent-server: --policy_file: others may write the file")


def test_check_policy_of_a_bad_question(tmp_path):
    path = tmp_path / "policy.json"
    path.write_text(policy_text(rule("local")))
    for arguments in ([f"--policy_file={path}", "--check_policy=local"], [f"--policy_file={path}", "--check_policy"],
                      ["--check_policy=local,GetCreation"], ["--policy_file=/nonexistent", "--check_policy=local,GetCreation"]):
        ended = run(*arguments)
        assert ended.returncode == 1 and ended.stdout == "" and ended.stderr.startswith("userintent-server: --"), arguments
        assert ended.stderr.count("\n") == 1


def test_the_examples_of_the_page(tmp_path):
    """Every policy of docs/policy.md is one, and the command shown prints what is shown."""
    page = (REPO / "docs" / "policy.md").read_text()
    examples = re.findall(r"^ *```json\n(.*?)^ *```", page, re.DOTALL | re.MULTILINE)
    assert len(examples) == 2
    path = tmp_path / "policy.json"
    for example in reversed(examples):  # the first one is that of the command
        path.write_text(example)
        ended = run(f"--policy_file={path}", "--check_policy=spiffe://corp.example/batch/x,GetCreation")
        assert ended.returncode == 0, ended
        policy = json.loads(example)
        for caller, method in itertools.product(["spiffe://corp.example/signup", "spiffe://corp.example/batch/a/b",
                                                 "spiffe://corp.example/batch", "support.corp.example"], METHODS):
            ended = run(f"--policy_file={path}", f"--check_policy={caller},{method}")
            assert ended.returncode == (verdict(policy, caller, method) == "denied"), (caller, method)
    shown = re.search(r"userintent-server --policy_file=policy.json (--check_policy=\S+)\n\s*(.*)\n", page)
    assert run(f"--policy_file={path}", shown[1]).stdout.rstrip() == shown[2].strip()
    members = re.findall(r"^\| `(\w+)` \|", page.partition("## Names")[0], re.MULTILINE)
    error = run(f"--policy_file={write(tmp_path, policy_text(rule('local', nobody=1)))}", "--check_policy=local,GetCreation").stderr
    assert error.rstrip().rpartition("there are ")[2].split(", ") == [m for m in members if m not in ("version", "callers")]


def write(directory, text):
    path = directory / "other.json"
    path.write_text(text)
    return path


def test_the_oracles_agree():
    """The one of this file is no copy of the gateway's: what both must say of the contract's example."""
    policy = {"callers": [rule("spiffe://a/x", ["GetCreation"]), rule("spiffe://a/*", ["GetUserIntent"])]}
    assert verdict(policy, "spiffe://a/x", "GetUserIntent") == "denied"
    assert verdict(policy, "spiffe://a/x/y", "GetUserIntent") == "allowed"
    assert verdict(policy, "spiffe://a", "GetUserIntent") == "denied"
    assert verdict(policy, "dns:spiffe://a/y", "GetUserIntent") == "denied"
    assert set(METHODS) == set(pb.DESCRIPTOR.services_by_name["UserIntentService"].methods_by_name)
