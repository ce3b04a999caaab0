"""Callers at every replica: they pick one, repeat with the same id at another as the contract says, and meet at the same ids and
the same e-mail addresses. They live in a thread of their own, so that whoever disturbs the programs may block."""

import asyncio
import collections
import random
import threading
import time
import unittest.mock

import grpc
import grpc.aio

from support import errors
from support.gateway import CHANNEL_OPTIONS
from support.people import email as new_email
from support.people import other_id, person
from support.protos import pb, pb_grpc
from torture.judge import FAILED, SUCCEEDED, UNKNOWN, Ask, Heard

CALL_TIMEOUT = 10   # of one call, in seconds
PATIENCE = 20       # of a caller, over all its calls, in seconds
LONGEST_WAIT = 0.3  # between two of them; a replica that asks for more is asked again all the same

# `sent` is that of the id: an earlier try may have been refused by Astra.
_TABLE = {reason: (row[0], row[1] | {"yes", "maybe"}, *row[2:]) for reason, row in errors.TABLE.items()}
_OF_ROW = {pb.CREATION_STATE_CREATED: SUCCEEDED, pb.CREATION_STATE_REJECTED: FAILED, pb.CREATION_STATE_UNKNOWN: UNKNOWN}


class Callers:
    """`addresses` of the replicas, which may be away; `at_once` scenes at a time. `peaceful`: new people only, who are created
    unless something goes wrong."""

    def __init__(self, addresses, seed, at_once=32, peaceful=False):
        self.asks = {}
        self.tags = {}
        self.other = []                       # violations
        self.met = collections.Counter()      # how calls ended
        self.slowest = 0.0                    # seconds until a caller had its answer
        self._requests = {}
        self._addresses = addresses
        self._dice = random.Random(seed)
        self._at_once = at_once
        self._plays = [self._new_people] if peaceful else [self._new_people, self._new_people, self._same_address,
                                                           self._same_person]
        self._stopping = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._failure = None

    # -- of the thread that disturbs -----------------------------------------------------------------------------------

    def start(self):
        self._thread.start()

    @property
    def calls(self):
        return sum(self.met.values())

    def assert_alive(self):
        assert self._thread.is_alive(), f"the callers ended: {self._failure!r}"

    def stop(self):
        """No new scene; waits until those that run have ended."""
        self._stopping = True
        self._thread.join(PATIENCE + 4 * CALL_TIMEOUT)
        assert not self._thread.is_alive(), "callers hang"
        if self._failure:
            raise self._failure

    def again(self, at_once=64):
        """Every id is repeated, and looked up, at one replica after the other; nothing disturbs any more."""
        asyncio.run(self._again(at_once))

    # -- their thread --------------------------------------------------------------------------------------------------

    def _run(self):
        try:
            asyncio.run(self._scenes())
        except Exception as failure:  # for the thread that asks
            self._failure = failure

    def _connect(self):
        # Many scenes share a channel, as the calls of one process do.
        options = [*CHANNEL_OPTIONS, ("grpc.initial_reconnect_backoff_ms", 100), ("grpc.min_reconnect_backoff_ms", 100),
                   ("grpc.max_reconnect_backoff_ms", 400)]
        self._channels = [grpc.aio.insecure_channel(address, options) for address in self._addresses]
        self._stubs = [pb_grpc.UserIntentServiceStub(channel) for channel in self._channels]

    async def _close(self):
        for channel in self._channels:
            await channel.close()

    async def _scenes(self):
        self._connect()

        async def one():
            while not self._stopping:
                await self._dice.choice(self._plays)()

        await asyncio.gather(*(one() for _ in range(self._at_once)))
        await self._close()

    async def _again(self, at_once):
        self._connect()
        gate = asyncio.Semaphore(at_once)

        async def one(ask):
            async with gate:
                await self._create(ask, patience=PATIENCE, final=True)
                await self._look_up(ask)

        await asyncio.gather(*(one(ask) for ask in list(self.asks.values())))
        await self._close()

    # -- calls ---------------------------------------------------------------------------------------------------------

    def _new(self, request=None, **changes):
        request = person(**changes) if request is None else request
        ask = self.asks[request.request_id] = Ask(request.request_id, request.email.lower())
        self.tags[request.metadata["canary_key"]] = request.request_id
        self._requests[request.request_id] = request
        return ask

    async def _call(self, make, request):
        """(response, None), (None, its decoded error), or (None, None): nothing is known."""
        try:
            response = await make(self._dice.choice(self._stubs))
            self.met["ok"] += 1
            return response, None
        except grpc.aio.AioRpcError as error:
            if "grpc-status-details-bin" in dict(error.trailing_metadata() or ()):
                with unittest.mock.patch.dict(errors.TABLE, _TABLE):
                    decoded = errors.decode(error, request)
                self.met[decoded.reason] += 1
                if decoded.reason == "INTERNAL":
                    self.other.append(f"T9: INTERNAL about {request.request_id}")
                return None, decoded
            # CANCELLED: the last calls of a server that shuts down.
            known = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
            assert error.code() in known, error
            self.met["bare " + error.code().name] += 1
            return None, None

    @staticmethod
    def _hear(ask, state, intent, begun):
        ask.heard.append(Heard(state, intent, begun, time.monotonic()))

    async def _create(self, ask, patience=PATIENCE, final=False):
        """Its last error; None: OK, or it has given up."""
        request = self._requests[ask.request_id]
        begin = time.monotonic()
        while True:
            begun = time.monotonic()
            response, error = await self._call(lambda stub: stub.CreateUserIntent(request, timeout=CALL_TIMEOUT), request)
            if response is not None:
                self._hear(ask, SUCCEEDED, response.user_intent.id, begun)
                ask.first_hand += not response.replayed
                self.slowest = max(self.slowest, time.monotonic() - begin)
                return None
            if error is not None and error.reason == "OUTCOME_UNKNOWN":
                self._hear(ask, UNKNOWN, "", begun)
            elif error is not None and error.reason == "UPSTREAM_REJECTED":
                self._hear(ask, FAILED, "", begun)
            if error is not None and error.retry_after is None:
                return error
            if time.monotonic() - begin > patience or (self._stopping and not final):
                if final:
                    self.other.append(f"T6: {ask.request_id} has no answer: {error and error.reason}")
                return error
            wait = LONGEST_WAIT if error is None else min(error.retry_after, LONGEST_WAIT)
            await asyncio.sleep(wait * (0.5 + self._dice.random() / 2))

    async def _look_up(self, ask):
        request = self._requests[ask.request_id]
        begun = time.monotonic()
        response, _ = await self._call(lambda stub: stub.GetCreation(
            pb.GetCreationRequest(request_id=ask.request_id), timeout=CALL_TIMEOUT), request)
        if response is not None and response.creation.state in _OF_ROW:
            self._hear(ask, _OF_ROW[response.creation.state], response.creation.user_intent.id, begun)

    async def _leave_early(self, ask):
        call = self._dice.choice(self._stubs).CreateUserIntent(self._requests[ask.request_id], timeout=CALL_TIMEOUT)
        await asyncio.sleep(self._dice.random() * 0.02)
        call.cancel()

    # -- scenes --------------------------------------------------------------------------------------------------------

    async def _new_people(self):
        """One id at several replicas at once."""
        asks = [self._new() for _ in range(3)]
        calls = [self._create(ask) for ask in asks for _ in range(self._dice.choice([1, 2, 2, 4]))]
        calls += [self._look_up(ask) for ask in self._dice.sample(asks, 1)]
        if self._dice.random() < 0.2:
            calls.append(self._leave_early(self._dice.choice(asks)))
        self._dice.shuffle(calls)
        await asyncio.gather(*calls)

    async def _same_address(self):
        """One e-mail address, more people than it has attempts, at several replicas; who is in the way is superseded, or not."""
        address = new_email()
        in_the_way = None
        for _ in range(4):
            ask = self._new(email=self._dice.choice([address, address.upper()]), supersedes_request_id=in_the_way)
            calls = [self._create(ask)]
            calls += [self._create(self._new(email=address)) for _ in range(self._dice.choice([0, 1, 2]))]
            error = (await asyncio.gather(*calls))[0]
            in_the_way = None
            if error and error.reason in ("OUTCOME_UNKNOWN", "EMAIL_UNRESOLVED") and self._dice.random() < 0.7:
                in_the_way = error.metadata.get("unresolved_request_id", ask.request_id)

    async def _same_person(self):
        first = self._new()
        number = self._dice.random()
        others = [self._new(other_id(self._requests[first.request_id], allow_repeat=number < 0.4,
                                     metadata={"canary_key": f"canary-value-{number}-{index}"})) for index in range(2)]
        await asyncio.gather(*(self._create(ask) for ask in [first, *others]))
