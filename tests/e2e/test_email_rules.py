"""The rules about one e-mail address and one person: busy, unresolved, superseded, exhausted, exists."""

import uuid

import grpc
import pytest

from support import names
from support.certs import Authority
from support.check import NONE, UNKNOWN, assert_posts, assert_row
from support.people import again, other_id, person, same_email
from support.process import wait_for
from support.protos import pb


def unresolved(gateway, sandbox, channel=None, **changes):
    """A request whose outcome is unknown."""
    request = person(**changes)
    sandbox.answer(request.email, 500, "")
    gateway.create(request, channel=channel).failed("OUTCOME_UNKNOWN")
    return request


class TwoCallers:
    def __init__(self, new_gateway):
        self.authority = Authority()
        key, certificate = self.authority.issue("gateway", ["DNS:localhost", "IP:127.0.0.1"])
        self.gateway = new_gateway(tls_cert_file=certificate, tls_key_file=key,
                                   tls_client_ca_file=self.authority.ca_file, upstream_breaker=False)
        self.one, self.two = (self._channel(name) for name in ("one", "two"))

    def _channel(self, name):
        key, certificate = self.authority.issue(name, [f"URI:spiffe://example.test/{name}"])
        return self.gateway.new_channel(grpc.ssl_channel_credentials(
            self.authority.ca_file.read_bytes(), key.read_bytes(), certificate.read_bytes()))


@pytest.fixture
def callers(new_gateway):
    callers = TwoCallers(new_gateway)
    yield callers
    callers.authority.close()


# -- busy ----------------------------------------------------------------------------------------------------------------

def test_only_one_request_per_address_runs(gateway, sandbox):
    """While one request of an address runs, others of that address are EMAIL_BUSY and are not sent."""
    first = person()
    sandbox.fault("delay", first.email, delay_ms=1200, times=0)
    others = [same_email(first) for _ in range(5)]
    running = gateway.begin(first)
    sandbox.wait_posts(first.email)
    for reply in [gateway.begin(other) for other in others]:
        reply.reply().failed("EMAIL_BUSY", attempts_used_min=0, attempts_used_max=1)
    running.reply().ok()
    assert_posts(sandbox, first.email, 1)
    assert sandbox.accounting(first.email)["posts"][0]["status"] == 201
    sandbox.clear_faults()


def test_addresses_do_not_disturb_each_other(gateway, sandbox):
    """Addresses that differ in more than case are served side by side."""
    slow = person()
    sandbox.fault("delay", slow.email, delay_ms=1500)
    running = gateway.begin(slow)
    sandbox.wait_posts(slow.email)
    for changed in (slow.email.replace("@", "+tag@"), slow.email.replace(".", "", 1), "x" + slow.email):
        gateway.create(person(email=changed)).ok()  # no folding but of case
    assert not running.done()
    running.reply().ok()


def test_busy_across_callers(callers, sandbox):
    """An address is busy for other callers, too."""
    first = person()
    sandbox.fault("delay", first.email, delay_ms=1200)
    running = callers.gateway.begin(first, channel=callers.one)
    sandbox.wait_posts(first.email)
    callers.gateway.create(same_email(first), channel=callers.two).failed("EMAIL_BUSY")
    running.reply().ok()


# -- what one caller hears of another's people ----------------------------------------------------------------------------

