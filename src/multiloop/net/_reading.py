"""A reader that waits for the next bytes of a socket: resumed by the transport's call itself, not a turn of the loop later.

What lives here: `Reading`, behind `async for` and `await socket.read()`, and `CallbackReading`, which is no faster than
others but takes its turn in the same way. What must not: whose turn it is, and which bytes (`_incoming`).

Why not a future: its result goes to the waiting task through the loop's queue, and its object, its handle and that turn
cost as much as reading and answering a small message do. A task asks little of what it waits on (a mark, a loop,
`add_done_callback`, `result`, `cancel`), and a `Reading` is used again for each chunk of an iteration.

Why not a coroutine, either: it would be one more object and one more step for each chunk. A `Reading` is the coroutine and
what that waits on in one. Only while it waits it carries the mark of a future (`_asyncio_future_blocking` is None else), so
that `create_task`, `wait_for` and `gather` take it for the coroutine that it is.

A reader that is cancelled loses nothing: a chunk is handed over only in the very step that returns it, and until then it
stays with `Incoming`.
"""

from __future__ import annotations

import asyncio
import warnings
from contextvars import Context
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..loop import CallbackOperation, ErrorFirst, begin
from ._incoming import CHUNK

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._incoming import Incoming


class Reading:
    """Up to `size_bytes` of what comes: one read, or (`iterating`) an asynchronous iterator over them.

    At the peer's end it gives b"", or ends the iteration. Raises the socket's error, UsageError when somebody else reads.
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
        "_used",
        "_waiting",
        "size_bytes",
    )

    def __init__(self, incoming: Incoming, size_bytes: int, iterating: bool) -> None:
        self._incoming = incoming
        self._loop: asyncio.AbstractEventLoop = incoming.loop
        self.size_bytes = size_bytes
        self._iterating = iterating
        self._used = iterating  # one read can be awaited once
        self._waiting = False  # it is what a task waits on
        self._asyncio_future_blocking: bool | None = None
        self._resume: Callable[[Any], Any] | None = None  # makes the task go on; None once that is under way
        self._context: Context | None = None
        self._data: bytes | None = None
        self._cancelled = False
        self._message: Any = None

    def __del__(self) -> None:
        if not self._used:
            warnings.warn("a read() of a socket was never awaited: nothing was read", RuntimeWarning, stacklevel=2)

    # -- as a coroutine --------------------------------------------------------------------------------------------
    def __aiter__(self) -> Reading:
        return self

    def __anext__(self) -> Reading:
        return self

    def __await__(self) -> Any:
        return self

    def __next__(self) -> Reading:
        made = self.step()
        if isinstance(made, Reading):
            return self
        raise StopIteration(made)

    def step(self) -> bytes | Reading:
        """Return bytes when there is something to take, or this itself: then it is to be waited on, and called again."""
        incoming = self._incoming
        data = None
        if self._waiting:
            if self._resume is not None:  # a task that shares this object, not the one that waits
                raise UsageError("another read() of this socket is waiting: one reader at a time")
            self._waiting = False
            self._asyncio_future_blocking = None
            incoming.end_wait(self)
            data, self._data = self._data, None
        elif not self._iterating:
            if self._used:
                raise RuntimeError("this read() was awaited before: call read() again for the next chunk")
            self._used = True
        if data is None:  # not handed over: what is there?
            incoming.has_reader = True
            data = incoming.take(self.size_bytes)
            if data is None:
                incoming.begin_wait(self, self.size_bytes, self.size_bytes == CHUNK)
                self._waiting = True
                self._asyncio_future_blocking = True
                return self
        if self._iterating and not data:
            raise StopAsyncIteration
        return data

    def send(self, value: Any) -> Reading:
        """What a task without a C interface calls to step."""
        return next(self)

    def throw(self, kind: Any, value: Any = None, trace: Any = None) -> Reading:
        """Wait no more, and raise what is thrown (a cancel, mostly) in the one who waited."""
        self.close()
        error = value if value is not None else kind() if isinstance(kind, type) else kind
        if trace is not None:
            error.__traceback__ = trace
        raise error

    def close(self) -> None:
        """Wait no more: its task is over."""
        self._used = True
        if self._waiting:
            self._waiting = False
            self._asyncio_future_blocking = self._resume = self._context = None
            self._incoming.end_wait(self)
            data, self._data = self._data, None
            if data is not None:
                self._incoming.give_back(data)

    # -- as what its task waits on ---------------------------------------------------------------------------------
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
        resume = self._resume
        if resume is None:
            return False
        self._cancelled = True
        self._message = msg
        self._incoming.end_wait(self)
        self._resume = None
        self._loop.call_soon(resume, self, context=self._context)
        return True

    # -- from Incoming ---------------------------------------------------------------------------------------------
    # The task is told that something is over, not what: of a plain future it asks that without a call of Python's.
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
            context.run(resume, self._incoming.over)
        except RuntimeError:
            # Another task of this thread is in the middle of a step, or the context is in use: then a turn later.
            if self._data is None:
                raise
            self._data = None
            self._incoming.keep(data)
            self._loop.call_soon(resume, self._incoming.over, context=context)

    def wake(self) -> None:
        """There is something to take, or there never will be: go on, a turn later."""
        resume = self._resume
        if resume is not None:
            self._resume = None
            self._loop.call_soon(resume, self._incoming.over, context=self._context)


class CallbackReading:
    """One read to a callback. Raises UsageError when somebody else reads."""

    __slots__ = ("_incoming", "_size_bytes", "op")

    def __init__(self, incoming: Incoming, size_bytes: int, callback: ErrorFirst) -> None:
        self.op: CallbackOperation[bytes] = begin(callback, incoming.hub).unref()
        incoming.has_reader = True
        incoming.begin_wait(self, size_bytes, False)
        self._incoming = incoming
        self._size_bytes = size_bytes
        self.op._stop = self._end
        incoming.hub.loop.call_soon(self.wake)  # a callback never comes inside the call

    def wake(self) -> None:
        """Look whether it can be settled."""
        if self.op.done():
            return
        try:
            data = self._incoming.take(self._size_bytes)
        except Exception as error:
            self._end()
            self.op._fail(error)
        else:
            if data is not None:
                self._end()
                self.op._succeed(data)

    def _end(self) -> None:
        self._incoming.end_wait(self)
