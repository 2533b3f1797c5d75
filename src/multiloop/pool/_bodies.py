"""What a worker lives in: a process, or a thread with or without an interpreter of its own.

What lives here: `Body` (what the engine asks of one) and `ProcessBody`. What must not: what is said to the worker.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any, Protocol

from ..child_process._process import Process
from ._spawn import collect


class Body(Protocol):
    """One worker's life, seen from outside."""

    ident: int  # of the process or thread
    can_stick: bool  # whether it may survive `kill`; it is then an `_InsideBody`
    exit_code: int | None  # minus the number of a signal; None while it lives, and of a thread

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


class ProcessBody:
    """A worker process, watched by pidfd (end-of-file would be hidden by copies of the socket)."""

    can_stick = False

    def __init__(self, process: Process) -> None:
        self.ident = process.pid
        self.exit_code: int | None = None
        self._process = process

    @property
    def label(self) -> str:
        """See Body."""
        return f"process {self.ident}"

    def watch(self, loop: asyncio.AbstractEventLoop, gone: Callable[[], Any]) -> None:
        """See Body."""

        def ended(code: int | None, signal_number: int | None) -> None:
            self.exit_code = code if signal_number is None else -signal_number
            gone()

        self._process.watch(loop, ended)

    def kill(self) -> None:
        """See Body."""
        self._process.signal(signal.SIGKILL)

    def abandon(self) -> None:
        """See Body."""
        self._process.unwatch()
        collect(self._process)

    def forget(self) -> None:
        """See Body."""
        self._process.forget()

    def memory_bytes(self) -> int:
        """See Body."""
        try:
            with open(f"/proc/{self.ident}/statm", "rb") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError, ValueError):
            return 0
