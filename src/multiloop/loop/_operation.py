"""One asynchronous operation: started, awaitable, cancellable, counted.

What lives here: `Operation` (a future: awaiting it costs no task), `CallbackOperation` (the same surface for
`callback=`, with no future inside) and the two ways to make one: `begin` for code that finishes it itself and `launch`
for a coroutine. What must not: the work.

Guarantees
* The work has started when the function returns; nothing waits for `await`.
* `cancel()` stops the work where that is possible and always frees what it holds: a result that comes too late goes to
  the `discard` function that the maker gave.
* An operation that fails and is never awaited goes to `on_uncaught` (under `run`; else to the loop's handler).
* A callback gets `(error, None)` or `(None, value)`, later, never inside the call that started the operation. What cannot
  be called is refused by that call, with a TypeError, before anything has begun.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar, overload

from ._hub import Hub, hub

T = TypeVar("T")


class _HubOfLoop:
    """Finds an operation's hub when it is asked for: most operations end without asking."""

    def __get__(self, op: Operation[Any], owner: type[Any]) -> Hub:
        return op.get_loop()._multiloop_hub  # type: ignore[attr-defined,no-any-return]


class Operation(asyncio.Future[T]):
    """A started asynchronous operation. Await it; `async with` and `async for` work where they do with its result."""

    # Class-level defaults, and no slots: an operation that nobody touches writes none of its own. It counts in
    # `Hub.refs` while it is pending and `_counted`; who makes one without `begin` retains the hub himself.
    _hub: Any = _HubOfLoop()
    _counted: bool = True
    _stop: Callable[[], Any] | None = None
    _entered: Any = None

    def cancel(self, msg: Any = None) -> bool:
        """Cancel: the awaiter gets CancelledError, the work stops where it can. False when it had already ended."""
        if not super().cancel(msg):
            return False
        stop = self._stop
        self._settled()
        if stop is not None:
            stop()
        return True

    def ref(self) -> Operation[T]:
        """Let this keep the program running (the default)."""
        if not self._counted and not self.done():
            self._counted = True
            self._hub.retain()
        return self

    def unref(self) -> Operation[T]:
        """Let the program end although this is in flight."""
        if self._counted and not self.done():
            self._counted = False
            self._hub.release()
        return self

    @property
    def has_ref(self) -> bool:
        """Whether this keeps the program running."""
        return self._counted and not self.done()

    async def __aenter__(self) -> Any:
        resource: Any = await self
        self._entered = resource
        return await resource.__aenter__()

    async def __aexit__(self, *exc: Any) -> Any:
        return await self._entered.__aexit__(*exc)

    async def __aiter__(self) -> AsyncGenerator[Any, None]:
        """Iterate over what the result gives: `async for name in fs.readdir(path)`."""
        result: Any = await self
        if hasattr(result, "__aiter__"):
            async for item in result:
                yield item
        else:
            for item in result:
                yield item

    # -- for the one who does the work -----------------------------------------------------------------------------
    def _settled(self) -> None:
        """Called once, right after it was settled: it counts no more."""
        self._stop = None
        if self._counted:
            self._hub.release()

    def _succeed(self, value: T) -> bool:
        """Settle with a value; False when it was cancelled before (the caller then frees the value)."""
        if self.done():
            return False
        self.set_result(value)
        self._settled()
        return True

    def _fail(self, error: BaseException) -> None:
        """Settle with an error; ignored when it was cancelled before."""
        if self.done():
            return
        if isinstance(error, asyncio.CancelledError):
            super().cancel()
        elif isinstance(error, StopIteration):  # a future refuses it: it would end the awaiting coroutine silently
            wrapped = RuntimeError("the operation raised StopIteration")
            wrapped.__cause__ = error
            self.set_exception(wrapped)
        else:
            self.set_exception(error)
        self._settled()


class ResourceOperation(Operation[T]):
    """An operation whose result must be freed when nobody takes it: its awaiter was cancelled just as it came.

    The future is done then and cannot be cancelled any more, and the task that awaits it is thrown CancelledError
    instead of being given the result.
    """

    _discard: Callable[[T], Any]
    _taken: bool = False

    def __await__(self) -> Generator[Any, None, T]:
        try:
            result = yield from super().__await__()
        except BaseException:
            if not self._taken and self.done() and not self.cancelled() and self.exception() is None:
                self._taken = True
                self._discard(self.result())
            raise
        self._taken = True
        return result


