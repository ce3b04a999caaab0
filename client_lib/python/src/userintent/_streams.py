"""The watches of both clients: their streams and pauses."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any, Optional

import grpc
import grpc.aio

from ._errors import Decoded, decode
from ._reconnect import is_lost
from ._watch import SILENCE, AsyncWatch, Watch, WatchCall, WatchEvent

if TYPE_CHECKING:
    from ._client import AsyncClient, Client

_LOST = Decoded(grpc.StatusCode.UNAVAILABLE, "no word for too long", "", {}, (), None, None)


class _Watchdog:
    """Cancels an RPC that says nothing for `silence` seconds while somebody waits for it. A thread of its own; any thread
    may call."""

    def __init__(self, rpc: Any, silence: float) -> None:
        self._rpc, self._silence = rpc, silence
        self._condition = threading.Condition()
        self._until: Optional[float] = None  # None: nobody waits
        self._over = False
        self.bit = False  # it cancelled the RPC
        threading.Thread(target=self._run, daemon=True, name="userintent-watch").start()

    def _run(self) -> None:
        with self._condition:
            while not self._over:
                left = None if self._until is None else self._until - time.monotonic()
                if left is not None and left <= 0:
                    self.bit = True
                    break
                self._condition.wait(self._silence if left is None else left)
        if self.bit:
            self._rpc.cancel()

    def watch(self, waits: bool) -> None:
        # It looks again when its own wait is over, so a message costs no switch of threads.
        self._until = time.monotonic() + self._silence if waits else None

    def end(self) -> None:
        with self._condition:
            self._over = True
            self._condition.notify()


class StreamWatch(Watch):
    """Of Client.watch."""

    silence = SILENCE

    def __init__(self, client: Client, call: WatchCall) -> None:
        self._client, self._call = client, call
        self._condition = threading.Condition()
        self._closed = self._client_closed = self._finished = False
        self._lease: Any = None
        self._rpc: Any = None
        self._dog: Optional[_Watchdog] = None

    @property
    def resume_token(self) -> bytes:
        return self._call.token

    def close(self) -> None:
        with self._condition:
            self._closed = True
            rpc = self._rpc
            self._condition.notify_all()
        if rpc is not None:
            rpc.cancel()

    def client_closed(self) -> None:
        with self._condition:
            self._client_closed = True
            rpc = self._rpc
            self._condition.notify_all()
        if rpc is not None:
            rpc.cancel()

    def __del__(self) -> None:
        if self._rpc is not None:
            self._rpc.cancel()
            self._leave()

    def __next__(self) -> WatchEvent:
        try:
            while not self._finished:
                if self._closed:
                    break
                message = self._message()
                event = None if message is None else self._call.take(message)
                if event is not None:
                    return event
        except BaseException as error:
            self._leave()
            self._finished = isinstance(error, Exception)  # Ctrl-C leaves the watch as it was
            raise
        self._finished = True
        self._leave()
        raise StopIteration

    def _message(self) -> Any:
        """The next message; None: there was none, but there may be one in the next stream."""
        if self._rpc is None and not self._begin():
            return None
        assert self._dog is not None
        decoded: Optional[Decoded] = None
        self._dog.watch(True)
        try:
            return next(self._rpc)
        except StopIteration:
            pass
        except grpc.RpcError as error:
            decoded = _LOST if self._dog.bit else decode(error)
            if is_lost(error):
                self._client._lost(self._lease)
        finally:
            self._dog.watch(False)
        self._leave()
        with self._condition:
            if self._client_closed:
                raise self._call.cancelled("the client is closed")
            if self._closed:
                return None
            self._call.left()
            wait = self._call.ended(decoded)
            self._condition.wait_for(lambda: self._closed or self._client_closed, wait)
            if self._client_closed and not self._closed:
                raise self._call.cancelled("the client is closed")
        return None

    def _begin(self) -> bool:
        """Makes the next stream; False: the watch was closed meanwhile."""
        data = self._call.encode()
        timeout = self._call.left()
        self._lease = self._client._take()
        self._client._began(self)
        try:
            rpc = self._lease.watch(data, timeout=timeout)
        except ValueError as error:  # what gRPC says of a closed channel
            if self._client._closed:
                raise self._call.cancelled("the client is closed") from error
            raise
        self._call.streams += 1
        with self._condition:
            self._rpc = rpc
            stopped = self._closed or self._client_closed
        self._dog = _Watchdog(rpc, self.silence)
        if stopped:
            rpc.cancel()  # and its end says so
        return True

    def _leave(self) -> None:
        """Ends the stream, if there is one."""
        with self._condition:
            rpc, self._rpc = self._rpc, None
        if self._dog is not None:
            self._dog.end()
            self._dog = None
        if rpc is not None:
            rpc.cancel()
        if self._lease is not None:
            lease, self._lease = self._lease, None
            self._client._give_back(lease)


class AsyncStreamWatch(AsyncWatch):
    """Of AsyncClient.watch."""

    silence = SILENCE

    def __init__(self, client: AsyncClient, call: WatchCall) -> None:
        self._client, self._call = client, call
        self._closed = self._client_closed = self._finished = False
        self._lease: Any = None
        self._rpc: Any = None
        self._wake: Optional[asyncio.Event] = None  # made in the loop; set by close()

    @property
    def resume_token(self) -> bytes:
        return self._call.token

    def close(self) -> None:
        self._closed = True
        self._stop()

    def client_closed(self) -> None:
        self._client_closed = True
        self._stop()

    def _stop(self) -> None:
        if self._wake is not None:
            self._wake.set()
        if self._rpc is not None:
            self._rpc.cancel()

    async def __anext__(self) -> WatchEvent:
        try:
            while not self._finished:
                if self._closed:
                    break
                message = await self._message()
                event = None if message is None else self._call.take(message)
                if event is not None:
                    return event
        except BaseException as error:
            self._leave()
            self._finished = isinstance(error, Exception)  # a cancelled task leaves the watch as it was
            raise
        self._finished = True
        self._leave()
        raise StopAsyncIteration

    async def _message(self) -> Any:
        """The next message; None: there was none, but there may be one in the next stream."""
        if self._rpc is None:
            self._begin()
        decoded: Optional[Decoded] = None
        try:
            message = await asyncio.wait_for(self._rpc.read(), self.silence)
            if message is not grpc.aio.EOF:
                return message
        except asyncio.TimeoutError:
            decoded = _LOST
        except asyncio.CancelledError:
            # Either this task was cancelled, or the RPC because the watch or the channel was closed.
            if not (self._closed or self._client._closed) or task_is_cancelled():
                raise
        except grpc.RpcError as error:
            decoded = decode(error)
        self._leave()
        if self._closed:
            return None
        if self._client._closed:
            raise self._call.cancelled("the client is closed")
        self._call.left()
        wait = self._call.ended(decoded)
        assert self._wake is not None
        try:
            await asyncio.wait_for(self._wake.wait(), wait)
        except asyncio.TimeoutError:
            return None
        if not self._closed:
            raise self._call.cancelled("the client is closed")
        return None

    def _begin(self) -> None:
        data = self._call.encode()
        timeout = self._call.left()
        self._lease = self._client._take()
        self._client._began(self)
        if self._wake is None:
            self._wake = asyncio.Event()
        try:
            self._rpc = self._lease.watch(data, timeout=timeout)
        except grpc.aio.UsageError as error:  # what gRPC says of a closed channel
            if self._client._closed:
                raise self._call.cancelled("the client is closed") from error
            raise
        self._call.streams += 1

    def _leave(self) -> None:
        """Ends the stream, if there is one."""
        rpc, self._rpc = self._rpc, None
        if rpc is not None:
            rpc.cancel()
        if self._lease is not None:
            lease, self._lease = self._lease, None
            self._client._give_back(lease)


def task_is_cancelled() -> bool:
    task: Any = asyncio.current_task()
    # Task.cancelling() came with Python 3.11. Before it, what ends an RPC here is more often its own cancellation.
    return bool(task.cancelling()) if hasattr(task, "cancelling") else False
