"""`multiloop.run`: start a loop, run a program on it until nothing is left to wait for, clean up.

What lives here: making and ending a loop, signals, the exit rules. What must not: what handles and operations are.

The end, in order: `main` is done and no counted handle is left · a signal came · an exception was caught by nobody.
Then: what was sent to who started this program leaves, open handles are closed, foreign tasks cancelled (as `asyncio.run`
does), asynchronous generators closed.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import signal
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Literal

from ..errors import UsageError
from ._fork import guard
from ._hub import Hub, hub
from ._offload import completions_of
from ._operation import Operation

LoopName = Literal["auto", "uvloop", "asyncio"]

_left_alone: set[int] = set()


def leave_signals(*numbers: int) -> None:
    """Let `run` not take these signals in this process: somebody above has decided what they do (a cluster's worker)."""
    _left_alone.update(numbers)


def loop_factory(name: LoopName = "auto") -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes a loop of this name: uvloop where installed for "auto", else asyncio.

    Raises UsageError for an unknown name, and for "uvloop" where it cannot be imported.
    """
    if name not in ("auto", "uvloop", "asyncio"):
        raise UsageError(f"loop={name!r} is unknown: use 'auto', 'uvloop' or 'asyncio'")
    if name != "asyncio":
        try:
            import uvloop
        except ImportError as error:
            if name == "uvloop":
                raise UsageError("loop='uvloop' asked for, but uvloop cannot be imported here") from error
        else:
            factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
            return factory
    return asyncio.new_event_loop


def run(main: Any, *args: Any, loop: LoopName = "auto") -> Any:
    """Run a program until `main` is done and nothing of ours is left to wait for; return what `main` returned.

    Node's rule (libuv's uv_loop_alive): servers, timers, operations in flight, children, workers and ports that are
    open and ref'd keep it running, so a callback-style script works; `handle.unref()` stops counting.

    Args:
        main: a coroutine function or plain function (called with `args` on the loop), or a coroutine.
        loop: "uvloop", "asyncio", or "auto" (uvloop where installed).

    Raises:
        Exception: what `main` raised, or what a callback raised and nobody caught (see `on_uncaught`).
        SystemExit: 128 + the signal's number when SIGINT or SIGTERM ended it; everything was closed first. A second
            signal ends the process at once.
        RuntimeError: when a loop already runs in this thread: await there instead.
    """
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("multiloop.run() cannot be called while a loop runs in this thread: await your main there")
    program = _Program()
    try:
        with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
            return runner.run(program.live(main, args))
    finally:
        program.closed()


class _Program:
    """One call of `run`: decides when it ends."""

    def __init__(self) -> None:
        self._main_done = False
        self._check_queued = False
        self._pid = os.getpid()

    async def live(self, main: Any, args: tuple[Any, ...]) -> Any:
        self._hub = here = hub()
        loop = here.loop
        self._ended: asyncio.Future[None] = loop.create_future()
        guard(loop)
        completions_of(here)  # now, so that a program's first file opens no other descriptor
        here.on_idle = self._maybe_idle
        here.fatal = self._fatal
        loop.set_exception_handler(self._loop_exception)
        signals = self._take_signals(loop)
        task = loop.create_task(_call(main, args))
        task.add_done_callback(self._main_finished)
        try:
            await self._ended
            # Main may have been let go (`Hub.let_main_go`), and is cancelled below or was by the end of its server.
            return task.result() if task.done() and not task.cancelled() else None
        finally:
            here.is_ending = True
            here.on_idle = None
            here.fatal = None
            try:
                await here.last_words()
            finally:
                here.close_handles()
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
            for number in signals:
                loop.remove_signal_handler(number)
            await asyncio.sleep(0)  # transports that were closed tell their protocols

    def closed(self) -> None:
        """The loop is closed, after the last task that was cancelled has cleaned up."""
        here: Hub | None = getattr(self, "_hub", None)  # None: there was no loop to run on
        if here is not None and here.completions is not None:
            here.completions.close()

    def _take_signals(self, loop: asyncio.AbstractEventLoop) -> list[signal.Signals]:
        taken: list[signal.Signals] = []
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if number in _left_alone or signal.getsignal(number) == signal.SIG_IGN:
                    continue  # somebody decided (a cluster's worker, nohup): keep it
                try:
                    loop.add_signal_handler(number, functools.partial(self._signalled, number))
                except (NotImplementedError, RuntimeError, ValueError):
                    continue  # Windows, or a sub-interpreter: the default action stays
                taken.append(number)
        return taken

    def _signalled(self, number: signal.Signals) -> None:
        if self._ended.done():  # the second one: whatever is being cleaned up takes too long
            self._hub.loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self._fatal(SystemExit(128 + number))

    def _main_finished(self, task: asyncio.Task[Any]) -> None:
        self._main_done = True
        if task.cancelled() and self._hub.main_counts:
            self._fatal(asyncio.CancelledError("main was cancelled"))
        elif task.cancelled():
            self._maybe_idle()
        elif (error := task.exception()) is not None:
            self._fatal(error)
        else:
            self._maybe_idle()

    def _maybe_idle(self) -> None:
        # Looked at one turn later: a callback that ends one handle usually opens the next.
        is_free = self._main_done or not self._hub.main_counts
        if is_free and not self._hub.refs and not self._check_queued:
            self._check_queued = True
            self._hub.loop.call_soon(self._check_idle)

    def _check_idle(self) -> None:
        self._check_queued = False
        if not self._hub.refs and not self._ended.done():
            self._ended.set_result(None)

    def _fatal(self, error: BaseException) -> None:
        if not self._ended.done():
            self._ended.set_exception(error)

    def _loop_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if os.getpid() != self._pid and isinstance(error, RuntimeError):
            # A forked child has no running loop (CPython's asyncio.events.on_fork), and from 3.14 on no task can make a
            # step there: it is told so instead of leaving with what it raised.
            if isinstance(error.__context__, SystemExit):
                raise error.__context__
            loop.default_exception_handler(context)
            raise SystemExit(1)
        if isinstance(context.get("future"), Operation) and error is not None:
            self._hub.uncaught(error)
        else:
            loop.default_exception_handler(context)


async def _call(main: Any, args: tuple[Any, ...]) -> Any:
    if inspect.iscoroutine(main):
        if args:
            main.close()
            raise UsageError("run(coroutine, *args): arguments go to the function: run(function, *args)")
        return await main
    if not callable(main):
        raise UsageError(f"run() needs a function or a coroutine, not {type(main).__name__}")
    result = main(*args)
    here: Hub = hub()
    if here.ticks:
        here.drain_ticks()
    if isinstance(result, Coroutine) or inspect.isawaitable(result):
        return await result
    return result
