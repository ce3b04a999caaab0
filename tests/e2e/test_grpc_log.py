"""What libgrpc says of bad headers: it prints their values, which the gateway's stderr must not show.

Up to 1.65 its lines come by a function, later ones by Abseil, so this runs for either (tests/support/hostile_headers.py);
the images' suite does the same with the gRPC of the image.
"""

import json
import secrets

from support.hostile_headers import HEADERS, say
from support.people import person
from support.process import wait_for
from support.wire import connect


def test_no_value_of_a_bad_header_reaches_stderr(new_gateway, sandbox):
    gateway = new_gateway(log_level="debug")
    word = "canary" + secrets.token_hex(8)
    for header in HEADERS:
        with connect(gateway.address) as connection:
            say(connection, word, header)
    gateway.create(person()).ok()
    # It did speak: the way that is shut is one that is used. A line a second is let through, so one is enough.
    wait_for(lambda: [entry for entry in gateway.log() if entry["event"] == "grpc"], "an error of libgrpc's own")
    gateway.stop()
    lines = gateway.process.lines()
    assert not [line for line in lines if word in line.lower()]
    for line in lines:
        entry = json.loads(line)  # nobody else writes there
        if entry["event"] == "grpc":
            assert set(entry) == {"time", "level", "event", "file", "line", "suppressed"}
