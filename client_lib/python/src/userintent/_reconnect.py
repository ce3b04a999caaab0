"""Lets the blocking client's channel connect again while no RPC runs."""

from __future__ import annotations

import re
import threading
from typing import Any, Optional

import grpc


def _polls(version: str) -> bool:
    numbers = [int(number) for number in re.findall(r"\d+", version)[:2]]
    return numbers >= [1, 80]


class Reconnection:
    """One channel's. Until 1.80, gRPC reads from connections only in threads that wait for an RPC, and otherwise with a
    timer of 5 s, which is also as long as an attempt to connect may take. So in a program whose RPCs all fail at once,
    because the gateway cannot be reached, the channel may go on failing for minutes after the gateway is back.

    From lost() on, a thread of gRPC's own looks after the channel, until stop() or leave(). lost() and stop() are for one
    thread at a time.
    """

    # Newer versions have threads of their own for that. gRPC's asyncio has always had one.
    needed = not _polls(grpc.__version__)

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._begun: Optional[threading.Event] = None  # set by that thread

    def lost(self) -> None:
        """An RPC ended because there was no connection."""
        if not self.needed or self._begun is not None or not isinstance(self._channel, grpc.Channel):
            return
        self._begun = threading.Event()
        # For good: a second subscription beside the end of a first may have gRPC use the channel when it is closed.
        self._channel.subscribe(self._see)

    def _see(self, _: grpc.ChannelConnectivity) -> None:
        assert self._begun is not None
        self._begun.set()

    def stop(self) -> None:
        """Comes before the channel is closed."""
        if self._begun is not None:
            self._begun.wait(5)  # a thread that begins with a closed channel says so on stderr
        self.leave()

    def leave(self) -> None:
        """stop() for a channel that is not closed. Any thread."""
        if self._begun is not None:
            self._channel.unsubscribe(self._see)


def is_lost(error: grpc.RpcError) -> bool:
    """Whether an RPC ended without a word of a server's: UNAVAILABLE, and no trailers."""
    return error.code() is grpc.StatusCode.UNAVAILABLE and not error.trailing_metadata()
