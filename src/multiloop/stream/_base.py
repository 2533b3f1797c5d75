"""What every stream has: a beginning, one end, and an error that is never lost.

What lives here: `Stream`: `destroy`, 'error', 'close', and who has seen the error. What must not: chunks.

Life: made → destroyed (`destroy()`, by hand, by an error or by itself at the end) → its resource is freed → 'error' if
there was one → 'close', once. An error goes to the 'error' listeners. Without any it is like a future's on a stream that
somebody awaits (iterates, reads, drains, gives to `pipeline`): the next use raises it, and when nobody ever looks, it is
uncaught once the stream is dropped. On a stream that nobody awaits it is uncaught at once, as in Node.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Self, overload

from ..errors import PrematureClose
from ..events import EventEmitter, tell_of_close
from ..loop import CallbackOperation, ErrorFirst, Operation, begin, hub


class Stream(EventEmitter):
    """The base of Readable, Writable and Transform."""

    def __init__(self, *, destroy: Callable[[BaseException | None], Any] | None = None) -> None:
        self._hub = hub()
        self.destroyed = False
        """Whether it accepts and gives nothing any more."""
        self.closed = False
        """Whether its resource is freed, and 'close' emitted."""
        self.errored: BaseException | None = None
        """What it was destroyed with."""
        self._awaited = False  # by a coroutine, to which errors are raised
        self._seen = False  # somebody was told of the error
        self._over: Operation[None] = begin(None, self._hub).unref()  # settled with 'close'
        self._use(_destroy=destroy)

    def _use(self, **functions: Callable[..., Any] | None) -> None:
        """Put functions that were given in the place of methods."""
        for name, function in functions.items():
            if function is not None:
                setattr(self, name, function)

    def destroy(self, error: BaseException | None = None) -> Self:
        """End it at once; what is buffered is dropped. Emits 'error' (if one is given), then 'close'.

        Safe at any time, also twice: then nothing changes.
        """
        if not self.destroyed:
            self.destroyed = True
            self.errored = error
            self._hub.retain()
            self._drop()
            self._hub.loop.call_soon(self._free)
        return self

    def _destroy(self, error: BaseException | None) -> Any:
        """For subclasses: free the resource. May return an awaitable. What it raises is the stream's error."""

    def _drop(self) -> None:
        """For the two sides: stop the work in flight, drop what is buffered, wake who waits."""

    def _free(self) -> None:
        try:
            freeing = self._destroy(self.errored)
        except Exception as error:
            self.errored = self.errored or error
            freeing = None
        if inspect.isawaitable(freeing):
            self._hub.adopt(self._free_later(freeing))
        else:
            self._tell_closed()

    async def _free_later(self, freeing: Awaitable[Any]) -> None:
        try:
            await freeing
        except Exception as error:
            self.errored = self.errored or error
        self._tell_closed()

    def _tell_closed(self) -> None:
        self.closed = True
        error = self.errored
        try:
            if error is None:
                self._over._succeed(None)
            else:
                self._over._fail(error)
                if self.listener_count("error") or not (self._awaited or self._seen):
                    self._seen = True
                    self._hub.call(self.emit, "error", error)  # without a listener: uncaught
                if self._seen:
                    self._over.exception()  # without this, it would be reported when the stream is dropped
            self._hub.call(self.emit, "close")
        finally:
            self._hub.release()

    def _gone(self) -> BaseException:
        """The error to raise for a use that came too late; whoever gets it has seen it."""
        if self.errored is None:
            return PrematureClose(f"{type(self).__name__} was destroyed before it ended")
        self._seen = True
        if self.closed:
            self._over.exception()
        return self.errored

    @overload
    def wait_closed(self) -> Coroutine[Any, Any, None]: ...
    @overload
    def wait_closed(self, *, callback: ErrorFirst) -> CallbackOperation[None]: ...
    def wait_closed(self, *, callback: ErrorFirst | None = None) -> Coroutine[Any, Any, None] | CallbackOperation[None]:
        """Wait for 'close', whatever it ended with. It does not keep the program running."""
        if callback is None:
            return self._wait_closed()
        return tell_of_close(self, self.closed, self._hub, callback)

    async def _wait_closed(self) -> None:
        while not self.closed:
            # A future of one's own: cancelling the one who waits must not settle the stream's.
            waiter: asyncio.Future[None] = self._hub.loop.create_future()
            self._over.add_done_callback(lambda _, waiter=waiter: waiter.done() or waiter.set_result(None))  # type: ignore[misc]
            await waiter

    async def __aenter__(self) -> Self:
        self._awaited = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.destroy()
        await self.wait_closed()
