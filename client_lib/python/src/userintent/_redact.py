"""The string form of messages without personal data. What is personal is said by the proto option personal_data."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from .v1 import options_pb2, user_intent_service_pb2

REDACTED = "<redacted>"


def _personal(field: FieldDescriptor) -> bool:
    options: Any = field.GetOptions()
    return bool(options.Extensions[options_pb2.personal_data])


def redacted(message: Message) -> str:
    """One line with the names of all fields that are set, and the values of those that hold no personal data.

    Of unknown fields only their presence is told: nobody knows what they hold.
    """
    parts = []
    known = type(message)()
    for field, value in message.ListFields():
        if _personal(field):
            text = REDACTED
        elif field.message_type is not None:
            values = [value] if isinstance(value, Message) else list(value.values() if hasattr(value, "values") else value)
            text = ", ".join(redacted(v) if isinstance(v, Message) else repr(v) for v in values)
        elif field.enum_type is not None and isinstance(value, int):
            found = field.enum_type.values_by_number.get(value)
            text = found.name if found is not None else str(value)
        else:
            text = repr(value)
        parts.append(f"{field.name}={text}")
    known.CopyFrom(message)
    known.DiscardUnknownFields()  # type: ignore[attr-defined,unused-ignore]
    if known.ByteSize() != message.ByteSize():
        parts.append("<unknown fields>")
    return f"{message.DESCRIPTOR.name}({', '.join(parts)})"


def _holds_personal_data(descriptor: Descriptor, seen: frozenset[str] = frozenset()) -> bool:
    if descriptor.full_name in seen:
        return False
    seen |= {descriptor.full_name}
    return any(
        _personal(field) or (field.message_type is not None and _holds_personal_data(field.message_type, seen))
        for field in descriptor.fields)


def install() -> None:
    """Makes repr() and str() of every message with personal data the redacted form, wherever it is logged."""
    for descriptor in user_intent_service_pb2.DESCRIPTOR.message_types_by_name.values():
        if _holds_personal_data(descriptor):
            cls: Any = getattr(user_intent_service_pb2, descriptor.name)
            cls.__repr__ = redacted
            cls.__str__ = redacted
            cls.__format__ = lambda self, spec: format(redacted(self), spec)
