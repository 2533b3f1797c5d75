"""The guard: names calls that block, while they are made on an event loop, with what to use instead.

What lives here: `Guard`, `guard_blocking_calls`, `allow_blocking_calls`, the audit hook. What must not: what blocks
(`_blocking`), wrappers (`_wrappers`).

    open, connect, Popen … ─▶ the audit hook ─┐
    waits, blocking sockets ─▶ a wrapper ─────┴▶ on a loop? ─▶ whose line is it? ─▶ said once, or raised

* Not reported: imports and what reads source (importlib, linecache), asyncio's and our own doing, sockets with timeout 0.
* An audit hook cannot be taken away: it stays for the rest of the process and does nothing while no guard is on. The
  wrappers are put on with the first guard and removed with the last.
* For development and tests. A process without a guard pays nothing; one with a guard a few microseconds for each such call.
"""

from __future__ import annotations

import asyncio
import asyncio.events
import contextvars
import importlib
import logging
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Any

from ..errors import BlockingCallError, UsageError
from ..stats import BlockingCall
from . import _stack, _wrappers
from ._blocking import WAITS, WATCHED, Blocking
from ._episode import shown_path

log = logging.getLogger("multiloop.health")

_running_loop = asyncio._get_running_loop
_allowed: contextvars.ContextVar[bool] = contextvars.ContextVar("multiloop.health.allowed", default=False)
_guards: list[Guard] = []
_lock = threading.Lock()
_inside = threading.local()  # while a call is being looked at, what that itself opens is not looked at
_hooked = False


class Guard:
    """A guard that is on; `off()` or the end of a `with` block ends it. Made by `guard_blocking_calls`."""

    def __init__(self, raises: bool, ignore: tuple[str, ...], logs: bool) -> None:
        self.raises = raises
        self._logs = logs
        self._ignore = ignore
        self._places: set[tuple[str, int]] = set()
        self._found: list[BlockingCall] = []

    @property
    def found(self) -> tuple[BlockingCall, ...]:
        """What was reported so far: the first call of each place, or every call that was refused."""
        return tuple(self._found)

    @property
    def is_on(self) -> bool:
        """Whether it still looks."""
        return self in _guards

    def off(self) -> None:
        """Look no more, and leave nothing wrapped unless another guard is on. Safe to call twice."""
        with _lock:
            if self in _guards:
                _guards.remove(self)
                if not _guards:
                    _wrappers.remove()

    def __enter__(self) -> Guard:
        return self

    def __exit__(self, *exc: object) -> None:
        self.off()

    def __repr__(self) -> str:
        return f"<Guard {'on' if self.is_on else 'off'}, {len(self._found)} found>"

    def _take(self, found: Blocking, innermost: FrameType) -> None:
        """Report a call, seen from the frame that made it, unless it is somebody's who may."""
        call = _call(found, innermost, self._ignore)
        if call is None:
            return
        if self.raises:
            self._found.append(call)
            raise BlockingCallError(call)
        place = (call.file, call.line)
        if place in self._places:
            return
        self._places.add(place)
        self._found.append(call)
        if self._logs and log.isEnabledFor(logging.WARNING):
            log.handle(
                log.makeRecord(log.name, logging.WARNING, call.file, call.line, str(call), (), None, sinfo=call.stack)
            )


def guard_blocking_calls(*, raises: bool = False, ignore: Iterable[str] = (), logs: bool = True) -> Guard:
    """Name calls that block while they are made on an event loop, in this process, from now on.

    Synchronous files, sleep, sockets, name look-ups, subprocesses, sqlite and waits for threads: a warning of the logger
    `multiloop.health` with file, line and what to use instead, once for each place. The newest guard is the one in force.

    Args:
        raises: raise BlockingCallError instead, each time, before anything is done: for tests.
        ignore: parts of paths; a call with such a file in its stack is not reported.
        logs: False: only `found` has them.

    Returns the guard: `off()` ends it, `found` is what it has reported, and it is a context manager.
    """
    if isinstance(ignore, str):
        raise UsageError("guard_blocking_calls(ignore=...) takes several texts: ignore=['legacy/']")
    guard = Guard(raises, tuple(ignore), logs)
    _hook()
    with _lock:
        if not _guards:
            _wrappers.install(_told, _told_wait)
        _guards.append(guard)
    return guard


