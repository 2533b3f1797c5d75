"""Workers that live inside this process: a thread, with an interpreter of its own or without.

What lives here: `InterpreterBody` and `ThreadBody`. What must not: processes (`_bodies`), what is said to the worker.

They are stopped by an exception that is raised in their code between two bytecodes. C code is not reached, nor code that
handles every exception: such a worker is left behind, reported and counted (`worker_threads.zombies()`), and never holds
up the end of the program.
"""

from __future__ import annotations

import asyncio
import atexit
import importlib
import itertools
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from .. import _limits as limits
from ..worker_threads import _zombies as zombies
from ..worker_threads._leash import WORD, Terminated, stack_of
from ..worker_threads._primitives import interrupt

_living: set[_InsideBody] = set()
_numbers = itertools.count(1)


class _InsideBody:
    """What both kinds share: a thread that hosts the worker, and how its end is told."""

    kind = ""
    can_stick = True
    exit_code: int | None = None  # a thread has none

    def __init__(self, name: str) -> None:
        self.ident = -next(_numbers)  # until the thread has one; no process id
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._gone: Callable[[], Any] | None = None
        self._is_over = False
        self._is_zombie = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._host, name=f"multiloop-{name}", daemon=True)

    @property
    def label(self) -> str:
        """How messages call it."""
        return f"{self.kind} {self._name}"

    def _begin(self) -> None:
        _living.add(self)
        self._thread.start()
        self.ident = self._thread.ident or self.ident

    def _host(self) -> None:
        try:
            self._live()
        finally:
            _living.discard(self)
            if self._is_zombie:
                zombies.discard(self.ident)
            with self._lock:
                self._is_over = True
                loop, gone = self._loop, self._gone
            if loop is not None and gone is not None:
                try:
                    loop.call_soon_threadsafe(gone)
                except RuntimeError:
                    pass  # the loop is closed: nobody listens

    def _live(self) -> None:
        raise NotImplementedError

    def watch(self, loop: asyncio.AbstractEventLoop, gone: Callable[[], Any]) -> None:
        """See Body."""
        with self._lock:
            self._loop, self._gone = loop, gone
            is_over = self._is_over
        if is_over:
            loop.call_soon(gone)

    def kill(self) -> None:
        """See Body."""

    def abandon(self) -> None:
        """See Body."""
        with self._lock:
            self._gone = None
        self.kill()

    def stuck(self) -> str:
        """It does not stop: count it, listen no more, return where it is."""
        with self._lock:
            self._gone = None
            stack = "" if self._is_over else self._stack()
            if not self._is_over:
                self._is_zombie = True
                zombies.add(self.ident, self._name, self.kind, stack)
        return stack

    def _stack(self) -> str:
        return stack_of(self.ident)

    def forget(self) -> None:
        """See Body."""

    def memory_bytes(self) -> int:
        """See Body. It shares the process's."""
        return 0

    def join(self, seconds: float) -> None:
        """Wait for its end."""
        self._thread.join(seconds)


class InterpreterBody(_InsideBody):
    """A thread with an interpreter and a lock of its own (Python 3.14 and newer)."""

    kind = "interpreter"

    def __init__(self, socket_descriptor: int, page_descriptor: int, name: str) -> None:
        super().__init__(name)
        self._leash, inner = socket.socketpair()
        self._leash.setblocking(False)
        self._code = (
            f"import sys; sys.path[:] = {sys.path!r}\n"
            "from multiloop.pool._worker_boot import live_in_interpreter\n"
            f"live_in_interpreter({socket_descriptor}, {page_descriptor}, {inner.detach()})"
        )
        self._begin()

    def _live(self) -> None:
        interpreters = importlib.import_module("concurrent.interpreters")  # from 3.14 on

        try:
            interpreter = interpreters.create()
            try:
                interpreter.exec(self._code)
            finally:
                interpreter.close()
        except interpreters.InterpreterError as error:
            print(f"multiloop: the worker {self._name} ended: {error}", file=sys.stderr)
        finally:
            self._leash.close()

    def kill(self) -> None:
        """See Body. A thread inside the interpreter does it."""
        try:
            self._leash.send(WORD)
        except OSError:
            pass  # it is ending already

    def _stack(self) -> str:
        try:
            return self._leash.recv(64 * 1024).decode(errors="replace")
        except OSError:
            return ""


class ThreadBody(_InsideBody):
    """A thread of this interpreter: parallel only without the interpreter's lock, or in code that releases it."""

    kind = "thread"

    def __init__(self, socket_descriptor: int, page_descriptor: int, name: str) -> None:
        super().__init__(name)
        self._descriptors = socket_descriptor, page_descriptor
        self._is_interrupting = False
        self._begin()

    def _live(self) -> None:
        from ._worker_boot import live_in_thread

        try:
            live_in_thread(*self._descriptors, Terminated)
        except Terminated:
            pass  # it came when all was done

    def kill(self) -> None:
        """See Body."""
        with self._lock:
            if self._is_interrupting or self._is_over:
                return
            self._is_interrupting = True
        threading.Thread(target=self._interrupt, name=f"multiloop-stop-{self._name}", daemon=True).start()

    def _interrupt(self) -> None:
        deadline = time.monotonic() + limits.TERMINATE_S
        while time.monotonic() < deadline:
            with self._lock:
                if self._is_over:
                    return
                interrupt(self.ident, Terminated)
            self._thread.join(limits.INTERRUPT_INTERVAL_S)


def _stop_all() -> None:
    """The program ends: give what still runs a moment to stop, together."""
    for body in list(_living):
        body.abandon()
    deadline = time.monotonic() + limits.TERMINATE_S
    for body in list(_living):
        body.join(max(0.0, deadline - time.monotonic()))


def _after_fork() -> None:
    _living.clear()


atexit.register(_stop_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