def test_validate_only_is_no_oracle_for_another_callers_people(callers, sandbox):
    """The right digits of somebody else's customer sound like every wrong guess, as long as asking is free."""
    gateway = callers.gateway
    created = person()
    gateway.create(created, channel=callers.one).ok()
    right = other_id(created)
    wrong = other_id(created, ssn_last_four="9998")
    free = [dict(validate_only=True), dict(supersedes_request_id=str(uuid.uuid4())),
            dict(validate_only=True, supersedes_request_id=str(uuid.uuid4()))]
    for change in free:
        heard = [gateway.create(again(guess, **change), channel=callers.two) for guess in (right, wrong)]
        assert [reply.error and reply.error.reason for reply in heard] in ([None] * 2, ["SUPERSEDES_INVALID"] * 2)
        assert len({str(reply.response) for reply in heard}) == 1
    assert_posts(sandbox, created.email, 1)
    assert gateway.metric("userintent_person_exists_across_callers_total") == 0

    # Its own caller is told by a look, and the real call tells everybody: there a wrong guess would have been sent.
    gateway.create(again(right, validate_only=True), channel=callers.one).failed("PERSON_EXISTS")
    assert gateway.metric("userintent_person_exists_across_callers_total") == 0
    gateway.create(right, channel=callers.two).failed("PERSON_EXISTS", recovery="STOP")
    assert gateway.metric("userintent_person_exists_across_callers_total") == 1
    [told] = [entry for entry in gateway.log() if entry.get("event") == "person_exists_across_callers"]
    assert (told["request_id"], told["caller"]) == (right.request_id, "uri:spiffe://example.test/two")
    assert_posts(sandbox, created.email, 1)
    gateway.create(wrong, channel=callers.two).ok()
    assert_posts(sandbox, created.email, 2)


# -- unresolved and superseded ---------------------------------------------------------------------------------------------

def test_unresolved_blocks_every_other_request(gateway, sandbox):
    """An unknown outcome blocks every other request of its address, and is named."""
    lost = unresolved(gateway, sandbox)
    for other in (same_email(lost), other_id(lost), other_id(lost, allow_repeat=True),
                  same_email(lost, email=lost.email.upper())):
        gateway.create(other).failed("EMAIL_UNRESOLVED", unresolved_request_id=lost.request_id,
                                     attempts_used_min=0, attempts_used_max=1)
        assert gateway.state(other.request_id) is None
    gateway.create(same_email(lost, validate_only=True)).failed("EMAIL_UNRESOLVED")
    assert_posts(sandbox, lost.email, 1)


def test_a_superseding_call_goes_through(gateway, sandbox):
    """A request that names the unknown one is sent, and the address is free afterwards."""
    lost = unresolved(gateway, sandbox)
    second = same_email(lost, supersedes_request_id=lost.request_id.upper())
    response = gateway.create(second).ok()
    assert not response.replayed
    assert (response.attempts.used_min, response.attempts.used_max) == (1, 2)
    assert_posts(sandbox, lost.email, 2)
    # The superseded row stays what it was for its own repeats, and no longer blocks.
    gateway.create(lost).failed("OUTCOME_UNKNOWN", replayed="true", attempts_used_max=2)
    creation = gateway.get(lost.request_id).ok()
    assert creation.state == pb.CREATION_STATE_UNKNOWN
    assert creation.superseded_by_request_id == second.request_id
    assert gateway.create(same_email(lost)).ok().attempts.used_max == 3
    assert_posts(sandbox, lost.email, 3)


def test_a_chain_of_superseding_calls(gateway, sandbox):
    """Each unknown outcome can be superseded once, by a request that names it."""
    first = unresolved(gateway, sandbox)
    sandbox.answer(first.email, 500, "")
    second = same_email(first, supersedes_request_id=first.request_id)
    gateway.create(second).failed("OUTCOME_UNKNOWN", attempts_used_max=2)
    # Now the second blocks; the first was superseded already.
    gateway.create(same_email(first)).failed("EMAIL_UNRESOLVED", unresolved_request_id=second.request_id)
    gateway.create(same_email(first, supersedes_request_id=first.request_id)).failed("SUPERSEDES_INVALID")
    third = same_email(first, supersedes_request_id=second.request_id)
    gateway.create(third).ok()
    assert_posts(sandbox, first.email, 3)
    assert gateway.get(first.request_id).ok().superseded_by_request_id == second.request_id
    assert gateway.get(second.request_id).ok().superseded_by_request_id == third.request_id
    for lost in (first, second):
        gateway.create(lost).failed("OUTCOME_UNKNOWN", replayed="true")
    assert_posts(sandbox, first.email, 3)