@contextmanager
def allow_blocking_calls() -> Iterator[None]:
    """Let what is called inside block: for a line that you know to be harmless."""
    token = _allowed.set(True)
    try:
        yield
    finally:
        _allowed.reset(token)


def count_found() -> int:
    """How many places the guards that are on have named."""
    return sum(len(guard._found) for guard in tuple(_guards))


# -- the two ways in which a call is seen ------------------------------------------------------------------------------
def _hook() -> None:
    global _hooked
    with _lock:
        if not _hooked:
            _hooked = True
            sys.addaudithook(_audited)


def _audited(event: str, args: tuple[Any, ...]) -> None:
    if not _guards or event not in WATCHED or _running_loop() is None:
        return
    if not getattr(_inside, "flag", False):
        found = WATCHED[event](args)
        if found is not None:
            _look(found, sys._getframe(1))


def _told(found: Blocking) -> None:
    """A wrapper saw a call."""
    _look(found, sys._getframe(2))


def _told_wait(name: str) -> None:
    """A wrapper saw a wait: which method was called decides what to use instead."""
    innermost = sys._getframe(2)
    found = WAITS[name]
    frame: FrameType | None = innermost
    while frame is not None and _kind(frame.f_code.co_filename) == _STANDARD:
        called = frame.f_code.co_qualname
        if called == "Thread.start":
            return  # a moment, until the thread runs
        found = WAITS.get(called, found)
        frame = frame.f_back
    _look(found, innermost)


def _look(found: Blocking, innermost: FrameType) -> None:
    guards = tuple(_guards)
    if guards and not _allowed.get() and not getattr(_inside, "flag", False):
        _inside.flag = True
        try:
            guards[-1]._take(found, innermost)
        finally:
            _inside.flag = False


# -- whose call it is ----------------------------------------------------------------------------------------------------
_EXEMPT, _STANDARD, _CODE = "exempt", "standard", "code"
_EXEMPT_PACKAGES = ("_pytest", "pluggy", "coverage", "debugpy", "pydevd", "_pydevd_bundle", "uvloop")
_OURS = os.path.join(os.path.realpath(Path(__file__).parents[1]), "")
_EXEMPT_FOLDERS = tuple(
    os.path.join(os.path.realpath(Path(module.__file__).parent), "")
    for module in (asyncio, importlib)
    if module.__file__
)
_EXEMPT_FILES = ("linecache.py", "tokenize.py", "traceback.py", "pdb.py", "bdb.py", "zipimport.py", "runpy.py")


@lru_cache(maxsize=4096)
def _kind(file: str) -> str:
    """What code from this file may do: what it likes, what its caller may, or be reported."""
    if file.startswith("<frozen "):
        return _EXEMPT if "importlib" in file or "zipimport" in file else _STANDARD
    if file == _wrappers.__file__:
        return _STANDARD
    real = os.path.realpath(file)
    if real.startswith((_OURS, *_EXEMPT_FOLDERS)):
        return _EXEMPT
    if _stack.is_standard(real):
        return _EXEMPT if os.path.basename(real) in _EXEMPT_FILES else _STANDARD
    return _EXEMPT if _stack.package_of(real) in _EXEMPT_PACKAGES else _CODE


def _call(found: Blocking, innermost: FrameType, ignore: tuple[str, ...]) -> BlockingCall | None:
    """Return the report of a call; None when the code that made it may."""
    frame: FrameType | None = innermost
    while frame is not None and (kind := _kind(frame.f_code.co_filename)) != _CODE:
        if kind == _EXEMPT:
            return None
        frame = frame.f_back
    if frame is None:
        return None
    stack, served = _stack.copy(innermost)
    if ignore and any(part in place.file for place in stack for part in ignore):
        return None
    place = _stack.blame(stack)
    through = _stack.package_of(frame.f_code.co_filename)
    return BlockingCall(
        what=found.what,
        instead=found.instead,
        file=shown_path(place.file),
        line=place.line,
        function=place.function,
        through=through,
        request=None if served is None else served.text,
        stack=_stack.format_stack(stack),
    )
