"""The receiving half of a socket: who gets the bytes, and when the kernel's read stops.

What lives here: `Incoming`. What must not: transports' callbacks (`_protocol`), events other than 'data' and 'end'.

Rules
* flowing: None (nobody has asked: up to the mark is kept, then the kernel's read stops), True (a 'data' listener takes
  each chunk as it comes; with `resume()` and no listener they are dropped, as in Node), False (`pause()`: the kernel's
  read stops at once; a `read()` lets it go on for as long as it waits).
* Chunks are handed on in order: while some are kept, new ones go behind them.
* 'end' comes once everything before it was taken. One who reads with `read()` is told first (b""), so that it may still
  answer, unless our side was ended already.
* A reader who is cancelled loses nothing: what it waits for is a signal, the bytes stay here until it takes them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..loop import CallbackOperation, ErrorFirst, begin

if TYPE_CHECKING:
    from ._connection import Connection
    from ._protocol import Protocol

EVERYTHING = -1  # a read of this many bytes goes on to the end
CHUNK = 1 << 62  # one of this many ends with the next chunk, as large as it came


def _drop(data: bytes) -> None:
    """Take the place of a listener after `resume()` without one."""


class Incoming:
    """The receiving half of one socket."""

    __slots__ = (
        "_chunks",
        "_closed",
        "_end_noticed",
        "_end_seen",
        "_error",
        "_flush_queued",
        "_has_reader",
        "_listener",
        "_mark_bytes",
        "_protocol",
        "_read_all",
        "_size_bytes",
        "_socket",
        "_stopped",
        "_wake",
        "end_emitted",
        "flowing",
    )

    def __init__(self, socket: Connection, protocol: Protocol, mark_bytes: int) -> None:
        self._socket = socket
        self._protocol = protocol
        self._mark_bytes = mark_bytes
        self._chunks: deque[bytes] = deque()
        self._size_bytes = 0
        self.flowing: bool | None = None
        self._listener: Callable[[bytes], Any] | None = None
        self._flush_queued = False
        self._stopped = False  # the kernel's read
        self._end_seen = False
        self._end_noticed = False
        self.end_emitted = False
        self._closed = False
        self._error: BaseException | None = None
        self._wake: Callable[[], None] | None = None  # the one reader who waits
        self._read_all = False
        self._has_reader = False  # somebody uses read(), not listeners

    # -- from the transport ----------------------------------------------------------------------------------------
    def made(self) -> None:
        """The connection stands: apply what was asked for before."""
        if self._stopped:
            self._stop_kernel()
            # uvloop starts to read after this turn all the same: stop it again. A chunk that slipped in is kept.
            self._protocol.hub.loop.call_soon(self._stop_kernel)

    def keep(self, data: bytes) -> None:
        """Take a chunk that no listener takes now."""
        self._chunks.append(data)
        self._size_bytes += len(data)
        if self.flowing:
            self._queue_flush()
        elif self._size_bytes >= self._mark_bytes and not self._read_all:
            self._stop()
        if self._wake is not None:
            self._wake()

    def end_seen(self) -> None:
        """The peer has ended its side."""
        self._end_seen = True
        if self._wake is not None:
            self._wake()
        else:
            self.maybe_end()

    def lost(self, error: BaseException | None) -> bool:
        """The connection is gone: what is kept can still be read, then `error` is raised. Whether a reader was told."""
        self._closed = True
        self._error = error
        if self._wake is None:
            return False
        self._wake()
        return True

    def drop(self) -> None:
        """Forget what is kept: the socket was destroyed here."""
        self._chunks.clear()
        self._size_bytes = 0
        self._protocol.deliver = None

    # -- listeners -------------------------------------------------------------------------------------------------
    def listen(self, listener: Callable[[bytes], Any] | None) -> None:
        """Hand chunks to this listener from now on; None: the last one was removed."""
        self._listener = listener
        self._has_reader = self._has_reader and listener is None
        if listener is None:
            self.flowing = None if self.flowing else self.flowing
        elif self.flowing is None:
            self.flowing = True
        self._update()

    def pause(self) -> None:
        """Stop the kernel's read and the listener."""
        self.flowing = False
        self._update()

    def resume(self) -> None:
        """Go on; without a listener, drop what comes."""
        self.flowing = True
        self._update()

    def _update(self) -> None:
        """Bring the delivery and the kernel's read in line with `flowing`."""
        if self.flowing:
            if self._chunks or self._end_seen:
                self._protocol.deliver = None
                self._queue_flush()
            else:
                self._protocol.deliver = self._listener or _drop
            self._go()
        else:
            self._protocol.deliver = None
            if self.flowing is False and self._wake is None:
                self._stop()
            elif self._size_bytes < self._mark_bytes:
                self._go()

    def _queue_flush(self) -> None:
        if not self._flush_queued:
            self._flush_queued = True
            self._protocol.hub.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_queued = False
        while self._chunks and self.flowing:
            data = self._chunks.popleft()
            self._size_bytes -= len(data)
            if self._listener is not None:
                self._protocol.hub.call(self._socket.emit, "data", data)
        if self.flowing:
            if not self._end_seen and not self._closed:
                self._protocol.deliver = self._listener or _drop
            self.maybe_end()

    # -- readers ---------------------------------------------------------------------------------------------------
    def start_read(self, size_bytes: int) -> None:
        """Become the one reader: let the kernel's read go on. Raises UsageError when there is another consumer."""
        if self._listener is not None:
            raise UsageError("this socket has a 'data' listener: read with listeners or with read(), not with both")
        if self._wake is not None:
            raise UsageError("another read() of this socket is waiting: one reader at a time")
        self._has_reader = True
        if self.flowing:  # resume() without a listener
            self.flowing = None
            self._protocol.deliver = None
        self._read_all = size_bytes == EVERYTHING
        self._go()

    async def read(self, size_bytes: int) -> bytes:
        """Wait for up to `size_bytes`, or for EVERYTHING; b"" at the end."""
        self._has_reader = True
        while (data := self.take(size_bytes)) is None:
            self.start_read(size_bytes)
            signal: asyncio.Future[None] = self._protocol.hub.loop.create_future()

            def wake(signal: asyncio.Future[None] = signal) -> None:
                if not signal.done():
                    signal.set_result(None)

            self._wake = wake
            try:
                await signal
            finally:
                self._stop_waiting()
        return data

    def read_with(self, callback: ErrorFirst, size_bytes: int) -> CallbackOperation[bytes]:
        """As `read`, to a callback."""
        self.start_read(size_bytes)
        op = begin(callback, self._protocol.hub).unref()

        def attempt() -> None:
            if op.done():
                return
            try:
                data = self.take(size_bytes)
            except Exception as error:
                self._stop_waiting()
                op._fail(error)
            else:
                if data is not None:
                    self._stop_waiting()
                    op._succeed(data)

        self._wake = attempt
        op._stop = self._stop_waiting
        self._protocol.hub.loop.call_soon(attempt)  # a callback never comes inside the call
        return op

    def _stop_waiting(self) -> None:
        self._wake = None
        self._read_all = False
        if self.flowing is False or self._size_bytes >= self._mark_bytes:
            self._stop()

    def take(self, size_bytes: int) -> bytes | None:
        """Return what a reader gets now: bytes, b"" at the end, or None when it has to wait. Raises the socket's error."""
        over = self._end_seen or self._closed
        if self._chunks and (over or size_bytes != EVERYTHING):
            if size_bytes == EVERYTHING and self._error is None:
                data = b"".join(self._chunks)
                self._chunks.clear()
                self._size_bytes = 0
                self._notice_end()
                return data
            if size_bytes != EVERYTHING:
                return self._pop(size_bytes)
        if self._error is not None:
            raise self._error
        if over:
            self._notice_end()
            return b""
        return None

    def _pop(self, size_bytes: int) -> bytes:
        data = self._chunks.popleft()
        if len(data) > size_bytes:
            self._chunks.appendleft(data[size_bytes:])
            data = data[:size_bytes]
        self._size_bytes -= len(data)
        if self._stopped and self.flowing is None and self._size_bytes <= self._mark_bytes // 4:
            self._go()
        return data

    def _notice_end(self) -> None:
        if not self._end_noticed:
            self._end_noticed = True
            # One turn later: what the reader writes on seeing the end still goes out before this side is ended, too.
            self._protocol.hub.loop.call_soon(self.maybe_end)

    # -- the state -------------------------------------------------------------------------------------------------
    def maybe_end(self) -> None:
        """Emit 'end' if it is time."""
        if self._end_seen and not self._chunks and not self.end_emitted and self.flowing is not False:
            if self._end_noticed or not self._has_reader or self._socket._outgoing.ended:
                self.end_emitted = True
                self._socket._ended_by_peer()

    def _stop(self) -> None:
        self._stopped = True
        self._stop_kernel()

    def _stop_kernel(self) -> None:
        transport = self._socket._transport
        if self._stopped and transport is not None and not self._end_seen and not self._socket.destroyed:
            transport.pause_reading()

    def _go(self) -> None:
        if self._stopped:
            self._stopped = False
            transport = self._socket._transport
            if transport is not None and not self._end_seen and not self._socket.destroyed:
                transport.resume_reading()
