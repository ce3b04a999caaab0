"""Bytes on sockets: a gRPC call made by hand over HTTP/2, and a TCP stand-in for an upstream that breaks early."""

import contextlib
import socket
import struct
import threading
import time
import urllib.parse

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from google.rpc import error_details_pb2, status_pb2

from support.process import PATIENCE, free_port


def split(address):
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def connect(address, timeout=None):
    return socket.create_connection(split(address), timeout=PATIENCE if timeout is None else timeout)


def frame(message, compressed=0, length=None):
    """A gRPC length-prefixed message; `length` may lie."""
    return struct.pack(">BI", compressed, len(message) if length is None else length) + message


class Call:
    """One gRPC call over a connection of its own, without a gRPC library: headers and body are what the test says. `lawful`:
    headers that HTTP/2 forbids fail here already. `tls`: an ssl.SSLContext, who calls."""

    def __init__(self, address, path, body, headers=(), end_stream=True, content_type="application/grpc", lawful=True,
                 tls=None):
        self._socket = connect(address)
        if tls is not None:
            self._socket = tls.wrap_socket(self._socket)
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(
            client_side=True, header_encoding="utf-8", validate_outbound_headers=lawful, normalize_outbound_headers=lawful))
        self._h2.initiate_connection()
        self._stream = self._h2.get_next_available_stream_id()
        self.headers, self.data, self.trailers = {}, b"", {}
        self.reset = None
        self.ended = False
        lines = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost"),
                 ("te", "trailers")]
        if content_type is not None:
            lines.append(("content-type", content_type))
        self._h2.send_headers(self._stream, lines + list(headers), end_stream=body is None and end_stream)
        if body is not None:
            # The test's messages fit the initial window.
            for start in range(0, max(len(body), 1), 16000):
                piece = body[start:start + 16000]
                self._h2.send_data(self._stream, piece, end_stream=end_stream and start + 16000 >= len(body))
        self._flush()

    def _flush(self):
        with contextlib.suppress(OSError):
            self._socket.sendall(self._h2.data_to_send())

    def wait(self, timeout=None):
        """Reads until the stream or the connection ends."""
        end = time.monotonic() + (PATIENCE if timeout is None else timeout)
        while not self.ended:
            left = end - time.monotonic()
            assert left > 0, "no answer to a call made by hand"
            self._socket.settimeout(left)
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                data = b""
            if not data:
                self.ended = True
                break
            try:
                events = self._h2.receive_data(data)
            except h2.exceptions.StreamClosedError:
                # A gRPC server may reset a stream whose deadline is over and still write its trailers behind that. The
                # library hands out nothing of such a read, so all that is known is that the stream has ended.
                self.ended = True
                break
            for event in events:
                self._take(event)
            self._flush()
        return self

    def _take(self, event):
        if isinstance(event, h2.events.ResponseReceived):
            self.headers = dict(event.headers)
            self.trailers = dict(event.headers)  # a trailers-only answer has one block
        elif isinstance(event, h2.events.TrailersReceived):
            self.trailers = dict(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            self.data += event.data
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            self.reset = event.error_code
            self.ended = True
        elif isinstance(event, (h2.events.StreamEnded, h2.events.ConnectionTerminated)):
            self.ended = True

    @property
    def grpc_status(self):
        return int(self.trailers["grpc-status"]) if "grpc-status" in self.trailers else None

    @property
    def reason(self):
        import base64
        text = self.trailers.get("grpc-status-details-bin")
        if text is None:
            return None
        status = status_pb2.Status.FromString(base64.b64decode(text + "=" * (-len(text) % 4)))
        for any_ in status.details:
            if any_.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                return error_details_pb2.ErrorInfo.FromString(any_.value).reason
        return None

    def reset_stream(self, code=8):
        self._h2.reset_stream(self._stream, code)
        self._flush()

    def close(self):
        self._socket.close()

    def abort(self):
        """RST."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()


class TcpTap:
    """A TCP port that counts connections and treats each as told.

    modes: close (FIN at once), reset (RST at once), silent (accepted, never answered), garbage (bytes that are no TLS),
    forward (to `target`). The mode is looked at when a connection arrives.
    """

    def __init__(self, mode="close", target=None):
        self.mode = mode
        self.accepted = 0
        self._target = target
        self._held = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listener.getsockname()[1]
        self.url = f"https://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @classmethod
    def before(cls, sandbox, mode="forward"):
        parts = urllib.parse.urlparse(sandbox.url)
        return cls(mode, (parts.hostname, parts.port))

    def _serve(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            mode = self.mode
            if mode == "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.close()
            elif mode == "silent":
                self._held.append(connection)
            elif mode == "garbage":
                with contextlib.suppress(OSError):
                    connection.recv(1024)
                    connection.sendall(b"this is not TLS\r\n" * 4)
                connection.close()
            elif mode == "forward":
                self._forward(connection)
            else:
                connection.close()

    def _forward(self, connection):
        upstream = socket.create_connection(self._target)
        self._held += [connection, upstream]

        def pump(source, sink):
            with contextlib.suppress(OSError):
                while data := source.recv(65536):
                    sink.sendall(data)
            for end in (source, sink):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

        for pair in ((connection, upstream), (upstream, connection)):
            threading.Thread(target=pump, args=pair, daemon=True).start()

    def drop(self):
        held, self._held = self._held, []
        for connection in held:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def close(self):
        self._listener.close()
        self.drop()


__all__ = ["Call", "TcpTap", "connect", "frame", "free_port", "split"]
