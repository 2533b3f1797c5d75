"""Workers that live inside this process: a thread, with an interpreter of its own or without.

What lives here: `InterpreterBody` and `ThreadBody`. What must not: processes (`_bodies`), threads and interpreters as such
(`worker_threads._host`), what is said to the worker.

They are stopped by an exception that is raised in their code between two bytecodes. C code is not reached, nor code that
handles every exception: such a worker is left behind, reported and counted (`worker_threads.zombies()`), and never holds
up the end of the program.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from .. import _limits as limits
from ..worker_threads import _zombies as zombies
from ..worker_threads._host import Host, InterpreterHost
from ..worker_threads._leash import Terminated, await_outside
from ..worker_threads._primitives import interrupt


class _InsideBody:
    """What both kinds share: see `_bodies.Body`."""

    kind = ""
    can_stick = True
    exit_code: int | None = None  # a thread has none

    def __init__(self, host: Host, name: str) -> None:
        self._host = host
        self._name = name
        host.start()
        self.ident = host.ident

    @property
    def label(self) -> str:
        """How messages call it."""
        return f"{self.kind} {self._name}"

    def watch(self, loop: asyncio.AbstractEventLoop, gone: Callable[[], Any]) -> None:
        """See Body."""

        def over(failure: BaseException | None) -> None:
            if failure is not None:
                print(f"multiloop: the worker {self._name} ended: {failure}", file=sys.stderr)
            gone()

        self._host.when_over(loop, over)

    def kill(self) -> None:
        """See Body."""
        self._host.stop()

    def abandon(self) -> None:
        """See Body."""
        self._host.tell_nobody()
        self._host.stop()

    def stack(self) -> str:
        """Where it is, when it does not stop; empty if that is not known."""
        return self._host.stack()

    def give_up(self, stack: str) -> None:
        """It does not stop: count it, listen no more."""
        self._host.tell_nobody()
        if not self._host.is_over():
            zombies.add(self.ident, self._name, self.kind, stack, self._host.is_over)

    def forget(self) -> None:
        """See Body."""

    def memory_bytes(self) -> int:
        """See Body. It shares the process's."""
        return 0


class InterpreterBody(_InsideBody):
    """A thread with an interpreter and a lock of its own (Python 3.14 and newer)."""

    kind = "interpreter"

    def __init__(self, socket_descriptor: int, page_descriptor: int, name: str) -> None:
        def make_code(leash: int) -> tuple[str, list[int]]:
            code = (
                f"import sys; sys.path[:] = {sys.path!r}\n"
                "from multiloop.pool._worker_boot import live_in_interpreter\n"
                f"live_in_interpreter({socket_descriptor}, {page_descriptor}, {leash})"
            )
            return code, []

        host = InterpreterHost(f"multiloop-{name}", make_code, (socket_descriptor, page_descriptor))
        super().__init__(host, name)


class ThreadBody(_InsideBody):
    """A thread of this interpreter: parallel only without the interpreter's lock, or in code that releases it."""

    kind = "thread"

    def __init__(self, socket_descriptor: int, page_descriptor: int, name: str) -> None:
        super().__init__(_ThreadHost(f"multiloop-{name}", socket_descriptor, page_descriptor), name)


class _ThreadHost(Host):
    """Runs a worker, and interrupts it from a thread beside it."""

    def __init__(self, name: str, socket_descriptor: int, page_descriptor: int) -> None:
        super().__init__(name)
        self._descriptors = socket_descriptor, page_descriptor
        self._is_interrupting = False

    def run(self) -> None:
        """See Host."""
        from ._worker_boot import live_in_thread

        try:
            live_in_thread(*self._descriptors, Terminated)
        except Terminated:
            pass  # it came when all was done

    def stop(self) -> None:
        """See Host."""
        with self._lock:
            if self._is_interrupting or self.is_over():
                return
            self._is_interrupting = True
        threading.Thread(target=self._interrupt, name="multiloop-stop", daemon=True).start()

    def _interrupt(self) -> None:
        deadline = time.monotonic() + limits.TERMINATE_S
        while time.monotonic() < deadline:
            await_outside(self.ident)
            with self._lock:  # not any more, once it has ended: the number may be another thread's by then
                if self.is_over():
                    return
                interrupt(self.ident, Terminated)
            self.join(limits.INTERRUPT_INTERVAL_S)
