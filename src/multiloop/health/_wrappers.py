"""Thin wrappers round calls that block and are not audited, for the time that a guard is on.

What lives here: `install` and `remove`. What must not: judging (`_blocking`), reporting (`_guard`).

Each wrapper asks whether its call would wait, and on a loop; if so it tells, then calls what it wraps. They are put on
modules and on Python's own classes (types of C cannot be changed), and `remove` puts everything back.
"""

from __future__ import annotations

import functools
import socket
import subprocess
import threading
import time
from asyncio import _get_running_loop
from collections.abc import Callable
from typing import Any

from ._blocking import SLEEP_IS_AUDITED, SOCKET_METHODS, Blocking, judge

Tell = Callable[[Blocking], None]
TellWait = Callable[[str], None]

_put: list[tuple[Any, str, Any, Any]] = []  # owner, name, what was there (_NOTHING: it was inherited), what we put
_NOTHING = object()


class _Sleep:
    """`time.sleep` before 3.13. No function: as an attribute of a class that would bind, and the real one does not."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._sleep = time.sleep
        functools.update_wrapper(self, self._sleep)

    def __call__(self, seconds: Any, /) -> None:
        if _get_running_loop() is not None:
            found = judge("time.sleep", (seconds,))
            if found is not None:
                self._tell(found)
        self._sleep(seconds)


def install(tell: Tell, tell_wait: TellWait) -> None:
    """Wrap. `tell(what)` is told of a call that blocks; `tell_wait(name)` of a wait, by the name of the method."""
    if not SLEEP_IS_AUDITED:
        _wrap(time, "sleep", _Sleep(tell))
    _wrap_waits(tell_wait)
    for name, instead in SOCKET_METHODS.items():
        _wrap_socket(name, Blocking(f"{name}() of a blocking socket", instead), tell)


def remove() -> None:
    """Put everything back as it was; what somebody wrapped over ours meanwhile stays, and ours does nothing."""
    while _put:
        owner, name, before, ours = _put.pop()
        if vars(owner).get(name) is ours:
            if before is _NOTHING:
                delattr(owner, name)
            else:
                setattr(owner, name, before)


def _wrap(owner: Any, name: str, made: Any) -> None:
    before = vars(owner).get(name, _NOTHING)
    setattr(owner, name, made)
    _put.append((owner, name, before, made))


def _wrap_waits(tell: TellWait) -> None:
    condition_wait, join = threading.Condition.wait, threading.Thread.join
    popen_wait, communicate = subprocess.Popen.wait, subprocess.Popen.communicate

    @functools.wraps(condition_wait)
    def wait(self: threading.Condition, timeout: float | None = None) -> bool:
        # Event, Semaphore, Queue and Future wait here, too, and only when they have to.
        if _get_running_loop() is not None and (timeout is None or timeout > 0):
            tell("Condition.wait")
        return condition_wait(self, timeout)

    @functools.wraps(join)
    def thread_join(self: threading.Thread, timeout: float | None = None) -> None:
        if _get_running_loop() is not None and (timeout is None or timeout > 0) and self.is_alive():
            tell("Thread.join")
        join(self, timeout)

    @functools.wraps(popen_wait)
    def process_wait(self: subprocess.Popen[Any], timeout: float | None = None) -> int:
        if _get_running_loop() is not None and timeout != 0 and self.poll() is None:
            tell("Popen.wait")
        return popen_wait(self, timeout)

    @functools.wraps(communicate)
    def process_communicate(self: subprocess.Popen[Any], *args: Any, **kwargs: Any) -> Any:
        if _get_running_loop() is not None:
            tell("Popen.communicate")
        return communicate(self, *args, **kwargs)

    _wrap(threading.Condition, "wait", wait)
    _wrap(threading.Thread, "join", thread_join)
    _wrap(subprocess.Popen, "wait", process_wait)
    _wrap(subprocess.Popen, "communicate", process_communicate)


def _wrap_socket(name: str, what: Blocking, tell: Tell) -> None:
    original = getattr(socket.socket, name)

    @functools.wraps(original)
    def method(self: socket.socket, *args: Any, **kwargs: Any) -> Any:
        if _get_running_loop() is not None and self.gettimeout() != 0:
            tell(what)
        return original(self, *args, **kwargs)

    _wrap(socket.socket, name, method)
