"""The sending half of a socket: what waits, who waits for it, and how it ends.

What lives here: `Outgoing`, everything of a write but the usual case, which is `Socket.write` itself. What must not:
reading; when the two halves together close the socket is `_socket`'s.

How it is known that a write has left: the transport counts bytes, not writes. A callback is kept with the number of
bytes that had been written up to it; when fewer than that are still waiting, it is due. Only while there are such
callbacks the transport's marks are set to 0, so that it tells of its empty buffer.
"""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import ClosedError
from ..loop import AnyOperation, ErrorFirst, begin

if TYPE_CHECKING:
    from ._connection import Connection

Data = bytes | bytearray | memoryview | str


def as_bytes(data: Any) -> bytes | bytearray | memoryview:
    """Return what a transport takes; text is sent as UTF-8. Raises TypeError for anything that is neither."""
    if isinstance(data, bytes | bytearray):
        return data
    if isinstance(data, str):
        return data.encode()
    if isinstance(data, memoryview):
        return data.cast("B") if data.nbytes else b""
    raise TypeError(f"a socket writes bytes, bytearray, memoryview or str, not {type(data).__name__}")


class Outgoing:
    """The sending half of one socket."""

    __slots__ = (
        "_drains",
        "_early",
        "_early_bytes",
        "_flushes",
        "_mark_bytes",
        "_need_drain",
        "_socket",
        "ended",
        "ended_by_peer",
        "finished",
    )

    def __init__(self, socket: Connection, mark_bytes: int) -> None:
        self._socket = socket
        self._mark_bytes = mark_bytes
        self._early: list[bytes | bytearray | memoryview] = []  # written before the connection stood
        self._early_bytes = 0
        self._flushes: deque[tuple[int, Callable[[BaseException | None], None]]] = deque()
        self._drains: list[AnyOperation[None]] = []
        self._need_drain = False
        self.ended = False
        self.ended_by_peer = False  # ended because the peer had ended, not by the user
        self.finished = False

    # -- from the user ---------------------------------------------------------------------------------------------
    def write(self, data: Data, callback: ErrorFirst | None) -> bool:
        """Every write that is not the usual case."""
        raw = as_bytes(data)
        socket = self._socket
        if self.ended and not (self.ended_by_peer or socket.destroyed):
            raise ClosedError("write() after end(): the socket was told that nothing follows")
        if socket.destroyed or self.ended:
            problem: BaseException = socket._gone()
            if not socket.destroyed:
                problem = BrokenPipeError(errno.EPIPE, "the peer has ended the connection", socket._name())
                socket.destroy(problem)
            if callback is not None:
                socket._hub.loop.call_soon(socket._hub.call, callback, problem, None)
            return False
        size_bytes = len(raw)
        socket.bytes_written += size_bytes
        if callback is not None:
            self._flushes.append((socket.bytes_written, _reporter(socket, callback)))
        transport = socket._transport
        if transport is None:
            self._early.append(raw)
            self._early_bytes += size_bytes
            socket._choked = self._early_bytes >= self._mark_bytes
        elif size_bytes:
            transport.write(raw)
        if socket._protocol.idle is not None:
            socket._protocol.idle.touch()
        if self._flushes:
            self._watch()
        self._need_drain |= socket._choked
        return not socket._choked

    def drain(self, callback: ErrorFirst | None) -> AnyOperation[None]:
        """Wait until writing may go on."""
        socket = self._socket
        op: AnyOperation[None] = begin(callback, socket._hub).unref()
        if socket._choked and not socket.destroyed:
            self._drains.append(op)
            op._stop = lambda: self._drains.remove(op)
        elif callback is not None:
            socket._hub.loop.call_soon(_settle, op, socket._gone() if socket.destroyed else None)
        else:
            _settle(op, socket._gone() if socket.destroyed else None)
        return op

    def end(self, callback: ErrorFirst | None) -> None:
        """Nothing follows; `callback` is called when everything has left."""
        socket = self._socket
        if callback is not None:
            self._flushes.append((socket.bytes_written, _reporter(socket, callback)))
        if not self.ended:
            self.ended = True
            self._flushes.append((socket.bytes_written, self._finish))
        self._watch()

    def _finish(self, error: BaseException | None) -> None:
        if error is None:
            self.finished = True
            self._socket._hub.call(self._socket.emit, "finish")

    # -- from the transport ----------------------------------------------------------------------------------------
    def made(self, transport: asyncio.WriteTransport) -> None:
        """The connection stands: send what was written before."""
        transport.set_write_buffer_limits(high=self._mark_bytes - 1, low=0)
        early, self._early, self._early_bytes = self._early, [], 0
        self._socket._choked = False
        for raw in early:
            transport.write(raw)
        if self._flushes:
            self._watch()
        if not self._socket._choked and self._need_drain:
            self._socket._hub.loop.call_soon(self.written)

    def over_the_mark(self) -> None:
        """The transport asks to stop (with callbacks waiting: as soon as anything waits)."""
        choked = not self._flushes or self.waiting_bytes() >= self._mark_bytes
        self._socket._choked = choked
        self._need_drain |= choked

    def written(self) -> None:
        """The transport has nothing left to write."""
        socket = self._socket
        socket._choked = False
        self._flushed()
        if self._need_drain and not socket._choked and not socket.destroyed:
            self._need_drain = False
            drains, self._drains = self._drains, []
            for op in drains:
                op._succeed(None)
            if not self.ended:
                socket._hub.call(socket.emit, "drain")

    def lost(self, error: BaseException | None) -> bool:
        """The connection is gone: tell everybody who waits. Whether a waiting `drain()` was told."""
        socket = self._socket
        flushes, self._flushes = self._flushes, deque()
        # close() flushes before it closes: without an error, what was to be the end has left.
        outcome = error if error is not None or (self.ended and not socket._dropped) else socket._gone()
        for _, flushed in flushes:
            flushed(outcome)
        drains, self._drains = self._drains, []
        for op in drains:
            op._fail(socket._gone())
        self._early = []
        return bool(drains)

    # -- what has left ---------------------------------------------------------------------------------------------
    @property
    def watching(self) -> bool:
        """Whether somebody waits for bytes to leave."""
        return bool(self._flushes)

    def waiting_bytes(self) -> int:
        """How many bytes wait."""
        transport = self._socket._transport
        return self._early_bytes if transport is None else transport.get_write_buffer_size()

    def _watch(self) -> None:
        """Be told when the transport's buffer is empty."""
        socket = self._socket
        transport = socket._transport
        if transport is None or socket.destroyed:
            return
        waiting_bytes = transport.get_write_buffer_size()
        if waiting_bytes:
            transport.set_write_buffer_limits(high=0, low=0)
            socket._choked = waiting_bytes >= self._mark_bytes
        else:
            socket._hub.loop.call_soon(self._flushed)
        socket._fast = None

    def _flushed(self) -> None:
        socket = self._socket
        if socket.closed:
            return
        left = socket.bytes_written - self.waiting_bytes()
        while self._flushes and self._flushes[0][0] <= left:
            self._flushes.popleft()[1](None)
        # While something waits the transport is paused at mark 0 and would not tell of the real one: written() comes again.
        if not self._flushes and left == socket.bytes_written and socket._transport is not None:
            socket._transport.set_write_buffer_limits(high=self._mark_bytes - 1, low=0)
            socket._refresh_fast()


def _reporter(socket: Connection, callback: ErrorFirst) -> Callable[[BaseException | None], None]:
    def report(error: BaseException | None) -> None:
        socket._hub.call(callback, error, None)

    return report


def _settle(op: AnyOperation[None], error: BaseException | None) -> None:
    if error is None:
        op._succeed(None)
    else:
        op._fail(error)