@pytest.mark.parametrize("status, reason", [(404, "UPSTREAM_MISCONFIGURED"), (401, "UPSTREAM_CREDENTIALS_REJECTED")])
def test_a_superseding_call_that_is_not_sent_blocks_again(gateway, sandbox, status, reason):
    lost = unresolved(gateway, sandbox)
    second = same_email(lost, supersedes_request_id=lost.request_id)
    sandbox.answer(lost.email, status, "")
    gateway.create(second).failed(reason)
    gateway.create(same_email(lost)).failed("EMAIL_UNRESOLVED", unresolved_request_id=lost.request_id)
    assert not gateway.get(lost.request_id).ok().superseded_by_request_id
    # Its repeat names it still, and goes.
    gateway.create(second).ok()
    assert_posts(sandbox, lost.email, 3)
    assert gateway.get(lost.request_id).ok().superseded_by_request_id == second.request_id


def test_a_superseding_call_that_is_rejected(gateway, sandbox):
    """Sent and refused for good: the address is as free as after any rejection."""
    lost = unresolved(gateway, sandbox)
    second = same_email(lost, supersedes_request_id=lost.request_id)
    sandbox.answer(lost.email, 400, "")
    gateway.create(second).failed("UPSTREAM_REJECTED", attempts_used_min=0, attempts_used_max=2)
    gateway.create(same_email(lost)).ok()


def test_superseding_while_the_superseding_call_runs(gateway, sandbox):
    """A second superseding request waits for the first one's end."""
    lost = unresolved(gateway, sandbox)
    sandbox.fault("delay", lost.email, delay_ms=1200)
    running = gateway.begin(same_email(lost, supersedes_request_id=lost.request_id))
    sandbox.wait_posts(lost.email, 2)
    gateway.create(same_email(lost, supersedes_request_id=lost.request_id)).failed("EMAIL_BUSY")
    running.reply().ok()
    assert_posts(sandbox, lost.email, 2)


def test_what_cannot_be_superseded(gateway, sandbox):
    """Only an unknown outcome of the same address can be superseded."""
    lost = unresolved(gateway, sandbox)
    done, rejected = person(), person()
    gateway.create(done).ok()
    sandbox.answer(rejected.email, 400, "")
    gateway.create(rejected).failed("UPSTREAM_REJECTED")
    cases = [
        same_email(done, supersedes_request_id=lost.request_id),          # another address
        same_email(rejected, supersedes_request_id=rejected.request_id),  # not unresolved
        same_email(lost, supersedes_request_id=str(uuid.uuid4())),        # nothing
        person(supersedes_request_id=lost.request_id),
    ]
    for request in cases:
        gateway.create(request).failed("SUPERSEDES_INVALID")
        assert gateway.state(request.request_id) is None
    own = person()
    gateway.create(again(own, supersedes_request_id=own.request_id)).failed("SUPERSEDES_INVALID")
    assert_posts(sandbox, own.email, 0)


def test_superseding_what_succeeded_meanwhile(gateway, sandbox):
    """A request that would supersede a success is told of that success."""
    done = person()
    response = gateway.create(done).ok()
    gateway.create(same_email(done, supersedes_request_id=done.request_id)).failed(
        "PERSON_EXISTS", recovery="USE_EXISTING", user_intent_id=response.user_intent.id)
    assert_posts(sandbox, done.email, 1)


def test_several_unresolved_of_one_address(new_gateway, sandbox):
    """Superseding one after the other, up to Astra's own limit: used_max may pass it, used_min does not."""
    gateway = new_gateway()
    lost = unresolved(gateway, sandbox)
    for number in range(2, 6):
        sandbox.answer(lost.email, 500, "")
        lost = same_email(lost, supersedes_request_id=lost.request_id)
        gateway.create(lost).failed("OUTCOME_UNKNOWN", attempts_used_min=0, attempts_used_max=number)
    assert_posts(sandbox, lost.email, 5)
    assert_row(gateway, sandbox, lost, UNKNOWN, "OUTCOME_UNKNOWN")


