"""`watch`: being told what changes in a file or directory.

What lives here: `Watcher`, over the watchfiles library (inotify and its kin). What must not: what is done about it.

watchfiles waits on a thread of its own, one for each watcher and outside the offload, since it waits for ever. Changes
are gathered for some milliseconds, so what happens to one file at once is told once.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, overload

from .._limits import WATCH_GATHER_S, WATCH_MAX_QUEUE, WATCH_STEP_S
from ..errors import ClosedError, UsageError
from ..events import EventEmitter
from ..loop import AnyOperation, CallbackOperation, ErrorFirst, Handle, Operation, begin, hub
from ._glob import fits, parse_all
from ._paths import Path, nul_in, text_of

_KINDS = {1: ("rename", "added"), 2: ("change", "modified"), 3: ("rename", "deleted")}
Ignore = Callable[[str], bool] | Iterable[str] | str


class WatchEvent(NamedTuple):
    """One change."""

    event_type: str
    """Node's word: "rename" (it came or went) or "change"."""
    filename: str
    """Which file: from the watched directory on, or its name for a watched file."""
    change: str
    """ "added", "modified" or "deleted"."""
    path: str
    """The whole path."""


class Watcher(EventEmitter, Handle):
    """Watches until `close()`. Made by `watch`; keeps the program running unless `unref()`.

    `async for event in watcher` gives `WatchEvent`s; leaving the loop closes it. Events: 'ready' · 'change' (event_type,
    filename) · 'error' · 'close'. `await watcher.ready()` (or `async with`) waits until nothing can be missed any more.
    """

    def __init__(self, path: str, recursive: bool, ignore: Callable[[str], bool] | None, poll: float | None) -> None:
        Handle.__init__(self)
        self.path = path
        self._whole = os.path.realpath(path)
        self._recursive = recursive
        self._ignore = ignore
        self._poll_ms = None if poll is None else max(1, round(poll * 1000))
        self._events_waiting: deque[WatchEvent] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._ready: Operation[Watcher] = begin(None).unref()
        self._asked = False  # `ready()` was called
        self._awaited = False  # by somebody to whom errors are raised, that or an iteration
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self.closed = False
        self._opened(hub())
        threading.Thread(target=self._live, name="multiloop-watch", daemon=True).start()

    # -- the thread ------------------------------------------------------------------------------------------------
    def _live(self) -> None:
        from watchfiles._rust_notify import RustNotify

        try:
            os.stat(self.path)
            notify = RustNotify(
                [self._whole], False, self._poll_ms is not None, self._poll_ms or 0, self._recursive, True
            )
        except BaseException as error:
            if isinstance(error, OSError) and error.filename is None:
                error.filename = self.path
            self._tell(self._failed, error)
            return
        self._tell(self._is_ready)
        step_ms, gather_ms = round(WATCH_STEP_S * 1000), round(WATCH_GATHER_S * 1000)
        try:
            while True:
                changes = notify.watch(gather_ms, step_ms, 0, self._stop)
                if isinstance(changes, str):  # "stop"; "signal": the main thread has to see to that
                    if changes == "stop" or self._stop.is_set():
                        return
                    continue
                self._tell(self._changed, sorted(changes, key=_by_path))
        except BaseException as error:
            self._tell(self._failed, error)
        finally:
            notify.close()

    def _tell(self, function: Callable[..., Any], *args: Any) -> None:
        try:
            self._hub.loop.call_soon_threadsafe(self._hub.call, function, *args)
        except RuntimeError:  # the loop is closed: nobody listens any more
            self._stop.set()

    # -- the loop --------------------------------------------------------------------------------------------------
    def _is_ready(self) -> None:
        if not self.closed:
            self._ready._succeed(self)
            self._hub.call(self.emit, "ready")

    def _failed(self, error: BaseException) -> None:
        if self.closed:
            return
        self._error = error
        if self.listener_count("error") or not self._awaited:
            self._hub.call(self.emit, "error", error)  # without a listener: uncaught
        self.close()

    def _changed(self, changes: list[tuple[int, str]]) -> None:
        for kind, path in changes:
            if self.closed:
                return
            filename = os.path.relpath(path, self._whole)
            if filename == ".":
                filename = os.path.basename(self._whole)
            if self._ignore is not None and self._ignore(filename):
                continue
            event = WatchEvent(_KINDS[kind][0], filename, _KINDS[kind][1], path)
            self._events_waiting.append(event)
            if len(self._events_waiting) > WATCH_MAX_QUEUE:
                self._events_waiting.popleft()  # nobody iterates, or far too slowly: the newest tell more
            self._hub.call(self.emit, "change", event.event_type, event.filename)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    @overload
    def ready(self) -> Operation[Watcher]: ...
    @overload
    def ready(self, *, callback: ErrorFirst) -> CallbackOperation[Watcher]: ...
    def ready(self, *, callback: ErrorFirst | None = None) -> AnyOperation[Watcher]:
        """Wait until it watches. Raises FileNotFoundError and others that kept it from that."""
        told = None if callback is None else begin(callback, self._hub)
        self._asked = self._awaited = True
        if self.closed:
            self._never_ready()
        if told is None:
            return self._ready
        self._ready.add_done_callback(partial(_pass_on, told))
        return told

    def _never_ready(self) -> None:
        if self._asked and not self._ready.done():  # what nobody has asked for cannot be missed
            self._ready._fail(self._error or ClosedError(f"the watcher of {self.path!r} was closed"))

    def close(self) -> None:
        """Stop watching. Twice is fine; an iteration ends."""
        if self.closed:
            return
        self.closed = True
        self._stop.set()
        self._never_ready()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        self._hub.loop.call_soon(self._hub.call, self.emit, "close")
        self._ended()

    def _shutdown(self) -> None:
        self.remove_all_listeners()  # the program ends: nobody is told any more
        self.close()

    def __await__(self) -> Generator[Any, None, Watcher]:
        return self.ready().__await__()

    def __aiter__(self) -> _Changes:
        self._awaited = True
        return _Changes(self)

    async def _next(self) -> WatchEvent:
        while not self._events_waiting:
            if self._error is not None:
                raise self._error
            if self.closed:
                raise StopAsyncIteration
            if self._waiter is not None and not self._waiter.cancelled():
                raise UsageError("two tasks iterate over one Watcher: make another")
            waiter = self._waiter = self._hub.loop.create_future()
            try:
                await waiter
            finally:
                if self._waiter is waiter:  # else this one was cancelled, and another waits by now
                    self._waiter = None
        return self._events_waiting.popleft()

    async def __aenter__(self) -> Watcher:
        return await self.ready()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Changes:
    """What `async for` takes from. Leaving the loop drops it, and the watcher is closed at once."""

    __slots__ = ("_watcher",)

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def __aiter__(self) -> _Changes:
        return self

    async def __anext__(self) -> WatchEvent:
        return await self._watcher._next()  # awaited here, so that this object lives as long

    def __del__(self) -> None:
        if not self._watcher._hub.loop.is_closed():
            self._watcher.close()


