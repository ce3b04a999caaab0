"""WatchUserIntents as a caller sees it: the events of one stream, collected while it runs."""

import threading

import grpc

from support import errors
from support.process import PATIENCE, wait_for
from support.protos import pb, pb_grpc


class Watch:
    """One stream. Reads everything as it comes, unless told to read by hand."""

    def __init__(self, gateway, requests=(), token=b"", channel=None, timeout=PATIENCE + 60, read=True):
        ids = [str(getattr(request, "request_id", request)) for request in requests]
        stub = gateway.stub if channel is None else pb_grpc.UserIntentServiceStub(channel)
        self.call = stub.WatchUserIntents(pb.WatchUserIntentsRequest(request_ids=ids, resume_token=token), timeout=timeout)
        self.messages = []
        self.error = None
        self._reader = None
        if read:
            self.read_on()

    def read_on(self):
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        try:
            for message in self.call:
                self.messages.append(message)
        except grpc.RpcError as error:
            self.error = error

    @property
    def events(self):
        """Without heartbeats: "synced", "reset", and ("<request_id>", "<state>", "<status>")."""
        events = []
        for message in list(self.messages):
            kind = message.WhichOneof("event")
            if kind == "changed":
                creation = message.changed
                events.append((creation.request_id, pb.CreationState.Name(creation.state).removeprefix("CREATION_STATE_"),
                               creation.user_intent.astra_status))
            elif kind != "heartbeat":
                events.append(kind)
        return events

    @property
    def token(self):
        return self.messages[-1].resume_token

    def wait(self, what, count=1):
        """Until it has seen such an event, "synced" for example, or (request_id, state, status)."""
        wait_for(lambda: self.events.count(what) >= count or self.error is not None, f"the event {what}")
        assert self.events.count(what) >= count, f"the stream ended before {what}: {self.events}, {self.error}"
        return self

    def wait_end(self):
        self._reader.join(PATIENCE + 60)
        assert not self._reader.is_alive(), f"the stream does not end; it told {self.events}"
        return self

    def failed(self, reason, **more):
        """The stream ends with this error of the gateway's."""
        self.wait_end()
        assert self.error is not None, "the stream ended without an error"
        return errors.decode(self.error, read=True).expect(reason, **more)

    def close(self):
        """Leaves. The last token is good."""
        self.call.cancel()
        if self._reader is not None:
            self.wait_end()
        return self.token if self.messages else b""