class CallbackOperation(Generic[T]):
    """A started operation that reports to an error-first callback. `cancel`, `ref` and `unref` as `Operation`."""

    __slots__ = ("__weakref__", "_callback", "_context", "_counted", "_done", "_hub", "_stop")

    def __init__(self, of: Hub, callback: Callable[[BaseException | None, T | None], Any]) -> None:
        if not callable(callback):
            check_callback(callback)  # type: ignore[unreachable] # not every caller is typed
        self._hub = of
        self._callback = callback
        self._context = contextvars.copy_context()
        self._done = False
        self._counted = True
        self._stop: Callable[[], Any] | None = None
        of.refs += 1

    def done(self) -> bool:
        """Whether the callback was called, or the operation cancelled."""
        return self._done

    def cancel(self, msg: Any = None) -> bool:
        """Cancel: the callback gets asyncio.CancelledError, the work stops where it can. False when it had ended."""
        if self._done:
            return False
        stop = self._stop
        if stop is not None:
            stop()
        if not self._done:
            self._done = True
            self._hub.loop.call_soon(self._report, asyncio.CancelledError(*([msg] if msg else [])), None)
        return True

    def ref(self) -> CallbackOperation[T]:
        """Let this keep the program running (the default)."""
        if not self._counted and not self._done:
            self._counted = True
            self._hub.retain()
        return self

    def unref(self) -> CallbackOperation[T]:
        """Let the program end although this is in flight."""
        if self._counted:
            self._counted = False
            self._hub.release()
        return self

    @property
    def has_ref(self) -> bool:
        """Whether this keeps the program running."""
        return self._counted

    def _report(self, error: BaseException | None, value: T | None) -> None:
        self._stop = None
        try:
            self._context.run(self._hub.call, self._callback, error, value)
        finally:
            if self._counted:
                self._counted = False
                self._hub.release()

    def _succeed(self, value: T) -> bool:
        """Call the callback with a value; False when it was cancelled before (the caller then frees the value)."""
        if self._done:
            return False
        self._done = True
        self._report(None, value)
        return True

    def _fail(self, error: BaseException) -> None:
        """Call the callback with an error; ignored when it was cancelled before."""
        if not self._done:
            self._done = True
            self._report(error, None)


AnyOperation = Operation[T] | CallbackOperation[T]
ErrorFirst = Callable[[BaseException | None, Any], Any]


Discard = Callable[[Any], Any]


def check_callback(callback: Any) -> None:
    """Raise TypeError for a `callback=` that cannot be called; for who keeps one without an operation, or begins later."""
    if callback is not None and not callable(callback):
        raise TypeError(f"callback={callback!r}: a function of (error, value), or None to await the result")


@overload
def begin(callback: None = None, of: Hub | None = None, *, discard: Discard | None = None) -> Operation[Any]: ...
@overload
def begin(callback: ErrorFirst, of: Hub | None = None, *, discard: Discard | None = None) -> CallbackOperation[Any]: ...
@overload
def begin(
    callback: ErrorFirst | None, of: Hub | None = None, *, discard: Discard | None = None
) -> AnyOperation[Any]: ...
def begin(
    callback: ErrorFirst | None = None, of: Hub | None = None, *, discard: Discard | None = None
) -> AnyOperation[Any]:
    """Make an operation that the caller settles with `_succeed` or `_fail` from the loop's thread, later.

    `discard` frees a result that the awaiter was cancelled too early to take, and too late to stop. Raises TypeError for a
    callback that cannot be called: begin before anything else is done.
    """
    if of is None:
        of = hub()
    if callback is not None:
        return CallbackOperation(of, callback)
    of.refs += 1
    if discard is None:
        return Operation(loop=of.loop)
    made: ResourceOperation[Any] = ResourceOperation(loop=of.loop)
    made._discard = discard
    return made


def launch(
    coroutine: Coroutine[Any, Any, T],
    callback: ErrorFirst | None = None,
    *,
    discard: Callable[[T], Any] | None = None,
) -> Any:
    """Start a coroutine as an operation, at once. `discard` frees a result that comes after a cancel."""
    try:
        made = begin(callback, discard=discard)
    except BaseException:
        coroutine.close()  # it will never run
        raise
    of: Hub = made._hub
    task = of.loop.create_task(coroutine)
    stopped = False

    def stop() -> None:
        nonlocal stopped
        stopped = True
        of.retain()  # the operation is over; its task still frees what it holds
        task.cancel()

    def finished(task: asyncio.Task[T]) -> None:
        if task.cancelled():
            made._fail(asyncio.CancelledError())
        elif (error := task.exception()) is not None:
            made._fail(error)
        elif not made._succeed(task.result()) and discard is not None:
            discard(task.result())
        if stopped:
            of.release()

    task.add_done_callback(finished)
    made._stop = stop
    return made
