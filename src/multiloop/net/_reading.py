"""A reader that waits for the next bytes of a socket: resumed by the transport's call itself, not a turn of the loop later.

What lives here: `Reading`, behind `async for` and `await socket.read()`, and `CallbackReading`, which is no faster than
others but takes its turn in the same way. What must not: whose turn it is, and which bytes (`_incoming`).

Why not a future: its result goes to the waiting task through the loop's queue, and its object, its handle and that turn
cost as much as reading and answering a small message do. A task asks little of what it waits on (a mark, a loop,
`add_done_callback`, `result`, `cancel`), and a `Reading` is used again for each chunk of an iteration.

A reader that is cancelled loses nothing: a chunk is handed over only in the very step that returns it, and until then it
stays with `Incoming`.
"""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import TYPE_CHECKING, Any

from ..loop import CallbackOperation, ErrorFirst, begin
from ._incoming import CHUNK

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._incoming import Incoming


class Reading:
    """An asynchronous iterator over what comes, up to `size_bytes` at a time.

    At the peer's end it gives b"", or ends itself if it is `iterating`.
    """

    __slots__ = (
        "_asyncio_future_blocking",
        "_cancelled",
        "_context",
        "_data",
        "_incoming",
        "_iterating",
        "_loop",
        "_message",
        "_resume",
        "size_bytes",
    )

    def __init__(self, incoming: Incoming, size_bytes: int, iterating: bool) -> None:
        self._incoming = incoming
        self._loop: asyncio.AbstractEventLoop = incoming.hub.loop
        self.size_bytes = size_bytes
        self._iterating = iterating
        self._asyncio_future_blocking = False  # the mark of what a task may wait on
        self._resume: Callable[[Any], Any] | None = None  # makes the task go on; None once that is under way
        self._context: Context | None = None
        self._data: bytes | None = None
        self._cancelled = False
        self._message: Any = None

    def __aiter__(self) -> Reading:
        return self

    async def __anext__(self) -> bytes:
        """Take what is there, or wait. Raises the socket's error, UsageError when somebody else reads."""
        incoming = self._incoming
        incoming.has_reader = True
        data = incoming.take(self.size_bytes)
        while data is None:
            incoming.begin_wait(self, self.size_bytes, self.size_bytes == CHUNK)
            try:
                await self
            finally:
                incoming.end_wait()
            data, self._data = self._data, None
            if data is None:  # not handed over: what else has come?
                data = incoming.take(self.size_bytes)
        if self._iterating and not data:
            raise StopAsyncIteration
        return data

    # -- as the task sees it ---------------------------------------------------------------------------------------
    def __await__(self) -> Any:
        self._asyncio_future_blocking = True
        return self

    def __next__(self) -> Reading:
        if self._asyncio_future_blocking:
            return self  # the task takes the mark away when it begins to wait
        raise StopIteration

    def add_done_callback(self, callback: Callable[[Any], Any], *, context: Context) -> None:
        """Keep how the task goes on."""
        self._resume = callback
        self._context = context

    def result(self) -> None:
        """Nothing: what was read is taken by itself. Raises CancelledError after `cancel()`."""
        if self._cancelled:
            self._cancelled = False
            raise asyncio.CancelledError() if self._message is None else asyncio.CancelledError(self._message)

    def cancel(self, msg: Any = None) -> bool:
        """Let the task go on with a CancelledError, a turn later. False when it goes on already."""
        if self._resume is None:
            return False
        self._cancelled = True
        self._message = msg
        self._incoming.end_wait()
        self.wake()
        return True

    # -- from Incoming ---------------------------------------------------------------------------------------------
    def deliver(self, data: bytes) -> None:
        """A chunk has come, and nothing is kept before it: hand it over, now."""
        resume = self._resume
        context = self._context
        if resume is None or context is None:  # not waiting yet, or not any more
            self._incoming.keep(data)
            return
        self._resume = None
        self._data = data
        try:
            context.run(resume, self)
        except RuntimeError:
            # Another task of this thread is in the middle of a step, or the context is in use: then a turn later.
            if self._data is None:
                raise
            self._data = None
            self._incoming.keep(data)
            self._loop.call_soon(resume, self, context=context)

    def wake(self) -> None:
        """There is something to take, or there never will be: go on, a turn later."""
        resume = self._resume
        if resume is not None:
            self._resume = None
            self._loop.call_soon(resume, self, context=self._context)


class CallbackReading:
    """One read to a callback. Raises UsageError when somebody else reads."""

    __slots__ = ("_incoming", "_size_bytes", "op")

    def __init__(self, incoming: Incoming, size_bytes: int, callback: ErrorFirst) -> None:
        incoming.has_reader = True
        incoming.begin_wait(self, size_bytes, False)
        self._incoming = incoming
        self._size_bytes = size_bytes
        self.op: CallbackOperation[bytes] = begin(callback, incoming.hub).unref()
        self.op._stop = incoming.end_wait
        incoming.hub.loop.call_soon(self.wake)  # a callback never comes inside the call

    def wake(self) -> None:
        """Look whether it can be settled."""
        if self.op.done():
            return
        try:
            data = self._incoming.take(self._size_bytes)
        except Exception as error:
            self._incoming.end_wait()
            self.op._fail(error)
        else:
            if data is not None:
                self._incoming.end_wait()
                self.op._succeed(data)
