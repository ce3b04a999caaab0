"""The gateway's webhook door, spoken to byte by byte."""

import contextlib
import json
import socket

from support.sandbox import CLIENT_SECRET, webhook_signature

PATH = "/astra/webhooks"


def body_of(webhook_id, intent_id, attempt_id=None, webhook_type="user_intent_updated", **more):
    """As Astra writes one."""
    members = {"webhook_type": webhook_type, "webhook_id": webhook_id, "user_id": intent_id, "resource_id": intent_id}
    if attempt_id:
        members["metadata"] = {"gateway_attempt_id": attempt_id}
    return json.dumps({**members, **more}).encode()


def post(body, signature=None, secret=CLIENT_SECRET, path=PATH, method="POST", version="HTTP/1.1", fields=(), length=None):
    """A request's bytes. signature None: a good one; length None: the body's."""
    lines = [f"{method} {path} {version}", "Host: door", f"Content-Length: {len(body) if length is None else length}",
             f"Astra-Verification: {webhook_signature(body, secret) if signature is None else signature}", *fields]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


class Door:
    """One connection to it."""

    def __init__(self, gateway, timeout=30, source=None):
        host, _, port = gateway.webhook_address.rpartition(":")
        self.socket = socket.create_connection((host.strip("[]"), int(port)), timeout=timeout,
                                               source_address=source and (source, 0))
        self._read = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, data):
        """What it takes of it: it may have answered and hung up."""
        with contextlib.suppress(ConnectionError):
            self.socket.sendall(data)

    def end(self):
        """Nothing more is sent; it may have hung up."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def answer(self):
        """(status, headers in small letters, body) of the next answer; None: the connection was closed first."""
        while True:
            head, end, rest = self._read.partition(b"\r\n\r\n")
            if end:
                lines = head.decode("latin-1").split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in lines[1:])
                length = int(headers.get("content-length", 0))
                if len(rest) >= length:
                    self._read = rest[length:]
                    return int(lines[0].split(" ")[1]), headers, rest[:length]
            try:
                data = self.socket.recv(65536)
            except ConnectionError:
                return None
            if not data:
                return None
            self._read += data

    def closed(self):
        """Waits for its end; whether nothing more came."""
        with contextlib.suppress(ConnectionError):
            while data := self.socket.recv(65536):
                self._read += data
        return not self._read


def ask(gateway, data, **how):
    """The status of the answer to these bytes on a connection of their own; None: there was none."""
    with Door(gateway, **how) as door:
        door.send(data)
        answer = door.answer()
        return answer and answer[0]


def deliver(gateway, webhook_id, intent_id, attempt_id=None, **more):
    """A genuine one."""
    return ask(gateway, post(body_of(webhook_id, intent_id, attempt_id, **more)))
