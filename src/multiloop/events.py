"""Events: `EventEmitter`, `once()` and `on()`.

What lives here: Node's emitter, for users and as the base of our servers, sockets, children, workers and ports.
What must not: the loop. An emitter with plain listeners needs none.

Rules
* `emit` calls the listeners synchronously, in the order in which they were added, over the tuple that was there when it
  began: a listener added meanwhile is not called, one removed meanwhile still is (E1).
* An exception in a listener leaves `emit`, as in Node, and the listeners behind it are not called. Code of ours that
  emits from the loop does `hub.call(emitter.emit, name, *args)`: the exception then reaches `on_uncaught`.
* A coroutine that a listener returns is awaited and counted by the hub; when it fails, its exception is emitted as
  'error'. A failing 'error' listener is uncaught, never emitted again (E5).
* 'error' with no listener raises its exception out of `emit` (E3). `error_monitor` listeners see it first and do not
  count as listeners.
* Subclasses need not call `__init__`; they may override `_listeners_changed` to start and stop with their listeners.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Coroutine, Hashable, Iterable
from types import TracebackType
from typing import Any, ClassVar, Final, Self, TypeVar, overload

from ._limits import MAX_LISTENERS
from .errors import MaxListenersExceededWarning, UnhandledError, UsageError
from .loop import AnyOperation, CallbackOperation, ErrorFirst, Hub, Operation, begin, hub

Listener = Callable[..., Any]
L = TypeVar("L", bound=Listener)


class _ErrorMonitor:
    def __repr__(self) -> str:
        return "events.error_monitor"


error_monitor: Final = _ErrorMonitor()
"""The event whose listeners see every 'error' first, without handling it."""


class _Once:
    """What `once` puts in the place of a listener: removes itself, then calls the listener."""

    __slots__ = ("_emitter", "_fired", "_name", "listener")

    def __init__(self, emitter: EventEmitter, name: Hashable, listener: Listener) -> None:
        self._emitter = emitter
        self._name = name
        self._fired = False
        self.listener = listener

    def __call__(self, *args: Any) -> Any:
        if self._fired:  # an emit inside this emit ran it already
            return None
        self._fired = True
        self._emitter._remove(self._name, self)
        return self.listener(*args)


def _original(listener: Listener) -> Listener:
    return listener.listener if isinstance(listener, _Once) else listener


class EventEmitter:
    """Listeners by name: `on`, `once`, `off`, `emit`. A name is anything hashable.

    Emits 'new_listener' (name, listener) before one is added and 'remove_listener' after one was removed.
    More than `default_max_listeners` for one name (10; `set_max_listeners` for one emitter) warn once: usually a leak.
    """

    default_max_listeners: ClassVar[int] = MAX_LISTENERS

    # Class-level defaults: a subclass needs no __init__, and an emitter nobody listens to holds nothing.
    _events: dict[Any, tuple[Listener, ...]] | None = None
    _max_listeners: int | None = None
    _warned: frozenset[Any] = frozenset()

    # -- emitting --------------------------------------------------------------------------------------------------
    def emit(self, name: Hashable, /, *args: Any) -> bool:
        """Call the listeners of `name` with `args`; whether there were any.

        Raises what a listener raised. For 'error' without a listener: the exception that is its first argument, or
        UnhandledError round another value.
        """
        events = self._events
        if name == "error":
            if events is not None and (monitors := events.get(error_monitor)) is not None:
                self._call(error_monitor, monitors, args)
            if events is None or "error" not in events:
                raise _unhandled(args)
        if events is None or (listeners := events.get(name)) is None:
            return False
        for listener in listeners:
            result = listener(*args)
            # The three commonest results first: an isinstance against Coroutine costs more than a whole call.
            if result is not None and result is not True and result is not False and isinstance(result, Coroutine):
                self._adopt(name, args, result)
        return True

    def _call(self, name: Hashable, listeners: tuple[Listener, ...], args: tuple[Any, ...]) -> None:
        for listener in listeners:
            result = listener(*args)
            if isinstance(result, Coroutine):
                self._adopt(name, args, result)

    def _adopt(self, name: Hashable, args: tuple[Any, ...], coroutine: Coroutine[Any, Any, Any]) -> None:
        try:
            of = hub()
        except RuntimeError:
            coroutine.close()
            raise UsageError(f"an async listener of {name!r} needs a running loop: emit inside multiloop.run") from None
        if name == "error" or name is error_monitor:
            of.adopt(coroutine)
        else:
            of.adopt(self._rejecting(name, args, coroutine))

    async def _rejecting(self, name: Hashable, args: tuple[Any, ...], coroutine: Coroutine[Any, Any, Any]) -> None:
        try:
            await coroutine
        except Exception as error:
            self._rejected(error, name, args)

    def _rejected(self, error: Exception, name: Hashable, args: tuple[Any, ...]) -> None:
        """For subclasses: what to do when the async listener that got `args` for `name` has failed."""
        self.emit("error", error)  # raises it again when nobody listens: then the hub takes it to on_uncaught

    def _emit_error_if_heard(self, error: BaseException) -> bool:
        """For subclasses: emit 'error' unless nobody listens; whether anybody did. Monitors are called either way."""
        events = self._events or {}
        if "error" in events:
            return self.emit("error", error)
        if error_monitor in events:
            self._call(error_monitor, events[error_monitor], (error,))
        return False

    # -- adding ----------------------------------------------------------------------------------------------------
    @overload
    def on(self, name: Hashable, listener: Listener, /) -> Self: ...
    @overload
    def on(self, name: Hashable, /) -> Callable[[L], L]: ...
    def on(self, name: Hashable, listener: Listener | None = None, /) -> Any:
        """Call `listener` for every `emit(name)`; returns the emitter. `@emitter.on(name)` decorates one."""
        if listener is None:
            return self._decorator(name, wrap=False)
        return self._add(name, _checked(listener), prepend=False)

    @overload
    def once(self, name: Hashable, listener: Listener, /) -> Self: ...
    @overload
    def once(self, name: Hashable, /) -> Callable[[L], L]: ...
    def once(self, name: Hashable, listener: Listener | None = None, /) -> Any:
        """As `on`, for the next emit only: the listener is removed before it is called."""
        if listener is None:
            return self._decorator(name, wrap=True)
        return self._add(name, _Once(self, name, _checked(listener)), prepend=False)

    def add_listener(self, name: Hashable, listener: Listener, /) -> Self:
        """The same as `on`."""
        return self.on(name, listener)

    def prepend_listener(self, name: Hashable, listener: Listener, /) -> Self:
        """As `on`, but before those that are there."""
        return self._add(name, _checked(listener), prepend=True)

    def prepend_once_listener(self, name: Hashable, listener: Listener, /) -> Self:
        """As `once`, but before those that are there."""
        return self._add(name, _Once(self, name, _checked(listener)), prepend=True)

    def _decorator(self, name: Hashable, *, wrap: bool) -> Callable[[L], L]:
        def decorate(listener: L) -> L:
            _checked(listener)
            self._add(name, _Once(self, name, listener) if wrap else listener, prepend=False)
            return listener

        return decorate

    def _add(self, name: Hashable, listener: Listener, *, prepend: bool) -> Self:
        if self._events is not None and "new_listener" in self._events:
            self.emit("new_listener", name, _original(listener))
        events = self._events
        if events is None:
            events = self._events = {}
        before = events.get(name, ())
        now = events[name] = (listener, *before) if prepend else (*before, listener)
        self._listeners_changed(name, len(now))
        limit = self.default_max_listeners if self._max_listeners is None else self._max_listeners
        if len(now) > limit > 0 and name not in self._warned:
            self._warned |= {name}
            warnings.warn(MaxListenersExceededWarning(self, name, len(now)), stacklevel=3)
        return self

    # -- removing --------------------------------------------------------------------------------------------------
    def off(self, name: Hashable, listener: Listener, /) -> Self:
        """Remove the listener (the latest added, if it was added more than once); unknown ones are ignored."""
        for held in reversed((self._events or {}).get(name, ())):
            if held == listener or _original(held) == listener:
                self._remove(name, held)
                break
        return self

    def remove_listener(self, name: Hashable, listener: Listener, /) -> Self:
        """The same as `off`."""
        return self.off(name, listener)

    def remove_all_listeners(self, name: Hashable = None, /) -> Self:
        """Remove the listeners of one name, or of all names when none (None) is given."""
        if name is not None:
            for held in reversed((self._events or {}).get(name, ())):
                self._remove(name, held)
            return self
        for each in self.event_names():
            if each != "remove_listener":  # those go last: they are told of all the others
                self.remove_all_listeners(each)
        return self.remove_all_listeners("remove_listener")

    def _remove(self, name: Hashable, held: Listener) -> None:
        events = self._events
        listeners = () if events is None else events.get(name, ())
        for index in range(len(listeners) - 1, -1, -1):
            if listeners[index] is held:
                break
        else:
            return
        assert events is not None
        left = listeners[:index] + listeners[index + 1 :]
        if left:
            events[name] = left
        else:
            del events[name]
        self._listeners_changed(name, len(left))
        if "remove_listener" in events:
            self.emit("remove_listener", name, _original(held))

    def _listeners_changed(self, name: Hashable, count: int) -> None:
        """For subclasses: called after a listener of `name` was added or removed, with how many there are now."""

    # -- looking ---------------------------------------------------------------------------------------------------
    def listener_count(self, name: Hashable, listener: Listener | None = None, /) -> int:
        """How many listeners `name` has; with `listener`, how many times that one."""
        held = (self._events or {}).get(name, ())
        return len(held) if listener is None else sum(_original(each) == listener for each in held)

    def listeners(self, name: Hashable, /) -> list[Listener]:
        """A copy of the listeners of `name`, as they were given."""
        return [_original(held) for held in (self._events or {}).get(name, ())]

    def raw_listeners(self, name: Hashable, /) -> list[Listener]:
        """A copy of what is called for `name`: `once` listeners in wrappers, whose `.listener` is the original."""
        return list((self._events or {}).get(name, ()))

    def event_names(self) -> list[Any]:
        """The names that have listeners, in the order in which they got their first."""
        return list(self._events or {})

    def set_max_listeners(self, count: int, /) -> Self:
        """Warn above this many listeners of one name; 0 never warns."""
        if count < 0:
            raise UsageError(f"set_max_listeners({count!r}): a whole number, 0 for no limit")
        self._max_listeners = count
        return self

    def get_max_listeners(self) -> int:
        """How many listeners of one name are allowed before the warning; 0 is no limit."""
        return self.default_max_listeners if self._max_listeners is None else self._max_listeners


def _checked(listener: Any) -> Listener:
    if not callable(listener):
        raise TypeError(f"a listener must be callable, not {type(listener).__name__}")
    return listener  # type: ignore[no-any-return]


def _unhandled(args: tuple[Any, ...]) -> BaseException:
    if args and isinstance(args[0], BaseException):
        return args[0]
    return UnhandledError(args[0] if args else None)


# --- waiting for events -----------------------------------------------------------------------------------------------
@overload
def once(emitter: EventEmitter, name: Hashable) -> Operation[list[Any]]: ...
@overload
def once(emitter: EventEmitter, name: Hashable, *, callback: ErrorFirst) -> CallbackOperation[list[Any]]: ...
def once(emitter: EventEmitter, name: Hashable, *, callback: ErrorFirst | None = None) -> AnyOperation[list[Any]]:
    """Wait for the next `name`: `args = await events.once(server, "close")`, the list of what was emitted.

    The listeners are there when this returns and are gone however it ends. Raises the exception of an 'error' that
    comes first (unless 'error' is what is waited for). Like a listener, it does not keep `multiloop.run` going.
    """
    op = begin(callback)
    op.unref()

    def happened(*args: Any) -> None:
        forget()
        op._succeed(list(args))

    def failed(*args: Any) -> None:
        forget()
        op._fail(_unhandled(args))

    def forget() -> None:
        emitter.off(name, happened)
        emitter.off("error", failed)

    op._stop = forget
    emitter.on(name, happened)
    if name != "error":
        emitter.on("error", failed)
    return op


def tell_of_close(emitter: EventEmitter, is_closed: bool, of: Hub, callback: ErrorFirst) -> CallbackOperation[None]:
    """Call back once 'close' has come, or soon where it has. Keeps nothing running; for emitters of ours."""
    op = begin(callback, of)
    if is_closed:
        of.loop.call_soon(op._succeed, None)
        return op

    def told(*_: Any) -> None:
        op._succeed(None)

    emitter.once("close", told)
    op._stop = lambda: emitter.off("close", told)
    return op.unref()


class _Events:
    """The state behind `on()`: what was emitted and not yet taken, and the one who waits."""

    __slots__ = ("buffer", "ended", "error", "forget", "high", "low", "paused", "source", "waiter")

    def __init__(self, source: EventEmitter, high: int | None, low: int) -> None:
        self.source = source
        self.buffer: deque[list[Any]] = deque()
        self.high = high
        self.low = low
        self.paused = False
        self.ended = False
        self.error: BaseException | None = None
        self.waiter: Operation[None] | None = None
        self.forget: Callable[[], None] = _nothing

    def happened(self, *args: Any) -> None:
        self.buffer.append(list(args))
        if self.high is not None and not self.paused and len(self.buffer) >= self.high:
            self.paused = True
            self.source.pause()  # type: ignore[attr-defined]
        self.wake()

    def failed(self, *args: Any) -> None:
        self.error = _unhandled(args)
        self.closed()

    def closed(self, *_: Any) -> None:
        self.ended = True
        self.forget()
        self.wake()

    def wake(self) -> None:
        if self.waiter is not None:
            self.waiter._succeed(None)

    def take(self) -> list[Any]:
        args = self.buffer.popleft()
        if self.paused and len(self.buffer) <= self.low:
            self.paused = False
            self.source.resume()  # type: ignore[attr-defined]
        return args


def _nothing() -> None:
    return None


class EventIterator:
    """What `on()` returns: an async iterator over argument lists. `async with` or `aclose()` ends it early."""

    # The emitter holds the state, never this object: leaving an `async for` drops it, and __del__ takes the
    # listeners away at once.
    __slots__ = ("_state",)

    def __init__(self, state: _Events) -> None:
        self._state = state

    def __aiter__(self) -> EventIterator:
        return self

    async def __anext__(self) -> list[Any]:
        state = self._state
        while not state.buffer:
            if state.error is not None:
                error, state.error = state.error, None
                raise error
            if state.ended:
                raise StopAsyncIteration
            if state.waiter is not None and not state.waiter.cancelled():
                raise UsageError("events.on(): another task already waits for the next event of this iterator")
            waiter = state.waiter = begin().unref()
            try:
                await waiter
            finally:
                if state.waiter is waiter:  # else this one was cancelled, and another waits by now
                    state.waiter = None
        return state.take()

    async def aclose(self) -> None:
        """Remove the listeners and end the iteration; what was not taken is dropped."""
        self._state.buffer.clear()
        self._state.closed()

    async def __aenter__(self) -> EventIterator:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        self._state.forget()


def on(
    emitter: EventEmitter,
    name: Hashable,
    *,
    close: Iterable[Hashable] = (),
    high_water_mark: int | None = None,
    low_water_mark: int = 1,
) -> EventIterator:
    """Iterate over events: `async for args in events.on(emitter, name)`.

    Listens at once and keeps what comes between two turns of the loop body. Ends after one of the events in `close`;
    raises the exception of an 'error' after what came before it. The listeners go with the iterator: leaving the loop
    drops it, unless it has a name; then use `async with`, or `aclose()`.

    Args:
        high_water_mark: call `emitter.pause()` when this many wait, and `resume()` when `low_water_mark` are left.
    """
    if high_water_mark is not None and not (hasattr(emitter, "pause") and hasattr(emitter, "resume")):
        raise UsageError(f"high_water_mark needs an emitter with pause() and resume(): {type(emitter).__name__}")
    state = _Events(emitter, high_water_mark, low_water_mark)
    listeners: list[tuple[Hashable, Listener]] = [(name, state.happened)]
    if name != "error":
        listeners.append(("error", state.failed))
    listeners += [(each, state.closed) for each in close]

    def forget() -> None:
        state.forget = _nothing
        for each, listener in listeners:
            emitter.off(each, listener)

    for each, listener in listeners:
        emitter.on(each, listener)
    state.forget = forget
    return EventIterator(state)
