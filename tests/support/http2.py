"""HTTP/2 by hand, over TLS with a caller's certificate or in the clear: frames that no library would send, and an account
of what came back.

One thread: sending reads what has arrived, so that neither side waits for the other for ever.
"""

import collections
import contextlib
import select
import socket
import ssl
import struct
import time

from support.wire import split

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS = 1, 1, 4
INITIAL_WINDOW_SIZE = 4


def frame(kind, flags=0, stream=0, payload=b"", length=None):
    """`length` may lie."""
    size = len(payload) if length is None else length
    return struct.pack(">I", size)[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def setting(number, value):
    return struct.pack(">HI", number, value)


def string(text):
    """A string of HPACK, not packed."""
    size, out = len(text), b""
    if size < 127:
        return bytes([size]) + text
    size -= 127
    while size >= 128:
        out += bytes([size % 128 + 128])
        size //= 128
    return b"\x7f" + out + bytes([size]) + text


def literal(name, value):
    """A header that goes into no table."""
    return b"\x00" + string(name) + string(value)


def headers(path, *more, **instead):
    """The header block of a call. `instead` replaces a value: authority=..., scheme=..., te=..., content_type=..."""
    values = {"method": b"POST", "scheme": b"https", "authority": b"localhost", "te": b"trailers",
              "content_type": b"application/grpc", **instead}
    lines = [(b":method", values["method"]), (b":scheme", values["scheme"]), (b":path", path.encode()),
             (b":authority", values["authority"]), (b"te", values["te"]), (b"content-type", values["content_type"])]
    return b"".join(literal(name, value) for name, value in [*lines, *more] if value is not None)


def message(data, compressed=0, length=None):
    """With gRPC's prefix; `length` may lie."""
    return struct.pack(">BI", compressed, len(data) if length is None else length) + data


def call(stream, block, body, end=True):
    """A whole call whose body fits one frame."""
    return frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, END_STREAM if end else 0, stream, body)


class Identity:
    """What a caller needs for mutual TLS: `context`, and the `server_name` that the certificate must have."""

    server_name = "localhost"

    def __init__(self, authority, name="attacker"):
        key, certificate = authority.issue(name, [f"DNS:{name}.example.test"])
        self.context = ssl.create_default_context(cafile=str(authority.ca_file))
        self.context.load_cert_chain(certificate, key)
        self.context.set_alpn_protocols(["h2"])


class Connection:
    """`identity` None: in the clear. `preface`: the preface and empty settings go out at once; the server's settings are
    never acknowledged, so that none of them binds this side."""

    def __init__(self, address, identity=None, preface=True, timeout=30, first_settings=b"", reads=True):
        self._timeout = timeout
        self._reads = reads  # False: what comes is left where it is
        plain = socket.create_connection(split(address), timeout=timeout)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = plain if identity is None else identity.context.wrap_socket(plain, server_hostname=identity.server_name)
        self.sock.setblocking(False)
        self.ended = False    # by the server, or by an error
        self.stalled = False  # the server took nothing for the whole timeout
        self.sent = 0
        self.received = collections.Counter()  # frames by type
        self.answered = collections.Counter()  # END_STREAM and RST_STREAM by stream
        self.trailers = collections.Counter()  # END_STREAM alone
        self.resets = {}                       # code of RST_STREAM by stream
        self.goaways = []                      # (error code, text)
        self._rest = b""
        if preface:
            self.send(PREFACE + frame(SETTINGS, payload=first_settings))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, data):
        """Whether all of it went out."""
        view = memoryview(data)
        while view and not self.ended:
            try:
                count = self.sock.send(view[:65536])
                view, self.sent = view[count:], self.sent + count
            except (ssl.SSLWantWriteError, BlockingIOError):
                readable, writable, _ = select.select([self.sock], [self.sock], [], self._timeout)
                if not readable and not writable:
                    self.stalled = True
                    return False
            except ssl.SSLWantReadError:
                select.select([self.sock], [], [], self._timeout)
            except OSError:
                self.ended = True
            self.read()
        return not self.ended

    def read(self):
        """What is there already."""
        while self._reads and not self.ended:
            try:
                data = self.sock.recv(65536)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
                return
            except OSError:
                data = b""
            if not data:
                self.ended = True
                return
            self._take(data)

    def wait(self, condition, timeout=None):
        """Reads until condition() or the end; whether it came true."""
        end = time.monotonic() + (self._timeout if timeout is None else timeout)
        while not condition():
            left = end - time.monotonic()
            if self.ended or left <= 0:
                return condition()
            select.select([self.sock], [], [], min(left, 0.2))
            self.read()
        return True

    def wait_end(self, timeout=None):
        return self.wait(lambda: self.ended, timeout)

    def _take(self, data):
        data = self._rest + data
        at = 0
        while len(data) - at >= 9:
            size = int.from_bytes(data[at:at + 3], "big")
            if len(data) - at < 9 + size:
                break
            kind, flags = data[at + 3], data[at + 4]
            stream = int.from_bytes(data[at + 5:at + 9], "big")
            self.received[kind] += 1
            if kind == RST_STREAM or kind in (DATA, HEADERS) and flags & END_STREAM:
                self.answered[stream] += 1
            if kind in (DATA, HEADERS) and flags & END_STREAM:
                self.trailers[stream] += 1
            if kind == RST_STREAM:
                self.resets[stream] = int.from_bytes(data[at + 9:at + 13], "big")
            if kind == GOAWAY:
                self.goaways.append((int.from_bytes(data[at + 13:at + 17], "big"), data[at + 17:at + 9 + size]))
            at += 9 + size
        self._rest = data[at:]

    def close(self):
        with contextlib.suppress(OSError):
            self.sock.close()

    def abort(self):
        """RST."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()