def test_unresolved_across_callers(callers, sandbox):
    """Another caller is blocked, too, is not told the id, and cannot supersede it."""
    gateway = callers.gateway
    lost = unresolved(gateway, sandbox, channel=callers.one)
    # The id of another caller's request is not told, and cannot be superseded.
    gateway.create(same_email(lost), channel=callers.two).failed("EMAIL_UNRESOLVED", unresolved_request_id=None)
    gateway.create(same_email(lost, supersedes_request_id=lost.request_id), channel=callers.two).failed(
        "SUPERSEDES_INVALID")
    gateway.create(same_email(lost), channel=callers.one).failed("EMAIL_UNRESOLVED",
                                                                 unresolved_request_id=lost.request_id)
    assert_posts(sandbox, lost.email, 1)
    gateway.create(same_email(lost, supersedes_request_id=lost.request_id), channel=callers.one).ok()
    assert_posts(sandbox, lost.email, 2)


# -- exhausted -----------------------------------------------------------------------------------------------------------

def test_2xx_without_an_id_uses_an_attempt_up(gateway, sandbox):
    first = person()
    sandbox.answer(first.email, 201, "{}", times=3, commit=True)
    gateway.create(first).failed("OUTCOME_UNKNOWN", attempts_used_min=1, attempts_used_max=1)
    lost = first
    for number in (2, 3):
        lost = same_email(first, supersedes_request_id=lost.request_id)
        gateway.create(lost).failed("OUTCOME_UNKNOWN", attempts_used_min=number, attempts_used_max=number)
    gateway.create(same_email(first, supersedes_request_id=lost.request_id)).failed("EMAIL_ATTEMPTS_EXHAUSTED")
    assert_posts(sandbox, first.email, 3)


def test_exhausted_across_callers(callers, sandbox):
    """The attempts of an address are counted over all callers."""
    first = person()
    for request, channel in ((first, callers.one), (same_email(first), callers.two), (same_email(first), callers.one)):
        callers.gateway.create(request, channel=channel).ok()
    for channel in (callers.one, callers.two):
        callers.gateway.create(same_email(first), channel=channel).failed("EMAIL_ATTEMPTS_EXHAUSTED")
    assert_posts(sandbox, first.email, 3)


@pytest.mark.parametrize("limit", [1, 2])
def test_another_limit(new_gateway, sandbox, limit):
    """--email_attempt_limit sets how many attempts an address has."""
    strict = new_gateway(email_attempt_limit=limit)
    first = person()
    for _ in range(limit):
        assert strict.create(same_email(first)).ok().attempts.limit == limit
    strict.create(same_email(first)).failed("EMAIL_ATTEMPTS_EXHAUSTED")
    assert_posts(sandbox, first.email, limit)


# -- the person exists -----------------------------------------------------------------------------------------------------

SAME_PERSON = [dict(ip_address="8.8.8.8"), dict(metadata={}), dict(metadata={"canary_key": "canary-value-z"}),
               dict(verification_type=pb.VERIFICATION_TYPE_VERIFIED)]
OTHER_PERSON = [dict(first_name="Mirandolyn Other"), dict(phone="+14159999998"), dict(address2="Apt 9"),
                dict(verification_type=pb.VERIFICATION_TYPE_UNVERIFIED), dict(ssn_last_four="1235"),
                dict(date_of_birth="1987-03-15"), dict(preferred_pronouns="she/her"), dict(postal_code="94107-0001")]


