"""The door to the threads on which blocking calls run.

What lives here: `offload` (public) and `offload_to` (for the modules above): one hop for a whole logical operation.
What must not: what is called; how threads are kept (`_threads`) and results come back (`_completions`).

    offload_to → Threads.submit ║ a thread: function(*args) → Completions.done ║ the loop: op settled
    call, where the attempt does not have to wait: Completions.arrive → the loop's next turn: op settled
"""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import Callable
from typing import Any, TypeVar, overload

from .._limits import OFFLOAD_MAX_THREADS, OFFLOAD_THREADS
from ..errors import ConfigError
from ._completions import Completions
from ._hub import Hub, hub
from ._operation import AnyOperation, CallbackOperation, ErrorFirst, Operation, begin
from ._threads import Threads

T = TypeVar("T")

_threads: Threads | None = None


def _thread_limit() -> int:
    text = os.environ.get("MULTILOOP_THREADS", "").strip()
    if not text:
        return OFFLOAD_THREADS
    if not text.isdecimal() or not 1 <= int(text) <= OFFLOAD_MAX_THREADS:
        raise ConfigError(f"MULTILOOP_THREADS={text!r}: give a number from 1 to {OFFLOAD_MAX_THREADS}")
    return int(text)


def completions_of(of: Hub) -> Completions:
    """Return what the offload keeps for this loop; made on first use."""
    global _threads
    if of.completions is None:
        if _threads is None:
            _threads = Threads(_thread_limit())
        of.completions = Completions(of, _threads)
    return of.completions


def offload_to(
    op: AnyOperation[Any],
    function: Callable[..., Any],
    args: tuple[Any, ...] = (),
    *,
    slow: bool = False,
    discard: Callable[[Any], Any] | None = None,
    context: contextvars.Context | None = None,
) -> None:
    """Run `function(*args)` on a thread and settle `op` with its outcome.

    Args:
        slow: the call waits for the outside world for long (names): such calls get at most half of the threads.
        discard: frees a result that comes after a cancel (closes a descriptor).
        context: what the function runs in. None for functions of ours, which call no code of users: a copy costs.
    """
    completions = op._hub.completions or completions_of(op._hub)
    try:
        if slow:
            completions.threads.submit_slow((completions, op, function, args, context, discard))
        else:
            completions.threads.submit((completions, op, function, args, context, discard))
    except RuntimeError as error:  # no thread can be started: the call must not settle inside this one
        op._hub.loop.call_soon(op._fail, error)


def call(
    callback: ErrorFirst | None,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    discard: Callable[[Any], Any] | None = None,
    attempt: Callable[..., Any] | None = None,
) -> Any:
    """Make an operation and run `function(*args)` for it: `begin` and `offload_to` in one, for functions of ours.

    Args:
        attempt: called first, here on the loop, with the same arguments: never waits, never raises, and gives the
            result where it can be had without waiting, else None.
    """
    try:
        loop = asyncio.get_running_loop()
        of: Hub = loop._multiloop_hub  # type: ignore[attr-defined]
    except (AttributeError, RuntimeError):  # the first call on this loop, or there is none
        of = hub()
        loop = of.loop
    completions = of.completions or completions_of(of)
    op: AnyOperation[Any]
    if callback is not None:
        op = CallbackOperation(of, callback)
    elif discard is None:
        of.refs += 1
        op = Operation(loop=loop)
    else:
        free = discard
        op = begin(None, of, discard=lambda value: call_always(None, free, (value,)))
    if attempt is not None and completions.calls_left > 0 and (value := attempt(*args)) is not None:
        completions.arrive(op, value, discard)
        return op
    try:
        completions.threads.submit((completions, op, function, args, None, discard))
    except RuntimeError as error:
        loop.call_soon(op._fail, error)
    return op


class _Always:
    """Stands for an operation whose call is made even if it is cancelled: it frees something."""

    __slots__ = ("_fail", "_op", "_succeed")

    def __init__(self, op: AnyOperation[Any]) -> None:
        self._op = op
        self._succeed = op._succeed
        self._fail = op._fail

    def done(self) -> bool:
        return False


def call_always(
    callback: ErrorFirst | None,
    function: Callable[..., Any],
    args: tuple[Any, ...] = (),
    attempt: Callable[..., Any] | None = None,
) -> Any:
    """The same for a function that frees something (closes a file): cancelling only stops waiting for it.

    The attempt has freed it where it gives anything else than None; the result is None all the same.
    """
    of = hub()
    completions = of.completions or completions_of(of)
    op = begin(callback, of)
    if attempt is not None and completions.calls_left > 0 and attempt(*args) is not None:
        completions.arrive(op, None)
        return op
    try:
        completions.threads.submit((completions, _Always(op), function, args, None, None))
    except RuntimeError as error:
        of.loop.call_soon(op._fail, error)
    return op


@overload
def offload(function: Callable[..., T], *args: Any) -> Operation[T]: ...
@overload
def offload(function: Callable[..., T], *args: Any, callback: ErrorFirst) -> CallbackOperation[T]: ...
def offload(function: Callable[..., T], *args: Any, callback: ErrorFirst | None = None) -> AnyOperation[T]:
    """Run a blocking call on a thread, at once: `value = await multiloop.offload(function, *args)`.

    The function runs in a copy of the caller's context; for keyword arguments give a `functools.partial` (`callback` is
    offload's own). Cancelling stops waiting and drops a call that has not begun; one that runs goes on to its end, since
    a thread cannot be stopped. For CPU-bound work use `multiloop.pool`.
    """
    op: AnyOperation[T] = begin(callback, hub())
    offload_to(op, function, args, context=contextvars.copy_context())
    return op


def _forked() -> None:
    # The threads stayed in the parent, with the calls they had: a child begins anew.
    global _threads
    _threads = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
