"""The one valid person, and invented ones: every call gives a new person with an e-mail address of its own.

The values are odd on purpose: each holds a stem that occurs nowhere else, so that a search for the stems finds personal
data in a log whichever person it came from.
"""

import itertools
import os
import uuid

# A valid person, by the names of CreateUserIntentRequest's fields; the request_id and the e-mail address come with each
# use. Every other valid person of the suites in Python, and that of scenarios.json, is this one with changes.
PERSON = dict(
    phone="+14152000123",
    first_name="Mirandolyn",
    last_name="Brackenwhistle",
    address1="7 Quillfeather Way",
    city="Vexmoor",
    state="CA",
    postal_code="94107",
    date_of_birth="1987-03-14",
    ssn_last_four="8259",
    ip_address="8.8.4.4",
    metadata={"canary_key": "canary-value-1"},
)

# Words that occur in personal values only. canary.py looks for them in everything that the gateway puts out.
STEMS = ("zorblatt", "quillfeather", "vexmoor", "mirandolyn", "brackenwhistle", "+1415", "1987-03-14", "8.8.4.4",
         "canary-value", "canary_key")
SSN = PERSON["ssn_last_four"]

_counter = itertools.count(1)
_run = int.from_bytes(os.urandom(4), "big")


def _letters(number):
    text = ""
    while True:
        number, digit = divmod(number, 26)
        text += chr(ord("a") + digit)
        if number == 0:
            return text


def email():
    return f"zorblatt.{_letters(_run)}.{next(_counter)}@quillfeather.example.com"


def fields(**changes):
    """The fields of a valid CreateUserIntentRequest. A change to None leaves the field out; metadata replaces the whole
    map."""
    number = next(_counter)
    values = {
        **PERSON,
        "request_id": str(uuid.uuid4()),
        "email": email(),
        "phone": f"+1415{2000000 + number % 7999999:07d}",
        "first_name": PERSON["first_name"] + _letters(number),
        "last_name": PERSON["last_name"] + _letters(number),
        "address1": f"{number} Quillfeather Way",
        "metadata": {"canary_key": f"canary-value-{number}"},
        **changes,
    }
    return {name: value for name, value in values.items() if value is not None}


def person(**changes):
    """The same as a message."""
    from support.protos import pb  # not above: `fields` needs no more than Python's own library
    return pb.CreateUserIntentRequest(**fields(**changes))


def again(request, **changes):
    """The same request, changed."""
    copy = type(request)()
    copy.CopyFrom(request)
    for name, value in changes.items():
        if name == "metadata":
            copy.metadata.clear()
            copy.metadata.update(value)
        elif value is None:
            copy.ClearField(name)
        else:
            setattr(copy, name, value)
    return copy


def other_id(request, **changes):
    """The same person under a new request_id."""
    return again(request, request_id=str(uuid.uuid4()), **changes)


def same_email(request, **changes):
    """Another person with the same e-mail address, under a new request_id."""
    return person(**{"email": request.email, **changes})
