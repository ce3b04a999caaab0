"""Headers that libgrpc refuses, sent over HTTP/2 by hand; with a word in their values that may turn up nowhere."""

import contextlib

import h2.config
import h2.connection
import h2.events
import h2.exceptions

PATH = "/userintent.v1.UserIntentService/CreateUserIntent"

# Each is in place of the ordinary header of its name, or beside all. Most are printed by libgrpc as errors, with value.
HEADERS = ["te", "content-type", "grpc-timeout", "grpc-encoding", "grpc-status", "grpc-previous-rpc-attempts", ":scheme",
           ":method", "x-word-bin", "grpc-tags-bin", "user-agent\n", "x-word"]

_ENDS = (h2.events.StreamEnded, h2.events.StreamReset, h2.events.ConnectionTerminated)


def say(connection, word, header, patience=5):
    """One request with `word` in the value of `header`; reads until the peer is done or for `patience` seconds."""
    h2c = h2.connection.H2Connection(h2.config.H2Configuration(
        client_side=True, header_encoding="utf-8", validate_outbound_headers=False, normalize_outbound_headers=False,
        validate_inbound_headers=False))
    h2c.initiate_connection()
    lines = {":method": "POST", ":scheme": "http", ":path": PATH, ":authority": "localhost", "te": "trailers",
             "content-type": "application/grpc"}
    lines[header] = f"!{word}!"
    h2c.send_headers(h2c.get_next_available_stream_id(), list(lines.items()), end_stream=True)
    connection.settimeout(patience)
    with contextlib.suppress(OSError, h2.exceptions.ProtocolError):
        while True:
            connection.sendall(h2c.data_to_send())
            data = connection.recv(65536)
            if not data or any(isinstance(event, _ENDS) for event in h2c.receive_data(data)):
                return
