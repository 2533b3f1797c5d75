"""Workers of the kind `interpreter` (Python 3.14 on): a thread with an interpreter and a lock of its own.

What lives here: the host thread, the outer end of the leash. What must not: what goes on inside (`_inside_interpreter`).

    host thread:   create ─▶ exec(BOOTSTRAP) ─▶ close ─▶ on_end
    leash:         "stop" ─▶ the watching thread inside interrupts ║ its stack ◀─ when that does not help

What does not stop (C code, or code that handles every exception) stays behind as a zombie; host threads are daemons, so
that it never holds up the end of the program. The memory of messages is the process's: nothing of it is lost.
"""

from __future__ import annotations

import atexit
import faulthandler
import importlib
import os
import socket
import threading
import time
from typing import TYPE_CHECKING

from .._limits import PROGRAM_END_S
from ..errors import WorkerDied
from ._body import Ending, OnEnd, Outfit, make_plan, write_plan
from ._leash import WORD
from ._options import Options
from ._place import Place
from ._words import BOOTSTRAP

if TYPE_CHECKING:
    import asyncio

_running: set[InterpreterBody] = set()


class InterpreterBody:
    """A worker interpreter. Raises OSError when there is no descriptor left, RuntimeError when there is no thread."""

    def __init__(
        self,
        options: Options,
        outfit: Outfit,
        place: Place,
        thread_id: int,
        loop: asyncio.AbstractEventLoop,
        on_end: OnEnd,
    ) -> None:
        self.pid = os.getpid()
        self._loop = loop
        self._on_end: OnEnd | None = on_end
        self._leash, inner = socket.socketpair()
        self._leash.setblocking(False)
        plan_fd = write_plan(make_plan("interpreter", options, outfit, place, thread_id, inner.detach()))
        self._thread = threading.Thread(
            target=self._host, args=(BOOTSTRAP.format(fd=plan_fd),), name=options.name, daemon=True
        )
        _running.add(self)
        self._thread.start()

    def _host(self, code: str) -> None:
        interpreters = importlib.import_module("concurrent.interpreters")  # from 3.14 on

        failure: BaseException | None = None
        try:
            interpreter = interpreters.create()
            try:
                interpreter.exec(code)
            except interpreters.ExecutionFailed as error:
                failure = WorkerDied(f"a worker interpreter failed outside of its code: {error}")
            interpreter.close()
        except BaseException as error:
            failure = failure or error
        _running.discard(self)
        self._leash.close()
        try:
            self._loop.call_soon_threadsafe(self._ended, Ending(failure=failure))
        except RuntimeError:  # the loop is closed: nobody waits any more
            pass

    @property
    def native_thread(self) -> int | None:
        """The kernel's number of its thread."""
        return self._thread.native_id

    def _ended(self, ending: Ending) -> None:
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(ending)

    def stop(self) -> None:
        """Have it interrupted from inside."""
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

    def abandon(self) -> None:
        """Have it interrupted; the end of the program waits for a moment."""
        self._on_end = None
        self.stop()

    def join(self, seconds: float) -> None:
        """Wait for its end for a while."""
        self._thread.join(seconds)

    def let_loose(self) -> None:
        """The program ends without it."""
        self._leash.close()


def _stop_all() -> None:
    """The program ends: give what still runs a moment to stop, together."""
    for body in list(_running):
        body.abandon()
    deadline = time.monotonic() + PROGRAM_END_S
    for body in list(_running):
        body.join(max(0.0, deadline - time.monotonic()))
    left = list(_running)
    for body in left:
        body.let_loose()
    if left:
        # CPython waits for threads that such an interpreter has started. This timer needs no lock of any interpreter.
        faulthandler.dump_traceback_later(PROGRAM_END_S, exit=True, file=open(os.devnull, "w"))  # noqa: SIM115


atexit.register(_stop_all)