def _by_path(change: tuple[int, str]) -> tuple[str, int]:
    return change[1], change[0]


def watch(
    path: Path,
    *,
    recursive: bool = False,
    persistent: bool = True,
    ignore: Ignore | None = None,
    poll: float | None = None,
    listener: Callable[[str, str], Any] | None = None,
) -> Watcher:
    """Watch a file or directory: `async for event in fs.watch("."): print(event.event_type, event.filename)`.

    Starts at once; errors (no such file) come out of the iteration, `ready()` or 'error'. What happens within some
    milliseconds to one file is one event or two, in the order of the paths.

    Args:
        recursive: what happens in directories below, too.
        persistent: False: does not keep the program running (as `unref()`).
        ignore: patterns as in `glob`, or a function of the file name that says True for what not to tell.
        poll: look every so many seconds, for file systems that do not tell (network mounts).
        listener: called with event_type and filename, as `on("change", ...)`.
    """
    if (problem := nul_in(path)) is not None:
        raise problem
    watcher = Watcher(text_of(path), recursive, _ignoring(ignore), poll)
    if not persistent:
        watcher.unref()
    if listener is not None:
        watcher.on("change", listener)
    return watcher


def _ignoring(ignore: Ignore | None) -> Callable[[str], bool] | None:
    if ignore is None or callable(ignore):
        return ignore
    patterns = parse_all([ignore] if isinstance(ignore, str) else list(ignore))
    return lambda filename: any(fits(each, filename) for each in patterns)


def _pass_on(told: AnyOperation[Watcher], ready: asyncio.Future[Watcher]) -> None:
    if ready.cancelled():
        told._fail(asyncio.CancelledError())
    elif (error := ready.exception()) is not None:
        told._fail(error)
    else:
        told._succeed(ready.result())
