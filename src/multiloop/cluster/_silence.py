"""Why a worker's loop is silent, as far as the primary can see.

What lives here: `Silence`. What must not: noticing it, and what follows from it (`_supervisor`).

Most silences the worker's own watchdog reports, with file and line. What is left for the primary: a process that is
stopped, and one in which no Python code can run (C code that holds the interpreter's lock).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from .. import _limits as limits
from ._page import Page
from ._vitals import STACK_SIGNAL


class Silence:
    """Looks at one worker's process.

    Args:
        signal: sends it a signal.
        say: says something of this worker: a level, a text that goes behind its name, and details.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        pid: int,
        page: Page,
        signal: Callable[[int], object],
        say: Callable[[str, str, str], object],
    ) -> None:
        self._loop = loop
        self._pid = pid
        self._page = page
        self._signal = signal
        self._say = say
        self._over = False

    def end(self) -> None:
        """The process is gone."""
        self._over = True

    def look(self) -> None:
        """Find out in a moment why its loop is silent, and log what the worker itself cannot."""
        self._loop.call_later(limits.STACK_AFTER_S, self._look, self._page.last_beat())

    def _look(self, beat: float) -> None:
        """Only if no Python code can run in there is the stack taken from outside: faulthandler's signal handler can
        hit code that runs at a moment in which its frames are not consistent, and that kills the process."""
        if self._over or self._page.last_beat() != beat:
            return
        if is_stopped(self._pid):
            self._say("warning", f" (pid {self._pid}) is stopped (SIGSTOP, or a debugger)", "")
        elif time.monotonic() - self._page.last_thread_beat() > limits.STACK_AFTER_S + limits.THREAD_BEAT_INTERVAL_S:
            self.log_stack(None)

    def log_stack(self, then: Callable[[], object] | None) -> None:
        """Let the process write what its threads do, log that, and then go on with `then`."""
        if not self._over:
            self._page.take_stack()
            self._signal(STACK_SIGNAL)
        self._loop.call_later(limits.STACK_WAIT_S, self._stack_written, then)

    def _stack_written(self, then: Callable[[], object] | None) -> None:
        if not self._over:
            stack = self._page.take_stack()
            if stack:
                self._say("warning", f" (pid {self._pid}) is here:", stack)
            else:
                self._say("warning", f" (pid {self._pid}) does not run: stopped, or in the kernel", "")
        if then is not None:
            then()


def is_stopped(pid: int) -> bool:
    """Whether a process was stopped by a signal; False where that cannot be known."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2][:1] in (b"T", b"t")
    except OSError:
        return False
