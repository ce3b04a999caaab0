"""A ledger from before people were compared in Unicode NFC: whoever is in it is found, in whatever form the name comes now."""

import unicodedata

import pytest

from support import old_ledger
from support.check import assert_posts
from support.people import again


@pytest.fixture
def upgraded(new_gateway, sandbox, tmp_path):
    return new_gateway(**old_ledger.make(tmp_path))


def test_old_requests_are_replayed(upgraded, sandbox):
    """A request from before is replayed without a POST."""
    for request in old_ledger.old_people():
        assert upgraded.create(request).ok().replayed
        assert_posts(sandbox, request.email, 0)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_old_people_exist_in_either_form(upgraded, sandbox, form):
    """A person from before exists, in whichever Unicode form it comes."""
    for number, request in enumerate(old_ledger.old_people()):
        fresh = again(request, request_id=f"0b000000-0000-4000-8000-00000000000{number}",
                      first_name=unicodedata.normalize(form, request.first_name))
        intent = upgraded.create(request).ok().user_intent.id
        for asked in (again(fresh, validate_only=True), fresh, again(fresh, validate_only=True)):
            upgraded.create(asked).failed("PERSON_EXISTS", user_intent_id=intent)
        assert_posts(sandbox, request.email, 0)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_an_old_request_in_another_form_is_told_to_repeat_its_bytes(upgraded, form):
    for request in old_ledger.old_people():
        other = again(request, first_name=unicodedata.normalize(form, request.first_name))
        reply = upgraded.create(other)
        if other.first_name == request.first_name:
            assert reply.ok().replayed
        else:
            error = reply.failed("REQUEST_ID_REUSED")
            assert "repeat the very bytes" in error.message and "new request_id" not in error.message
