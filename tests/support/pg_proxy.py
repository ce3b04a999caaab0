"""One Unix socket before another: passes bytes both ways until it is told to cut them or to hold them up."""

import contextlib
import selectors
import socket
import threading

_CHUNK = 1 << 16


class _Pair:
    """A connection from a client and the one to the server that belongs to it."""

    def __init__(self, client, server):
        self.client, self.server = client, server


class Relay:
    """A thread of its own. What a side reads slowly blocks the others for as long: this is for tests."""

    def __init__(self, path, target):
        self._target = str(target)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        self._wake_read, self._wake_write = socket.socketpair()
        self._lock = threading.Lock()
        self._pairs = []
        self._cut = False       # asked for, and not done yet
        self._done = threading.Condition(self._lock)
        self._was_cut = 0
        self._held = False
        self._answers_held = False
        self._change = lambda data: data
        self._closing = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    # -- any thread ----------------------------------------------------------------------------------------------------

    def cut(self):
        """Ends every connection at both sides; returns how many there were."""
        with self._lock:
            self._cut = True
            self._wake()
            self._done.wait_for(lambda: not self._cut, 10)
            return self._was_cut

    def hold(self, held):
        with self._lock:
            self._held = held
            self._wake()

    def hold_answers(self, held):
        with self._lock:
            self._answers_held = held
            self._wake()

    def change_answers(self, change):
        """What a server says is passed on as change(its bytes)."""
        with self._lock:
            self._change = change

    def close(self):
        with self._lock:
            self._closing = True
            self._wake()
        self._thread.join(10)

    def _wake(self):
        with contextlib.suppress(OSError):
            self._wake_write.send(b"x")

    # -- its thread ----------------------------------------------------------------------------------------------------

    def _run(self):
        while True:
            with self._lock:
                closing, cut, held, answers_held = self._closing, self._cut, self._held, self._answers_held
            if cut or closing:
                count = len(self._pairs)
                for pair in self._pairs:
                    pair.client.close()
                    pair.server.close()
                self._pairs = []
                with self._lock:
                    self._cut, self._was_cut = False, count
                    self._done.notify_all()
            if closing:
                self._listener.close()
                self._wake_read.close()
                self._wake_write.close()
                return
            self._turn(held, answers_held)

    def _turn(self, held, answers_held):
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_read, selectors.EVENT_READ, "wake")
            if not held:
                selector.register(self._listener, selectors.EVENT_READ, "listen")
                for pair in self._pairs:
                    selector.register(pair.client, selectors.EVENT_READ, (pair, pair.client, pair.server))
                    if not answers_held:
                        selector.register(pair.server, selectors.EVENT_READ, (pair, pair.server, pair.client))
            gone = []
            for key, _ in selector.select():
                if key.data == "wake":
                    self._wake_read.recv(_CHUNK)
                elif key.data == "listen":
                    self._accept()
                else:
                    pair, source, target = key.data
                    if not self._pass(source, target, self._change if source is pair.server else None):
                        gone.append(pair)
        for pair in gone:
            if pair in self._pairs:
                pair.client.close()
                pair.server.close()
                self._pairs.remove(pair)

    def _accept(self):
        client, _ = self._listener.accept()
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(self._target)
        except OSError:  # as if nobody listened here either
            client.close()
            server.close()
            return
        self._pairs.append(_Pair(client, server))

    @staticmethod
    def _pass(source, target, change):
        """False: one of the two has ended."""
        try:
            data = source.recv(_CHUNK)
            if data:
                target.sendall(change(data) if change else data)
            return bool(data)
        except OSError:
            return False
