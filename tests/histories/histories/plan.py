"""What shall happen in one episode, all of it drawn from a seed before anything starts.

Only the inputs can be repeated, not the moments at which processes act on them: a seed gives the same calls, faults and
restarts in the same order. What depends on earlier answers (which request to supersede) is drawn here as a number and
looked up when the time comes.

Each episode draws its own mix (how many e-mail addresses, which faults, how often), because one average mix would never
visit the corners.
"""

import base64
import dataclasses
import itertools
import random
import uuid

CALLERS = ("a", "b")

# A status that says "not processed" may be followed by another POST; the sandbox's account does not show headers, so
# 503 is answered with Retry-After by faults of the kind `status` only, and never with it by others.
REFUSED = frozenset({429, 401, 403, 404, 405, 406, 410, 418, *(s for s in range(300, 400) if s != 303)})


def refusing_status(status, fault):
    return status in REFUSED or (status == 503 and fault == "status")


def refused_unprocessed(post):
    """Whether a POST of the account may be followed by another one; HTTP/2 refuses by REFUSED_STREAM and GOAWAY, too."""
    return post.get("refused", False) or refusing_status(post["status"], post["fault"])


@dataclasses.dataclass(frozen=True)
class Spec:
    """One content under one caller's request_id. `ref` travels in the metadata and comes back in the account."""
    ref: str
    caller: str
    request_id: str
    email: str
    person: int
    unverified: bool
    full_metadata: bool


@dataclasses.dataclass(frozen=True)
class Call:
    spec: Spec
    kind: str = "create"           # create, validate, get
    allow_repeat: bool = False
    supersede: float = 1.0         # < 0.7: replace what is known to be unresolved; < 0.73: replace a stranger
    deadline: float = 5.0
    cancel_after: float | None = None
    shout: bool = False            # the request_id and the address in capitals
    wait_for_server: bool = True


@dataclasses.dataclass(frozen=True)
class Step:
    """A group of calls that begin together, and what is done to the surroundings before it."""
    calls: tuple
    chaos: tuple = ()


@dataclasses.dataclass
class Plan:
    seed: int
    sandbox_flags: dict
    gateway_flags: dict            # of the first process
    at_once: int
    steps: list
    specs: dict


def _person(dice):
    return dice.randrange(6)


class _Population:
    """A few addresses at a time; each lives for some calls and makes room for a new one."""

    def __init__(self, dice, seed, size):
        self.dice, self.seed, self.size = dice, seed, size
        self.made = 0
        self.alive = [self._new() for _ in range(size)]
        self.specs = {}

    def _new(self):
        self.made += 1
        address = f"zorblatt.{self.seed}.{self.made}@quillfeather.example.com"
        return {"email": address, "left": self.dice.choice((2, 3, 3, 4, 6, 10, 25)), "ids": []}

    def pick(self):
        place = self.dice.randrange(self.size)
        address = self.alive[place]
        address["left"] -= 1
        if address["left"] <= 0:
            self.alive[place] = self._new()
        return address

    def _spec(self, caller, request_id, variant, address, person):
        spec = Spec(f"{caller}/{request_id}/{variant}", caller, request_id, address["email"], person,
                    unverified=person % 3 == 2, full_metadata=self.dice.random() < 0.05)
        return self.specs.setdefault(spec.ref, spec)

    def fresh(self, address, caller):
        request_id = str(uuid.UUID(int=self.dice.getrandbits(128), version=4))
        if address["ids"] and self.dice.random() < 0.05:
            # The other caller's id: another request altogether.
            other = self.dice.choice(address["ids"])
            if other.caller != caller and f"{caller}/{other.request_id}/0" not in self.specs:
                request_id = other.request_id
        spec = self._spec(caller, request_id, 0, address, _person(self.dice))
        address["ids"].append(spec)
        return spec

    def old(self, address):
        """One of the address's ids, the newer ones rather."""
        ids = address["ids"]
        return ids[max(self.dice.randrange(len(ids)), self.dice.randrange(len(ids)))]

    def changed(self, spec, address):
        """Other content under the same id; often another address altogether."""
        variant = self.dice.choice((1, 1, 2))
        ref = f"{spec.caller}/{spec.request_id}/{variant}"
        if ref in self.specs:
            return self.specs[ref]
        where = address if self.dice.random() < 0.6 else self.dice.choice(self.alive)
        return self._spec(spec.caller, spec.request_id, variant, where, _person(self.dice))


