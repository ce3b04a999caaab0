"""No string form of a message holds personal data; what is personal is said by the proto option."""

import logging

import pytest

import userintent
from userintent.v1 import options_pb2
from userintent.v1 import user_intent_service_pb2 as pb


def full_request():
    """Every field set to a value that names it."""
    request = pb.CreateUserIntentRequest()
    for field in request.DESCRIPTOR.fields:
        if field.name == "metadata":
            request.metadata["key of metadata"] = "value of metadata"
        elif field.enum_type is not None:
            setattr(request, field.name, 2)
        elif field.type == field.TYPE_BOOL:
            setattr(request, field.name, True)
        else:
            setattr(request, field.name, f"value of {field.name}")
    return request


FORMS = [repr, str, userintent.redacted, lambda m: f"{m}", lambda m: f"{m!r}", lambda m: "%s %r" % (m, m), lambda m: f"{[m]}",
         lambda m: f"{m:>5}"]


@pytest.mark.parametrize("form", FORMS, ids=range(len(FORMS)))
def test_every_form_follows_the_option(form):
    request = full_request()
    text = form(request)
    personal = 0
    for field in request.DESCRIPTOR.fields:
        assert field.name in text
        shown = {"metadata": "of metadata", "verification_type": "VERIFICATION_TYPE_UNVERIFIED",
                 "validate_only": "validate_only=True", "allow_repeat": "allow_repeat=True"}.get(field.name, f"value of {field.name}")
        if field.GetOptions().Extensions[options_pb2.personal_data]:
            personal += 1
            assert shown not in text, field.name
        else:
            assert shown in text, field.name
    assert personal >= 16


def test_in_logs_and_tracebacks(caplog):
    request = full_request()
    logging.getLogger("caller").error("request %s", request)
    assert "value of email" not in caplog.text and "request_id" in caplog.text


def test_results_and_nested_messages():
    creation = pb.Creation(request_id="r", user_intent=pb.UserIntent(id="intent-1"), state=pb.CREATION_STATE_CREATED)
    assert "intent-1" in userintent.redacted(creation) and "CREATION_STATE_CREATED" in userintent.redacted(creation)
    assert "intent-1" in repr(userintent.CreateResult("r", 1, pb.CreateUserIntentResponse(user_intent=pb.UserIntent(id="intent-1"))))


def test_unknown_fields_and_unset_fields():
    request = pb.CreateUserIntentRequest(request_id="r")
    assert repr(request) == "CreateUserIntentRequest(request_id='r')"
    request.MergeFromString(b"\xb2\x01\x06secret")
    assert "secret" not in repr(request) and "<unknown fields>" in repr(request)
    assert pb.CreateUserIntentRequest.FromString(request.SerializeToString()) == request  # looking changed nothing


def test_unknown_enum_value():
    assert "77" in repr(pb.CreateUserIntentRequest(verification_type=77))
