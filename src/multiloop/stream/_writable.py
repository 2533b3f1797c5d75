"""`Writable`: chunks that go, one batch after another, no faster than they are taken.

What lives here: the queue between whoever writes and a sink, its mark, and the end. What must not: where chunks go (a
subclass, or the functions that are given).

The rule of the mark: `write()` takes what it is given and answers False once `high_water_mark` is queued or being
written; who goes on all the same fills memory, who awaits `drain()` never does. 'drain' comes when the queue is empty.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from ..errors import ClosedError
from ..loop import AnyOperation, ErrorFirst, begin, check_callback
from ._base import Stream
from ._chunks import as_bytes, mark, size_of


class Writable(Stream):
    """A stream to write chunks to.

    Subclass it with `async def _write(self, chunk)`, or `async def _writev(self, chunks)` that takes all that waits, and
    `async def _final(self)` for what is to be done after the last one; or give these as functions, sync or async.
    `async with` ends it and waits until everything is written.
    Events: 'drain' · 'finish' (everything was written, after `end()`) · 'error' · 'close'.

    Args:
        high_water_mark: how much may wait: bytes (64 KiB), or objects (16).
        object_mode: chunks are any objects, not bytes.
        encoding: of text that is written.
        write, writev, final, destroy: functions to use in place of a subclass's methods.
    """

    def __init__(
        self,
        *,
        high_water_mark: int | None = None,
        object_mode: bool = False,
        encoding: str = "utf-8",
        write: Callable[[Any], Any] | None = None,
        writev: Callable[[Sequence[Any]], Any] | None = None,
        final: Callable[[], Any] | None = None,
        destroy: Callable[[BaseException | None], Any] | None = None,
    ) -> None:
        Stream.__init__(self, destroy=destroy)
        self._set_writable(high_water_mark, object_mode, encoding)
        self._use(_write=write, _writev=writev, _final=final)

    def _set_writable(self, high_water_mark: int | None, object_mode: bool, encoding: str) -> None:
        self._sink_objects = object_mode
        self.writable_high_water_mark = mark(high_water_mark, object_mode)
        self._encoding = encoding
        self._queue: list[Any] = []
        # Callbacks, each with how many chunks must be written first.
        self._told: deque[tuple[int, ErrorFirst]] = deque()
        self._accepted = self._written = 0  # chunks, since the beginning
        self.writable_length = 0
        """How much is queued or being written: bytes, or objects."""
        self._writing: asyncio.Future[Any] | None = None
        self._in_flight = (0, 0)  # chunks and size of what is being written
        self._corked = 0
        self.writable_need_drain = False
        """Whether the mark was reached: 'drain' will come."""
        self._drains: list[AnyOperation[None]] = []
        self.writable_ended = False
        """Whether `end()` was called."""
        self.writable_finished = False
        """Whether everything was written after `end()`."""

    # -- for subclasses --------------------------------------------------------------------------------------------
    def _write(self, chunk: Any) -> Any:
        """Write one chunk; may be async."""
        raise NotImplementedError(f"{type(self).__name__} needs _write or _writev")

    async def _writev(self, chunks: Sequence[Any]) -> None:
        """Write all that waits; by default one after another."""
        for chunk in chunks:
            if self.destroyed:
                return
            writing = self._write(chunk)
            if inspect.isawaitable(writing):
                await writing

    def _final(self) -> Any:
        """Everything is written; may be async."""

    def _start_write(self, chunks: list[Any]) -> asyncio.Future[Any]:
        """For subclasses of ours: start writing all of these."""
        return self._hub.loop.create_task(_settle(self._writev, chunks))

    # -- the writer's side -----------------------------------------------------------------------------------------
    def write(self, chunk: Any, callback: ErrorFirst | None = None) -> bool:
        """Queue a chunk. False: the mark is reached; `await drain()` or wait for 'drain' before the next.

        Never raises for a stream that failed: it returns False, and `drain()` raises why. `callback(error, None)` comes
        when this chunk is written. Raises ClosedError after `end()`, TypeError for what is neither bytes nor text.
        """
        if callback is not None:
            check_callback(callback)
        if self.writable_ended and not self.destroyed:
            raise ClosedError(f"{type(self).__name__}.write() after end()")
        if not self._sink_objects:
            chunk = as_bytes(chunk, self._encoding)
        if self.destroyed:
            if callback is not None:
                self._hub.loop.call_soon(self._hub.call, callback, self._gone(), None)
            return False
        self._queue.append(chunk)
        self._accepted += 1
        self.writable_length += 1 if self._sink_objects else size_of(chunk)
        if callback is not None:
            self._told.append((self._accepted, callback))
        self._kick()
        if self.writable_length < self.writable_high_water_mark:
            return True
        self.writable_need_drain = True
        return False

    def drain(self, callback: ErrorFirst | None = None) -> Any:
        """Wait until the mark allows writing again; at once when it does. Raises what the stream was destroyed with."""
        op = begin(callback, self._hub).unref()
        self._awaited = True
        if self.destroyed:
            self._hub.loop.call_soon(op._fail, self._gone())
        elif not self.writable_need_drain:
            self._hub.loop.call_soon(op._succeed, None)
        else:
            self._drains.append(op)
            op._stop = lambda: self._drains.remove(op)
        return op

    def end(self, chunk: Any = None, callback: ErrorFirst | None = None) -> None:
        """Write `chunk` if there is one; nothing follows. `finished(stream)` waits until everything is written.

        `callback(error, None)` comes then. Calling it again changes nothing.
        """
        check_callback(callback)
        if chunk is not None:
            self.write(chunk)
        if callback is not None:
            self._when_over(callback)
        if not self.writable_ended:
            self.writable_ended = True
            self._corked = 0
            self._kick()

    def cork(self) -> None:
        """Keep what is written together until `uncork()`: one `_writev` gets it all."""
        self._corked += 1

    def uncork(self) -> None:
        """Let go what `cork()` held; each cork needs one."""
        self._corked = max(0, self._corked - 1)
        self._kick()

    def _when_over(self, callback: ErrorFirst) -> None:
        def over(*_: Any) -> None:
            self.off("finish", over)
            self.off("close", over)
            self._hub.call(callback, None if self.writable_finished else self._gone(), None)

        if self.destroyed:
            self._hub.loop.call_soon(over)
        else:
            self.on("finish", over)
            self.on("close", over)

    # -- the sink's side -------------------------------------------------------------------------------------------
    def _kick(self) -> None:
        if self._writing is not None or self._corked or self.destroyed:
            return
        if self._queue:
            batch, self._queue = self._queue, []
            self._in_flight = (len(batch), self.writable_length)
            self._track(self._start_write(batch), self._wrote)
        elif self.writable_ended and not self.writable_finished:
            self._track(self._hub.loop.create_task(_settle(self._final)), self._finalized)

    def _track(self, work: asyncio.Future[Any], done: Callable[[], None]) -> None:
        self._writing = work
        self._hub.retain()
        work.add_done_callback(lambda work: self._worked(work, done))

    def _worked(self, work: asyncio.Future[Any], done: Callable[[], None]) -> None:
        self._writing = None
        try:
            error = asyncio.CancelledError("the sink was cancelled") if work.cancelled() else work.exception()
            if error is None:
                if not self.destroyed:
                    done()
            else:
                self.destroy(error)
        finally:
            self._hub.release()

    def _wrote(self) -> None:
        chunks, size = self._in_flight
        self._written += chunks
        self.writable_length -= size
        while self._told and self._told[0][0] <= self._written:
            self._hub.call(self._told.popleft()[1], None, None)
        self._kick()
        if not self.writable_length and self.writable_need_drain:
            self.writable_need_drain = False
            drains, self._drains = self._drains, []
            for op in drains:
                op._succeed(None)
            self._hub.call(self.emit, "drain")

    def _finalized(self) -> None:
        self.writable_finished = True
        self._hub.call(self.emit, "finish")
        self._maybe_close()

    def _maybe_close(self) -> None:
        """Nothing more can be written: let it close itself."""
        self.destroy()

    def _drop(self) -> None:
        super()._drop()
        self._queue.clear()
        self.writable_length = 0
        if self._writing is not None:
            self._writing.cancel()
        drains, self._drains = self._drains, []
        for op in drains:
            op._stop = None
            op._fail(self._gone())
        told, self._told = self._told, deque()
        for _, callback in told:
            self._hub.loop.call_soon(self._hub.call, callback, self._gone(), None)

    # -- async with ------------------------------------------------------------------------------------------------
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.destroy()
            await self.wait_closed()
            return
        if not self.destroyed:
            self.end()
        await self.wait_closed()
        if self.errored is not None or not self.writable_finished:
            raise self._gone()


async def _settle(function: Callable[..., Any], *args: Any) -> None:
    result = function(*args)
    if inspect.isawaitable(result):
        await result