def _deadline(dice, wild):
    roll = dice.random()
    if roll > wild:
        return 5.0
    return dice.choice((0.02, 0.06, 0.12, 0.2, 0.4, 0.8, 1.5)) * dice.uniform(0.8, 1.2)


def _status_fault(dice):
    group = dice.random()
    if group < 0.25:
        status = dice.choice((500, 502, 504, 599, 408, 409, 402, 451, 303))
        return dict(kind="status", status=status, commit=dice.random() < 0.5)
    if group < 0.40:
        return dict(kind="status", status=dice.choice((400, 422)))
    if group < 0.55:
        return dict(kind="status", status=dice.choice((401, 401, 401, 403, 404, 405, 406, 410, 418)))
    if group < 0.70:
        return dict(kind="status", status=503, headers={"Retry-After": dice.choice(("0", "0", "1"))})
    if group < 0.80:
        headers = dice.choice(({"Retry-After": "0"}, {"Retry-After": "0"}, {"Retry-After": "1"},
                               {"Retry-After": "soon"}, {}))
        return dict(kind="status", status=429, headers=headers)
    # 2xx of which nobody can tell what was created.
    body = dice.choice(("", "{", "[]", '{"id": null}', '{"id": ""}', '{"status": "pending"}', '{"id": 7}',
                        '{"id": "a\\u0007b"}', '{"id": "x"} {"id": "y"}', "null", "<html></html>"))
    return dict(kind="status", status=dice.choice((200, 201, 202)), body=body or " ", commit=dice.random() < 0.5)


# A refusal, and in the same bytes an answer that nobody asked for.
_UNSOLICITED = b'{"id": "unsolicited", "status": "pending"}'
_TWO_ANSWERS = (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\nHTTP/1.1 201 Created\r\n"
                b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(_UNSOLICITED) + _UNSOLICITED)


