"""What a worker lives in: a process, or a thread with or without an interpreter of its own.

What lives here: `Body` (what the engine asks of one) and `ProcessBody`. What must not: what is said to the worker.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from typing import Any, Protocol

from ._spawn import collect


class Body(Protocol):
    """One worker's life, seen from outside."""

    ident: int  # of the process or thread
    can_stick: bool  # whether it may survive `kill`; it then has `stuck()`, too

    @property
    def label(self) -> str:
        """How messages call it."""

    def watch(self, loop: asyncio.AbstractEventLoop, gone: Callable[[], Any]) -> None:
        """Call `gone` on the loop when it has ended. Once."""

    def kill(self) -> None:
        """End it now, whatever it does; `gone` follows. Safe to call when it has ended."""

    def abandon(self) -> None:
        """End it now; nobody listens any more."""

    def forget(self) -> None:
        """In a forked child: it is the parent's."""

    def memory_bytes(self) -> int:
        """Return its resident memory, 0 where that cannot be told."""

    @property
    def exit_code(self) -> int | None:
        """Its exit code; minus the number of a signal; None while it lives."""


class ProcessBody:
    """A worker process, watched by pidfd (end-of-file would be hidden by copies of the socket)."""

    can_stick = False

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.ident = process.pid
        self._process = process
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pidfd = -1

    @property
    def label(self) -> str:
        """See Body."""
        return f"process {self.ident}"

    def watch(self, loop: asyncio.AbstractEventLoop, gone: Callable[[], Any]) -> None:
        """See Body."""
        self._loop = loop
        try:
            self._pidfd = os.pidfd_open(self.ident)
        except (AttributeError, OSError):  # not Linux, or no descriptor left: a thread waits
            threading.Thread(target=self._wait, args=(gone,), name="multiloop-pool-wait", daemon=True).start()
        else:
            loop.add_reader(self._pidfd, self._ended, gone)

    def _ended(self, gone: Callable[[], Any]) -> None:
        self._process.poll()
        self._unwatch()
        gone()

    def _wait(self, gone: Callable[[], Any]) -> None:
        self._process.wait()
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(gone)
        except RuntimeError:
            pass  # the loop is closed: nobody listens

    def _unwatch(self) -> None:
        if self._pidfd >= 0:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def kill(self) -> None:
        """See Body. By pidfd where there is one: it never hits a stranger."""
        try:
            if self._pidfd >= 0:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            else:
                self._process.kill()
        except ProcessLookupError:
            pass

    def abandon(self) -> None:
        """See Body."""
        self._unwatch()
        collect(self._process)

    def forget(self) -> None:
        """See Body."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
        self._process.returncode = 0  # not our child: nothing to wait for

    def memory_bytes(self) -> int:
        """See Body."""
        try:
            with open(f"/proc/{self.ident}/statm", "rb") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError, ValueError):
            return 0

    @property
    def exit_code(self) -> int | None:
        """See Body."""
        return self._process.returncode
