"""Stopping an interpreter from inside: a thread that waits for the word, then interrupts the worker's own thread.

What lives here: `Terminated`, and the watching thread inside an interpreter. What must not: the side that holds the
leash (`_interpreter`).

CPython raises an asynchronous exception only in threads of the interpreter that asks for it, between two bytecodes. So
each interpreter has this thread, started before any code of the user. What is inside C code is not reached: then the
stack is sent up the leash, for the report.

Such an exception may come right behind `acquire`, also of a `with`, and the lock then stays taken for ever: whoever needs
it later hangs, and the interpreter with it. So a thread that is inside code of the library or of ours is left alone for a
moment; it comes back to the user's code, or waits in C code.
"""

from __future__ import annotations

import gc
import os
import select
import socket
import sys
import threading
import time
from typing import Any

from .._limits import INTERRUPT_DEFER_S, INTERRUPT_INTERVAL_S, TERMINATE_S
from ._primitives import interrupt

WORD = b"T"  # any byte would do

_STEP_S = 0.001  # between looks whether the user's code is reached
_OURS = os.path.dirname(os.path.dirname(__file__)) + os.sep
_LIBRARY = (os.path.dirname(os.__file__) + os.sep, "<frozen ")
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")  # in the library's folder, not of it


class Terminated(SystemExit):
    """Ends a worker from outside. A SystemExit, since asyncio lets only those out of a loop."""

    def __init__(self) -> None:
        super().__init__(1)


def await_outside(thread_id: int) -> None:
    """Wait until a thread of this interpreter is in code of the user, for a moment at most.

    Whoever interrupts it next meets it there: the lock of the interpreter changes hands after milliseconds, not before.
    """
    until_s = time.monotonic() + INTERRUPT_DEFER_S
    while is_inside(thread_id) and time.monotonic() < until_s:
        time.sleep(_STEP_S)


def is_inside(thread_id: int) -> bool:
    """Whether a thread is in code of the standard library or of ours, which may hold a lock."""
    frame = sys._current_frames().get(thread_id)
    if frame is None:
        return False
    file = frame.f_code.co_filename
    return file.startswith(_OURS) or (file.startswith(_LIBRARY) and not any(part in file for part in _INSTALLED))


def stop_loop(loop: Any) -> None:
    """Ask a loop to end, as if its program had raised; wakes it in any case. Called from any thread."""

    def end() -> None:
        hub = getattr(loop, "_multiloop_hub", None)
        if hub is not None and hub.fatal is not None:
            hub.fatal(Terminated())

    try:
        loop.call_soon_threadsafe(end)
    except RuntimeError:  # it is closed
        pass


def running_loops() -> list[Any]:
    """Every loop that runs in this interpreter, on whatever thread.

    Nothing lists the loops, in particular not those of a plain asyncio.run; the garbage collector knows them.
    """
    kind = getattr(sys.modules.get("asyncio.events"), "AbstractEventLoop", None)
    if kind is None:  # asyncio is not there, or is being imported right now
        return []
    return [each for each in gc.get_objects() if issubclass(type(each), kind) and _is_running(each)]


def _stop_loops() -> None:
    """Stop every loop of this interpreter: one that sleeps in the kernel runs no bytecode to be interrupted at."""
    for loop in running_loops():
        stop_loop(loop)


def _is_running(loop: Any) -> bool:
    try:
        return bool(loop.is_running())
    except (
        AttributeError,
        NotImplementedError,
    ):  # it is being made right now (the next attempt finds it), or is no real one
        return False


class Leash:
    """The worker's end: watches for the word on its own thread, until `let_go`.

    Between the two threads there is one plain flag and no lock: an exception that comes from outside can leave a lock
    of Python's taken for ever, right behind `acquire`.
    """

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(True)
        self._worker = threading.get_ident()
        self._is_over = False
        self._thread = threading.Thread(target=self._watch, name="multiloop-leash")
        self._thread.start()

    def _watch(self) -> None:
        try:
            self._socket.recv(1)  # the word, or the end of who holds the leash: the same to us
        except OSError:
            pass
        if self._is_over:
            return
        _stop_loops()
        began = time.monotonic()
        is_told = False
        while not self._rests_and_is_let_loose() and not self._is_over:
            await_outside(self._worker)
            interrupt(self._worker, Terminated)
            _stop_loops()  # wakes them: the exception waits for the next bytecode
            if not is_told and time.monotonic() - began > 0.5 * TERMINATE_S:
                is_told = True
                self._tell_stack()

    def _rests_and_is_let_loose(self) -> bool:
        """Wait for the time of the next attempt; whether either end was closed meanwhile: nothing is to be done then."""
        try:
            poll = select.poll()
            poll.register(self._socket, select.POLLIN)
            return bool(poll.poll(INTERRUPT_INTERVAL_S * 1000)) and not self._socket.recv(1, socket.MSG_DONTWAIT)
        except OSError:
            return True

    def _tell_stack(self) -> None:
        try:
            self._socket.send(stack_of(self._worker).encode()[-32_000:], socket.MSG_DONTWAIT)
        except OSError:
            pass

    def let_go(self) -> None:
        """The worker's code is over, by itself or not: nothing is interrupted from here on."""
        while True:
            try:
                self._is_over = True  # first: at most one exception is on its way from here on
                try:
                    self._socket.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # the other end is closed
                self._thread.join()
                interrupt(self._worker, None)
                self._socket.close()
                return
            except Terminated:
                continue


def stack_of(thread_id: int) -> str:
    """Where a thread of this interpreter is, as text; empty when there is no such thread."""
    import traceback

    frames: Any = sys._current_frames()
    frame = frames.get(thread_id)
    return "" if frame is None else "".join(traceback.format_stack(frame))
