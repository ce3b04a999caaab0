"""Invented people. Every call gives a new person with an e-mail address of its own.

The values are odd on purpose: each holds a stem that occurs nowhere else, so that a search for the stems finds personal
data in a log whichever person it came from.
"""

import itertools
import os
import uuid

from harness.protos import pb

# Words that occur in personal values only. canary.py looks for them in everything that the gateway puts out.
STEMS = ("zorblatt", "quillfeather", "vexmoor", "mirandolyn", "brackenwhistle", "+1415", "1987-03-14", "8.8.4.4",
         "canary-value", "canary_key")
SSN = "8259"

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


def person(**changes):
    """A valid CreateUserIntentRequest. A change to None clears the field; metadata replaces the whole map."""
    number = next(_counter)
    values = dict(
        request_id=str(uuid.uuid4()),
        email=email(),
        phone=f"+1415{2000000 + number % 7999999:07d}",
        first_name="Mirandolyn" + _letters(number),
        last_name="Brackenwhistle" + _letters(number),
        address1=f"{number} Quillfeather Way",
        city="Vexmoor",
        state="CA",
        postal_code="94107",
        date_of_birth="1987-03-14",
        ssn_last_four=SSN,
        ip_address="8.8.4.4",
        metadata={"canary_key": f"canary-value-{number}"},
    )
    values.update(changes)
    return pb.CreateUserIntentRequest(**{name: value for name, value in values.items() if value is not None})


def again(request, **changes):
    """The same request, changed."""
    copy = pb.CreateUserIntentRequest()
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