@pytest.mark.parametrize("change", SAME_PERSON, ids=names.of)
def test_the_same_person(gateway, sandbox, change):
    """The same person under a new id exists already, in whatever case or form it is written."""
    request = person()
    first = gateway.create(request).ok()
    second = other_id(request, **change, email=request.email.upper())
    gateway.create(second).failed("PERSON_EXISTS", recovery="USE_EXISTING", user_intent_id=first.user_intent.id)
    assert_posts(sandbox, request.email, 1)


@pytest.mark.parametrize("change", OTHER_PERSON, ids=names.of)
def test_another_person_with_the_same_address(gateway, sandbox, change):
    """A person that differs in one field is another one, and is created."""
    request = person()
    gateway.create(request).ok()
    gateway.create(other_id(request, **change)).ok()
    assert_posts(sandbox, request.email, 2)


def test_the_same_person_under_another_address(gateway, sandbox):
    """The same person with another address is created."""
    request = person()
    gateway.create(request).ok()
    gateway.create(other_id(request, email=person().email)).ok()


def test_a_person_of_another_caller(callers, sandbox):
    """Another caller hears that the person exists, without the id."""
    request = person()
    callers.gateway.create(request, channel=callers.one).ok()
    error = callers.gateway.create(other_id(request), channel=callers.two).failed(
        "PERSON_EXISTS", recovery="STOP", user_intent_id=None)
    assert error.details["ResourceInfo"].resource_type == "astra.UserIntent"
    assert error.details["ResourceInfo"].resource_name == ""
    callers.gateway.create(other_id(request, allow_repeat=True), channel=callers.two).ok()
    assert_posts(sandbox, request.email, 2)


def test_request_ids_belong_to_their_caller(callers, sandbox):
    request = person()
    first = callers.gateway.create(request, channel=callers.one).ok()
    # The same id of another caller is another request.
    other = again(person(), request_id=request.request_id)
    second = callers.gateway.create(other, channel=callers.two).ok()
    assert not second.replayed and second.user_intent.id != first.user_intent.id
    assert callers.gateway.create(request, channel=callers.one).ok().user_intent.id == first.user_intent.id
    mine = person()
    callers.gateway.create(mine, channel=callers.one).ok()
    assert callers.gateway.state(mine.request_id, channel=callers.two) is None
    assert callers.gateway.state(mine.request_id, channel=callers.one) == "CREATED"


def test_allow_repeat_spends_an_attempt(gateway, sandbox):
    request = person()
    gateway.create(request).ok()
    assert gateway.create(other_id(request, allow_repeat=True)).ok().attempts.used_min == 2
    gateway.create(other_id(request)).failed("PERSON_EXISTS")
    assert gateway.create(other_id(request, allow_repeat=True)).ok().attempts.used_min == 3
    gateway.create(other_id(request, allow_repeat=True)).failed("EMAIL_ATTEMPTS_EXHAUSTED")
    gateway.create(other_id(request)).failed("PERSON_EXISTS")
    assert_posts(sandbox, request.email, 3)


def test_a_rejected_person_does_not_exist(gateway, sandbox):
    request = person()
    sandbox.answer(request.email, 400, "")
    gateway.create(request).failed("UPSTREAM_REJECTED")
    second = other_id(request)
    gateway.create(second).ok()
    gateway.create(other_id(request)).failed("PERSON_EXISTS")


def test_races_for_one_person(gateway, sandbox):
    """Many new ids for one person at once: one is sent, the others are busy or told that it exists."""
    request = person()
    sandbox.fault("delay", request.email, delay_ms=200, times=0)
    running = [gateway.begin(other_id(request)) for _ in range(12)]
    replies = [call.reply() for call in running]
    assert sum(reply.response is not None for reply in replies) == 1
    for reply in replies:
        if reply.response is None:
            assert reply.error.reason in ("EMAIL_BUSY", "PERSON_EXISTS")
    assert_posts(sandbox, request.email, 1)
    sandbox.clear_faults()
    assert wait_for(lambda: gateway.create(other_id(request)).error, "an answer").reason == "PERSON_EXISTS"
    assert_row(gateway, sandbox, person(), NONE)
