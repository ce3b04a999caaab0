"""Names of parametrised cases, so that a report tells which case failed: `ids=names.of`."""

_LONGEST = 40


def of(value):
    """The value in a few characters of ASCII."""
    if isinstance(value, dict):
        return _cut(", ".join(f"{key}={of(entry)}" for key, entry in value.items()) or "nothing")
    if isinstance(value, bytes):
        return _cut(ascii(value)[2:-1] or "no bytes")
    if not isinstance(value, str):
        return getattr(value, "name", None) or _cut(ascii(value))
    if len(value) > _LONGEST and len(set(value)) == 1:
        return f"{len(value)} times {ascii(value[0])[1:-1]}"
    if value == "" or value.isspace():
        return {"": "empty", " ": "space"}.get(value, f"white space {ascii(value)[1:-1]}")
    return _cut(ascii(value)[1:-1])


def _cut(text):
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST - 8]}... ({len(text)})"
