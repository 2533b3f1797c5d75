"""What multiloop knows of one event loop: the count of open handles, the queue of next_tick, where errors go.

What lives here: `Hub` (one for each loop, found with `hub()`), `Handle` (the base of all that keeps a program running).
What must not: I/O, threads, signals; starting or ending a loop is `_run`'s.

Rules
* Every callback of a user is called through `Hub.call`: errors go to one place, a coroutine it returns is awaited and
  counted, and `next_tick` is drained after it (Node's order L4, for our callbacks).
* `refs` counts what keeps `run` going: open, ref'd handles and operations in flight. Nobody else writes it than
  `retain`, `release` and their inlined copies in `_operation`, `_offload` and `_completions`.
* Works on any asyncio loop, also one that `run` did not start: then errors go to the loop's exception handler.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._completions import Completions
    from ._vigil import Vigil

Callback = Callable[..., Any]

_uncaught_handler: Callable[[BaseException], Any] | None = None
_on_new_hub: list[Callable[[Hub], None]] = []


def on_uncaught(handler: Callable[[BaseException], Any] | None) -> Callable[[BaseException], Any] | None:
    """Set what is called with an exception that nobody caught, in this process; returns the handler before.

    Such exceptions come from callbacks, listeners and operations that failed and were never awaited. Without a handler
    `multiloop.run` ends with that exception (traceback, exit code 1), as Node does. With one, the program goes on.
    A handler that raises ends `run` with its own exception.
    """
    global _uncaught_handler
    before, _uncaught_handler = _uncaught_handler, handler
    return before


class Hub:
    """The state that multiloop keeps for one event loop. Made by `hub()`, never by users."""

    __slots__ = (
        "__weakref__",
        "_draining",
        "_tick_wakeup",
        "completions",
        "fatal",
        "handles",
        "is_ending",
        "loop",
        "main_counts",
        "on_idle",
        "refs",
        "tasks",
        "ticks",
        "vigil",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.refs = 0
        self.main_counts = True
        self.is_ending = False  # set by run: the program ends, everything is being closed
        self.handles: set[Handle] = set()
        self.tasks: set[asyncio.Task[Any]] = set()
        self.ticks: deque[tuple[Callback, tuple[Any, ...], contextvars.Context]] = deque()
        self.on_idle: Callable[[], None] | None = None  # set by run: called when refs falls to 0
        self.fatal: Callable[[BaseException], None] | None = None  # set by run: ends the program
        self.completions: Completions | None = None  # made by the offload on first use
        self.vigil: Vigil | None = None  # made by the first port that gets a message
        self._tick_wakeup = False
        self._draining = False

    # -- counting --------------------------------------------------------------------------------------------------
    def retain(self) -> None:
        """Count one more thing that keeps `run` going."""
        self.refs += 1

    def release(self) -> None:
        """Count one less; the last one lets `run` end."""
        self.refs -= 1
        if not self.refs and self.on_idle is not None:
            self.on_idle()

    def let_main_go(self) -> None:
        """The program may end although its main function has not returned: that is cancelled when nothing else is left."""
        self.main_counts = False
        if not self.refs and self.on_idle is not None:
            self.on_idle()

    # -- callbacks -------------------------------------------------------------------------------------------------
    def call(self, callback: Callback, *args: Any) -> None:
        """Call a user's callback: the one way in which they are called."""
        try:
            result = callback(*args)
        except (SystemExit, KeyboardInterrupt) as error:
            self.leave(error)
        except BaseException as error:
            self.uncaught(error)
        else:
            if result is not None and inspect.iscoroutine(result):
                self.adopt(result)
        if self.ticks and not self._draining:
            self.drain_ticks()

    def adopt(self, coroutine: Coroutine[Any, Any, Any], *, name: str | None = None) -> asyncio.Task[Any]:
        """Run a coroutine that a callback returned: counted, its error uncaught."""
        task = self.loop.create_task(coroutine, name=name)
        self.tasks.add(task)
        self.retain()
        task.add_done_callback(self._adopted_done)
        return task

    def _adopted_done(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled():
            error = task.exception()
            if error is not None and not isinstance(error, SystemExit | KeyboardInterrupt):  # these have left by now
                self.uncaught(error)
        self.release()

    def leave(self, error: BaseException) -> None:
        """End the program with what somebody's code has raised to end it: SystemExit or KeyboardInterrupt.

        Under `run` not by raising it here: a transport's call would take it for the failure of its connection.
        """
        if self.fatal is None or asyncio._get_running_loop() is None:  # a loop of others; a child forked inside ours
            raise error
        self.fatal(error)

    def uncaught(self, error: BaseException) -> None:
        """Take an exception that nobody caught to its one place: `on_uncaught`, else the end of `run`."""
        handler = _uncaught_handler
        if handler is not None:
            try:
                handler(error)
            except BaseException as worse:
                error = worse
            else:
                return
        if self.fatal is not None:
            self.fatal(error)
        else:
            self.loop.call_exception_handler({"message": "uncaught exception in a callback", "exception": error})

    # -- next_tick -------------------------------------------------------------------------------------------------
    def next_tick(self, callback: Callback, args: tuple[Any, ...], context: contextvars.Context | None = None) -> None:
        """Queue for the end of the current callback of ours (or of the loop's current turn)."""
        self.ticks.append((callback, args, context or contextvars.copy_context()))
        if not self._tick_wakeup:
            self._tick_wakeup = True
            self.retain()
            self.loop.call_soon(self._tick_turn)

    def _tick_turn(self) -> None:
        self._tick_wakeup = False
        try:
            self.drain_ticks()
        finally:
            self.release()

    def drain_ticks(self) -> None:
        """Run what next_tick queued, and what that queues, until nothing is left."""
        if self._draining:
            return
        self._draining = True
        try:
            while self.ticks:
                callback, args, context = self.ticks.popleft()
                context.run(self.call, callback, *args)
        finally:
            self._draining = False

    async def last_words(self) -> None:
        """The program ends: wait for what open handles still have to say, as long as each of them says."""
        words = [coroutine for handle in list(self.handles) if (coroutine := handle._last_words()) is not None]
        if words:
            await asyncio.wait([self.loop.create_task(coroutine) for coroutine in words])

    def close_handles(self) -> None:
        """Close everything that is open, because the program ends."""
        for handle in list(self.handles):
            try:
                handle._shutdown()
            except Exception as error:
                self.loop.call_exception_handler({"message": f"closing {handle!r} failed", "exception": error})


def hub() -> Hub:
    """Return the hub of the running loop. Raises RuntimeError when no loop runs in this thread."""
    loop = asyncio._get_running_loop()
    if loop is None:
        raise RuntimeError("no running event loop in this thread: start the program with multiloop.run(main)")
    try:
        return loop._multiloop_hub  # type: ignore[attr-defined,no-any-return]
    except AttributeError:
        made = loop._multiloop_hub = Hub(loop)  # type: ignore[attr-defined]
        for function in tuple(_on_new_hub):
            function(made)
        return made


def on_new_hub(function: Callable[[Hub], None]) -> None:
    """Call `function` with each hub that is made from now on: for what waits for a loop to run (a child's channel)."""
    _on_new_hub.append(function)


class Handle:
    """Something open that keeps `run` going: a server, socket, timer, child, watcher, worker or port.

    Subclasses call `_opened(hub)` once it lives and `_ended()` once it is gone (both idempotent), and override
    `_shutdown()`, which closes at once and without waiting because the program ends. What cannot be said then is said in
    `_last_words()`, a moment before.
    """

    __slots__ = ("_alive", "_counted", "_hub")

    _hub: Hub
    _alive: bool
    _counted: bool

    def __init__(self) -> None:
        self._alive = False
        self._counted = True

    def _opened(self, of: Hub) -> None:
        if not self._alive:
            self._hub = of
            self._alive = True
            of.handles.add(self)
            if self._counted:
                of.refs += 1

    def _ended(self) -> None:
        if self._alive:
            self._alive = False
            self._hub.handles.discard(self)
            if self._counted:
                self._hub.release()

    def _last_words(self) -> Coroutine[Any, Any, None] | None:
        """Return what the end of the program waits for, which it limits itself; None: nothing."""
        return None

    def _shutdown(self) -> None:
        """Close at once and without waiting, because the program ends."""
        self._ended()

    def ref(self) -> Any:
        """Let this keep the program running (the default). Returns itself; calling twice changes nothing."""
        if not self._counted:
            self._counted = True
            if self._alive:
                self._hub.refs += 1
        return self

    def unref(self) -> Any:
        """Let the program end although this is open. Returns itself; calling twice changes nothing."""
        if self._counted:
            self._counted = False
            if self._alive:
                self._hub.release()
        return self

    @property
    def has_ref(self) -> bool:
        """Whether this keeps the program running."""
        return self._counted
