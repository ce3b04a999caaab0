"""What a row of the ledger means to whoever asks again."""

from support.people import again

NONE, RELEASED, FAILED, UNKNOWN, SUCCEEDED = "none", "RELEASED", "FAILED", "UNKNOWN", "SUCCEEDED"

_STATES = {NONE: None, RELEASED: "NOT_SENT", FAILED: "REJECTED", UNKNOWN: "UNKNOWN", SUCCEEDED: "CREATED"}


def assert_row(gateway, sandbox, request, row, reason=None, channel=None):
    """GetCreation and a repeat answer as the contract says for this row. Free ids (none, RELEASED) are repeated against
    a sandbox that answers normally, so what held the first call back must be over."""
    before = len(sandbox.posts(request.email))
    reply = gateway.get(request.request_id, channel=channel)
    if row == NONE:
        reply.failed("REQUEST_NOT_FOUND")
    else:
        creation = reply.ok()
        from support.protos import pb
        state = pb.CreationState.Name(creation.state)
        assert state == f"CREATION_STATE_{_STATES[row]}", state
        assert creation.request_id == request.request_id.lower()
        if row == SUCCEEDED:
            assert creation.user_intent.id and not creation.HasField("error")
        else:
            assert creation.error.reason == reason, creation.error.reason
            assert creation.error.domain == "userintent.v1"
            assert not creation.HasField("user_intent")

    repeat = gateway.create(request, channel=channel)
    after = len(sandbox.posts(request.email))
    if row in (NONE, RELEASED):
        response = repeat.ok()
        assert not response.replayed
        assert after == before + 1, f"{after - before} POSTs for the repeat"
        assert sandbox.posts(request.email)[-1]["intent_id"] == response.user_intent.id
    elif row == SUCCEEDED:
        response = repeat.ok()
        assert response.replayed and after == before
    else:
        repeat.failed(reason, replayed="true")
        assert after == before, f"a {row} row was sent again"
        # The content is bound, too.
        changed = again(request, city="Otherwhere")
        gateway.create(changed, channel=channel).failed("REQUEST_ID_REUSED", sent="no")
        assert len(sandbox.posts(request.email)) == before
    return repeat


def assert_posts(sandbox, email, count):
    posts = sandbox.posts(email)
    assert len(posts) == count, f"expected {count} POST(s), the sandbox counted {len(posts)}"
    return posts