def _fault(dice, kind, http2):
    commit = dice.random() < 0.5
    if kind == "delay":
        # Some beyond the gateway's patience with Astra.
        return dict(kind="delay", delay_ms=dice.choice((5, 20, 50, 150, 300, 700, 900, 1500)))
    if kind == "status":
        # A few beyond the gateway's patience, too.
        return _status_fault(dice) | (dict(delay_ms=dice.choice((600, 1100))) if dice.random() < 0.15 else {})
    if kind == "html":
        return dict(kind="html", status=dice.choice((502, 503, 500)), commit=commit)
    if kind == "cut_body":
        status = dice.choice((201, 201, 200, 500, 429, 404))
        return dict(kind="cut_body", status=status, commit=commit and status in (200, 201, 500),
                    **({"headers": {"Retry-After": "0"}} if status == 429 else {}))
    if kind == "cut_head":
        return dict(kind="cut_head", status=dice.choice((201, 500)), commit=commit)
    if kind in ("close", "reset", "hang", "garbage"):
        return dict(kind=kind, commit=commit, delay_ms=dice.choice((0, 0, 30)))
    if kind == "rst_stream":
        code = dice.choice(
            ("INTERNAL_ERROR", "CANCEL", "REFUSED_STREAM", "HTTP_1_1_REQUIRED", "NO_ERROR", "ENHANCE_YOUR_CALM"))
        # Whoever refuses a stream has done nothing for it.
        return dict(kind=kind, commit=commit and code != "REFUSED_STREAM", code=code)
    if kind == "goaway":
        below = dice.random() < 0.5
        return dict(kind=kind, commit=commit and not below, below=below)
    if kind == "slow_body":
        return dict(kind=kind, byte_ms=dice.choice((1, 3, 30)))
    if kind == "huge_body":
        return dict(kind=kind, bytes=dice.choice((65537, 70000, 300000)), status=201, commit=commit)
    if kind == "redirect":
        return dict(kind=kind, status=dice.choice((301, 302, 307, 308)))
    if kind == "raw":
        raw = dice.choice((b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"HTTP/1.1 2", _TWO_ANSWERS,
                           b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
                           b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 502 Bad\r\nContent-Length: 0\r\n\r\n"))
        return dict(kind=kind, commit=commit and raw is not _TWO_ANSWERS, base64=base64.b64encode(raw).decode(),
                    keep=raw is _TWO_ANSWERS or dice.random() < 0.3)
    if kind == "second_answer":
        if not http2:
            # Over HTTP/1.1 a second answer that comes after the connection's next request is that request's answer:
            # nobody can tell. One that comes with the first answer is in order, and must be noticed.
            return dict(kind="raw", base64=base64.b64encode(_TWO_ANSWERS).decode(), keep=True)
        return dict(kind=kind, second_ms=dice.choice((0, 1, 10, 40)))
    assert kind == "early"
    return dict(kind=kind, status=dice.choice((503, 500, 429, 404, 413)))


KINDS = ("delay", "status", "html", "cut_body", "cut_head", "close", "reset", "hang", "rst_stream", "goaway",
         "slow_body", "huge_body", "redirect", "garbage", "raw", "second_answer", "early")

# What takes the connection's other requests with it (over HTTP/2) is rarer, or nothing else would be seen.
_WEIGHTS = dict(status=8, delay=5, second_answer=3, early=3, close=1, reset=1, goaway=1, garbage=0.7, raw=1, cut_head=1,
                hang=1)


# What is done to Astra's webhooks. Those with a good signature tell the truth: a lie that Astra signs would be believed.
_HOOKS = (dict(lose=True), dict(duplicate=1), dict(duplicate=3), dict(reorder=True, status="pending"), dict(delay_ms=50),
          dict(delay_ms=1200), dict(replay_ms=700), dict(before_answer=True), dict(form="raw"), dict(form="compact"),
          dict(key="wrong"), dict(attempt_id=""), dict(type="user_updated"), dict(byte_ms=1),
          dict(extra={"note": "n\u00f6 pro\u00dflem"}))


def _hook_faults(dice):
    """Some webhooks in a while are lost, doubled, late ..., or are not Astra's at all; or no webhook comes."""
    if dice.random() < 0.35:
        return ("hooks", (dict(times=0, match={}, lose=True),))
    chosen = dice.sample(_HOOKS, dice.randint(0, 6))
    faults = []
    for what in chosen:
        match = {"every": dice.randint(2, 2 + len(chosen))}
        if "status" in what:
            match["status"] = what["status"]
        faults.append(dict(times=0, match=match, **{name: value for name, value in what.items() if name != "status"}))
    return ("hooks", tuple(faults))


class _Weather:
    """The faults of a while: one whose turn it is, so that episodes with consecutive seeds meet every kind, and others
    by chance."""

    def __init__(self, dice, seed):
        self.dice = dice
        start = 5 * seed % len(KINDS)    # an episode has six kinds of weather, at least
        self.due = itertools.cycle(KINDS[start:] + KINDS[:start])
        self.rate = dice.choice((0.15, 0.3, 0.3, 0.5, 0.7))
        self.kinds = [kind for kind in KINDS if dice.random() < 0.75] or ["status"]
        self.early = 0

    def change(self, http2):
        """Chaos: forget all faults, then these."""
        faults = []
        if self.dice.random() < 0.1:
            # Answers that come too late, and nothing that ends their connections first, or hardly any would come at all.
            for every in (3, 4):
                faults.append(_status_fault(self.dice) | dict(delay_ms=self.dice.choice((600, 1100)), times=0,
                                                              match={"every": every}))
        elif self.dice.random() > 0.1:
            count = self.dice.randint(3, 8)
            chosen = self.dice.choices(self.kinds, [_WEIGHTS.get(kind, 2) for kind in self.kinds], k=count - 1)
            for kind in (next(self.due), *chosen):
                fault = _fault(self.dice, kind, http2)
                if kind == "early":
                    # Over HTTP/2 its body is never read, so the account cannot say whose it was; the answer can.
                    self.early += 1
                    fault.update(times=1, match={"nth": self.dice.randint(1, 30)},
                                 headers={"Request-Id": f"early-{self.early}"})
                else:
                    every = max(2, round(count / self.rate * self.dice.uniform(0.2, 1.2)))
                    fault.update(times=0, match={"every": every})
                faults.append(fault)
        return ("faults", tuple(faults))


def _gateway_flags(dice, seed):
    """Of every process of the episode; the ledger stays."""
    flags = dict(upstream_http2=dice.random() < 0.6,
                 upstream_transport=dice.choice(("auto", "auto", "libcurl")), shards=dice.choice((1, 2, 2)),
                 upstream_connections=dice.choice((1, 4, 32, 200)), log_level=dice.choice(("info", "debug")),
                 max_in_flight=dice.choice((4096, 4096, 4096, 4096, 20)))
    flags["late_answer_window"] = dice.choice(("5m", "5m", "5m", "400ms", "0"))
    # Of consecutive seeds every fifth: in such weather it is open much of the time.
    flags["upstream_breaker"] = seed % 5 == 0
    flags["astra_limit_error"] = dice.choice((None, "400:Maximum number of user intents"))
    return flags


def make(seed, calls):
    dice = random.Random(seed)
    population = _Population(dice, seed, dice.choice((12, 50, 100, 250)))
    weather = _Weather(dice, seed)
    wild = dice.choice((0.05, 0.15, 0.3))        # of calls with odd deadlines
    leaving = dice.choice((0.02, 0.1, 0.25))     # of calls that are cancelled
    bursts = dice.choice((0.01, 0.03, 0.06))
    change_every = dice.randint(150, 400)         # calls between two kinds of weather
    # Restarts, at random places; the first half of an episode has at least one of them.
    restarts = sorted([calls * dice.uniform(0.1, 0.5)] + [calls * dice.uniform(0.1, 0.95)
                                                           for _ in range(dice.randint(1, 3))])
    restarts = [(at, dice.choice(("SIGKILL", "SIGKILL", "SIGTERM"))) for at in restarts]
    forgeries = dice.choice((0.005, 0.02, 0.05))
    plan = Plan(seed,
                dict(pending_for=dice.choice(("100ms", "600ms")), attempt_limit=dice.choice((3, 3, 0)), max_concurrent_streams=dice.choice((250, 250, 8)),
                     error_shape=dice.choice(("generic", "validation", "oauth", "html")), access_log="true"),
                _gateway_flags(dice, seed), dice.choice((24, 48, 96)), [], population.specs)
    planned, next_weather, http2 = 0, 0, plan.gateway_flags["upstream_http2"]
    while planned < calls:
        chaos = []
        if restarts and planned >= restarts[0][0]:
            flags = _gateway_flags(dice, seed)
            if flags["upstream_http2"] != http2:
                chaos.append(("faults", ()))
                http2, next_weather = flags["upstream_http2"], planned
            chaos.append(("restart", restarts.pop(0)[1], flags))
        if planned >= next_weather:
            chaos += [weather.change(http2), _hook_faults(dice)]
            next_weather = planned + change_every
        if dice.random() < 0.006:
            chaos.append(("drop",))
        if dice.random() < forgeries:
            chaos.append(("forge", dice.random(), dice.random()))
        if dice.random() < 0.003:
            chaos.append(("listener", dice.choice(("refuse", "refuse", "reset", "silent")), dice.uniform(0.02, 0.4)))
        address, caller = population.pick(), dice.choice(CALLERS)
        kind = "create"
        if address["ids"] and dice.random() < 0.22:
            spec = population.old(address)
            roll = dice.random()
            if roll < 0.15:
                kind = "get"
            elif roll < 0.30:
                spec = population.changed(spec, address)
        else:
            spec = population.fresh(address, caller)
            if dice.random() < 0.02:
                kind = "validate"
        size = 1
        if kind == "create" and dice.random() < bursts:
            size = dice.choice((2, 2, 3, 4, 6, 8, 16, 32, 64))
        calls_here = []
        for _ in range(min(size, max(1, calls - planned))):
            calls_here.append(Call(
                spec, kind, allow_repeat=dice.random() < 0.3, supersede=dice.random(),
                deadline=_deadline(dice, wild),
                cancel_after=dice.choice((0.0, 0.002, 0.01, 0.03, 0.1, 0.3)) * dice.random()
                if dice.random() < leaving else None,
                shout=dice.random() < 0.1, wait_for_server=dice.random() < 0.98))
        plan.steps.append(Step(tuple(calls_here), tuple(chaos)))
        planned += len(calls_here)
    return plan
