"""The receiving half of a socket: who gets the bytes, and when the kernel's read stops.

What lives here: `Incoming`. What must not: transports' callbacks (`_protocol`), events other than 'data' and 'end'.

Rules
* flowing: None (nobody has asked: up to the mark is kept, then the kernel's read stops), True (a 'data' listener takes
  each chunk as it comes; with `resume()` and no listener they are dropped, as in Node), False (`pause()`: the kernel's
  read stops at once; a `read()` lets it go on for as long as it waits).
* Chunks are handed on in order: while some are kept, new ones go behind them.
* 'end' comes once everything before it was taken. One who reads with `read()` is told first (b""), so that it may still
  answer, unless our side was ended already.
* One reader waits at a time (`_reading`): it is woken to look again, or handed the chunk that it asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import UsageError
from ._settled import settled

if TYPE_CHECKING:
    from ._connection import Connection
    from ._protocol import Protocol as SocketProtocol

EVERYTHING = -1  # a read of this many bytes goes on to the end
CHUNK = 1 << 62  # one of this many ends with the next chunk, as large as it came


class Waiter(Protocol):
    """A reader that waits."""

    def wake(self) -> Any:
        """Look again: something has come, or the end has."""


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
        "_listener",
        "_mark_bytes",
        "_protocol",
        "_read_all",
        "_size_bytes",
        "_socket",
        "_stopped",
        "_waiter",
        "end_emitted",
        "flowing",
        "has_reader",
        "hub",
        "loop",
        "over",
        "reading",
    )

    def __init__(self, socket: Connection, protocol: SocketProtocol, mark_bytes: int) -> None:
        self._socket = socket
        self._protocol = protocol
        self.hub = protocol.hub
        self.loop = protocol.hub.loop
        self.over = settled(protocol.hub.loop).future  # what a reader's task is woken with
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
        self._waiter: Waiter | None = None  # the one reader who waits
        self.reading: Any = None  # the same, while the next chunk can be handed to it as it comes
        self._read_all = False
        self.has_reader = False  # somebody uses read(), not listeners

    # -- from the transport ----------------------------------------------------------------------------------------
    def made(self) -> None:
        """The connection stands: apply what was asked for before."""
        if self._stopped:
            self._stop_kernel()
            # uvloop starts to read after this turn all the same: stop it again. A chunk that slipped in is kept.
            self.hub.loop.call_soon(self._stop_kernel)

    def keep(self, data: bytes) -> None:
        """Take a chunk that no listener takes now."""
        self._chunks.append(data)
        self._size_bytes += len(data)
        if self.flowing:
            self._queue_flush()
        elif self._size_bytes >= self._mark_bytes and not self._read_all:
            self._stop()
        if self._waiter is not None and not self._read_all:
            self._waiter.wake()

    def end_seen(self) -> None:
        """The peer has ended its side."""
        self._end_seen = True
        if self._waiter is not None:
            self._waiter.wake()
        else:
            self.maybe_end()

    def lost(self, error: BaseException | None) -> bool:
        """The connection is gone: what is kept can still be read, then `error` is raised. Whether a reader was told."""
        self._closed = True
        self._error = error
        if self._waiter is None:
            return False
        self._waiter.wake()
        return True

    def drop(self) -> None:
        """Forget what is kept: the socket was destroyed here."""
        self._chunks.clear()
        self._size_bytes = 0
        self._protocol.deliver = self.reading = None

    # -- listeners -------------------------------------------------------------------------------------------------
    def listen(self, listener: Callable[[bytes], Any] | None) -> None:
        """Hand chunks to this listener from now on; None: the last one was removed."""
        self._listener = listener
        self.has_reader = self.has_reader and listener is None
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
            if self.flowing is False and self._waiter is None:
                self._stop()
            elif self._size_bytes < self._mark_bytes:
                self._go()

    def _queue_flush(self) -> None:
        if not self._flush_queued:
            self._flush_queued = True
            self.hub.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_queued = False
        while self._chunks and self.flowing:
            data = self._chunks.popleft()
            self._size_bytes -= len(data)
            if self._listener is not None:
                self.hub.call(self._socket.emit, "data", data)
        if self.flowing:
            if not self._end_seen and not self._closed:
                self._protocol.deliver = self._listener or _drop
            self.maybe_end()

    # -- readers ---------------------------------------------------------------------------------------------------
    def begin_wait(self, waiter: Waiter, size_bytes: int, direct: bool) -> None:
        """There was nothing to take: let the kernel's read go on, and wake `waiter` when there is, or never will be.

        `direct`: it is a `Reading`, and the protocol may hand it the next chunk as that comes. Raises UsageError when
        there is another consumer.
        """
        if self._listener is not None:
            raise UsageError("this socket has a 'data' listener: read with listeners or with read(), not with both")
        if self._waiter is not None:
            raise UsageError("another read() of this socket is waiting: one reader at a time")
        if self.flowing:  # resume() without a listener
            self.flowing = None
            self._protocol.deliver = None
        self._read_all = size_bytes == EVERYTHING
        self._waiter = waiter
        if direct:
            self.reading = waiter
        if self._stopped:
            self._go()

    def end_wait(self, waiter: Waiter) -> None:
        """This reader waits no more: it has been served, or was cancelled, and then another may wait by now."""
        if self._waiter is not waiter:
            return
        self.reading = self._waiter = None
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

    def give_back(self, data: bytes) -> None:
        """Keep what was handed to a reader that did not take it: it is the next again."""
        self._chunks.appendleft(data)
        self._size_bytes += len(data)

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
            self.hub.loop.call_soon(self.maybe_end)

    # -- the state -------------------------------------------------------------------------------------------------
    def maybe_end(self) -> None:
        """Emit 'end' if it is time."""
        if self._end_seen and not self._chunks and not self.end_emitted and self.flowing is not False:
            if self._end_noticed or not self.has_reader or self._socket._outgoing.ended:
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
