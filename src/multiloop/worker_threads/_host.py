"""Threads that host workers inside this process: an interpreter of their own, or a function.

What lives here: `Host`, `InterpreterHost` (the outer end of a leash), and the end of the program for all of them. What
must not: what is said to the worker; its events.

    host thread:   create ─▶ exec(code) ─▶ close ─▶ told on a loop
    leash:         "stop" ─▶ the watching thread inside interrupts ║ its stack ◀─ when that does not help

What does not stop (C code, or code that handles every exception) stays behind as a zombie. Hosts are daemon threads, so
that it never holds up the end of the program.
"""

from __future__ import annotations

import atexit
import faulthandler
import importlib
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from .._limits import PROGRAM_END_S, PROGRAM_EXIT_S
from ._leash import WORD, stack_of
from ._transit import close_all

if TYPE_CHECKING:
    import asyncio

OnOver = Callable[[BaseException | None], None]

_living: set[Host] = set()


class Host:
    """A daemon thread whose end is told on a loop, once. Subclasses say what it runs and how that is stopped."""

    def __init__(self, name: str) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_over: OnOver | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._host, name=name, daemon=True)
        self.failure: BaseException | None = None
        self._is_over = False

    def start(self) -> None:
        """Begin. Raises RuntimeError when there is no thread to be had."""
        _living.add(self)
        try:
            self._thread.start()
        except BaseException:
            _living.discard(self)
            raise

    @property
    def ident(self) -> int:
        """Python's number of the thread; 0 before it runs."""
        return self._thread.ident or 0

    @property
    def native_id(self) -> int | None:
        """The kernel's number of the thread."""
        return self._thread.native_id

    def _host(self) -> None:
        try:
            self.run()
        except BaseException as error:
            self.failure = error
        _living.discard(self)
        with self._lock:
            self._is_over = True
            loop = None if self._on_over is None else self._loop  # not kept here: a traceback may keep this frame
        if loop is not None:
            try:
                loop.call_soon_threadsafe(self._tell)
            except RuntimeError:  # the loop is closed: nobody waits any more
                pass

    def _tell(self) -> None:
        with self._lock:
            on_over, self._on_over = self._on_over, None
        if on_over is not None:
            on_over(self.failure)

    def when_over(self, loop: asyncio.AbstractEventLoop, on_over: OnOver) -> None:
        """Call `on_over` on the loop when it has ended, with what went wrong outside of the worker's code."""
        with self._lock:
            self._loop, self._on_over = loop, on_over
            is_over = self._is_over
        if is_over:
            loop.call_soon(self._tell)

    def is_over(self) -> bool:
        """Whether the thread has ended, or is about to."""
        return self._is_over

    def tell_nobody(self) -> None:
        """Nobody wants to hear of its end any more."""
        with self._lock:
            self._on_over = None

    def join(self, seconds: float) -> None:
        """Wait for its end for a while."""
        self._thread.join(seconds)

    def stack(self) -> str:
        """Where it is; empty if that is not known."""
        return stack_of(self.ident)

    # -- for subclasses --------------------------------------------------------------------------------------------
    def run(self) -> None:
        """What the thread does."""
        raise NotImplementedError

    def stop(self) -> None:
        """Have it stopped; returns at once. Safe to call twice."""
        raise NotImplementedError

    def let_loose(self) -> None:
        """The program ends without it."""


class InterpreterHost(Host):
    """A thread with an interpreter and a lock of its own (Python 3.14 and newer).

    Args:
        make_code: given the descriptor of the leash, returns what runs in it and the descriptors it has made for that.
        passed: other descriptors that belong to that code once the thread has started.

    Raises OSError when there is no descriptor left.
    """

    def __init__(
        self, name: str, make_code: Callable[[int], tuple[str, list[int]]], passed: tuple[int, ...] = ()
    ) -> None:
        super().__init__(name)
        self._was_told = False
        self._passed = passed
        self._leash, inner = socket.socketpair()
        self._leash.setblocking(False)
        try:
            self._code, fds = make_code(inner.fileno())
        except BaseException:
            self._leash.close()
            inner.close()
            raise
        self._made = [inner.detach(), *fds]

    def start(self) -> None:
        """See Host."""
        try:
            super().start()
        except BaseException:
            close_all(self._made)
            self._leash.close()
            raise

    def run(self) -> None:
        """See Host."""
        interpreters = importlib.import_module("concurrent.interpreters")  # from 3.14 on

        try:
            try:
                interpreter = interpreters.create()
            except BaseException:  # no memory: the code never runs
                close_all((*self._made, *self._passed))
                raise
            try:
                interpreter.exec(self._code)
            except interpreters.ExecutionFailed:
                if not self._was_told:  # else it was interrupted on its way out, or in
                    raise
            finally:
                self._end_leash()  # the thread inside has to end before the interpreter can
                interpreter.close()
        finally:
            self._leash.close()

    def _end_leash(self) -> None:
        try:
            self._leash.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has ended already

    def stop(self) -> None:
        """Have it interrupted from inside."""
        self._was_told = True
        try:
            self._leash.send(WORD)
        except OSError:
            pass  # it is ending already

    def stack(self) -> str:
        """Where it is; the thread inside sends that when interrupting did not help."""
        try:
            return self._leash.recv(64 * 1024).decode(errors="replace")
        except OSError:
            return ""

    def let_loose(self) -> None:
        """See Host."""
        self._leash.close()


def _stop_all() -> None:
    """The program ends: give what still runs a moment to stop, together."""
    for host in list(_living):
        host.tell_nobody()
        host.stop()
    deadline = time.monotonic() + PROGRAM_END_S
    for host in list(_living):
        host.join(max(0.0, deadline - time.monotonic()))
    left = list(_living)
    for host in left:
        host.let_loose()
    if any(isinstance(host, InterpreterHost) for host in left):
        # CPython waits for threads that such an interpreter has started. This timer needs no lock of any interpreter;
        # the exit code is 1 then.
        faulthandler.dump_traceback_later(PROGRAM_EXIT_S, exit=True, file=open(os.devnull, "w"))  # noqa: SIM115


atexit.register(_stop_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_living.clear)
