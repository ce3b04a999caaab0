"""The cancel storm: thousands of calls, half of them cancelled at random moments.

The seed is printed; E2E_SEED repeats a run, E2E_STORM changes its size. The same test runs against a build with
sanitizers, by GATEWAY_BIN_DIR: a report ends the gateway, and that is seen here.
"""

import asyncio
import collections
import os
import random
import time

import grpc

from support.gateway import CHANNEL_OPTIONS
from support.people import person
from support.process import PATIENCE, wait_for
from support.protos import pb_grpc

CALLS = int(os.environ.get("E2E_STORM", "4000"))
AT_ONCE = 200
CHANNELS = 4
DELAY_MS = 20
# Cancels come this late at the most. Over HTTP/1.1 every POST waits for a connection of its own first.
PATIENCE_MS = {"nghttp2": 60, "libcurl": 60, "http1": 300}


async def storm(address, requests, dice, patience_ms):
    """[what the caller saw]: a response, "cancelled", or the error's reason."""
    channels = [grpc.aio.insecure_channel(address, CHANNEL_OPTIONS) for _ in range(CHANNELS)]
    stubs = [pb_grpc.UserIntentServiceStub(channel) for channel in channels]
    gate = asyncio.Semaphore(AT_ONCE)
    plans = [(dice.random() * patience_ms / 1000 if dice.random() < 0.5 else None) for _ in requests]

    async def one(number, request, patience):
        async with gate:
            call = stubs[number % CHANNELS].CreateUserIntent(request, timeout=60)
            if patience is not None:
                await asyncio.sleep(patience)
                call.cancel()
            try:
                return await call
            except asyncio.CancelledError:
                return "cancelled"
            except grpc.aio.AioRpcError as error:
                return f"{error.code().name}: {error.details()}"

    seen = await asyncio.gather(*(one(number, request, patience)
                                  for number, (request, patience) in enumerate(zip(requests, plans))))
    for channel in channels:
        await channel.close()
    return seen, plans


async def ask_again(address, requests):
    channel = grpc.aio.insecure_channel(address, CHANNEL_OPTIONS)
    stub = pb_grpc.UserIntentServiceStub(channel)
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(request):
        async with gate:
            return await stub.CreateUserIntent(request, timeout=60)

    answers = await asyncio.gather(*(one(request) for request in requests))
    await channel.close()
    return answers


def test_cancel_storm(new_gateway, transport):
    """Whatever moment a caller leaves at: no second POST, and a record that agrees with Astra."""
    upstream = transport.upstream
    calls = CALLS if transport.name == "nghttp2" else max(CALLS // 4, 1)
    seed = int(os.environ.get("E2E_SEED", time.time_ns() % 1_000_000_007))
    print(f"\ncancel storm over {transport.name}: {calls} calls, E2E_SEED={seed}")
    dice = random.Random(seed)
    gateway = new_gateway(upstream, **transport.flags)
    upstream.reset()
    upstream.fault("delay", delay_ms=DELAY_MS, times=0)
    # The people's stems are searched for after the test; noting forty thousand values would only be slow.
    requests = [person() for _ in range(calls)]
    seen, plans = asyncio.run(storm(gateway.address, requests, dice, PATIENCE_MS[transport.name]))
    gateway.assert_alive()

    wait_for(lambda: gateway.metric("userintent_calls_in_flight") == 0
             and gateway.metric("userintent_upstream_posts_in_flight") == 0, "the end of every call", PATIENCE + 40)
    upstream.clear_faults()
    account = upstream.accounting()
    posts, intents = {}, {}
    for post in account["posts"]:
        if not post["body_complete"]:
            continue  # a head whose call was cancelled before its body began: proved not sent, and nobody's
        posts[post["email"]] = posts.get(post["email"], 0) + 1
    for intent in account["intents"]:
        intents[intent["email"]] = intent["id"]
    assert max(posts.values()) == 1, "a request was sent twice"
    assert upstream.summary()["duplicate_attempt_ids"] == 0

    failed = collections.Counter(outcome for outcome, plan in zip(seen, plans)
                                 if isinstance(outcome, str) and (plan is None or outcome != "cancelled"))
    assert not failed, f"{failed}; POSTs: {collections.Counter(line.get('detail') for line in gateway.log())}"

    cancelled_but_sent = []
    for request, outcome, plan in zip(requests, seen, plans):
        if not isinstance(outcome, str):
            assert outcome.user_intent.id == intents[request.email], "somebody else's answer"
            assert not outcome.replayed
        elif request.email in posts:
            cancelled_but_sent.append(request)
    served = sum(not isinstance(outcome, str) for outcome in seen)
    print(f"served {served}, cancelled {calls - served}, of which sent {len(cancelled_but_sent)}")
    assert cancelled_but_sent and served > calls // 3 and calls - served > calls // 10, "that was no storm"

    # What was cancelled and had been sent has its real result; nothing is sent for it again.
    for request, answer in zip(cancelled_but_sent, asyncio.run(ask_again(gateway.address, cancelled_but_sent))):
        assert answer.replayed
        assert answer.user_intent.id == intents[request.email]
    after = upstream.summary()
    assert after["posts"] == len(account["posts"])

    # What was not sent is free.
    free = [request for request in requests if request.email not in posts][:200]
    for request, answer in zip(free, asyncio.run(ask_again(gateway.address, free))):
        assert not answer.replayed, request.request_id
    assert upstream.summary()["posts"] == after["posts"] + len(free)
    wait_for(lambda: gateway.metric("userintent_calls_in_flight") == 0, "the end of every call")
    upstream.reset()
