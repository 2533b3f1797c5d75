"""Starting child processes, and hearing of their end.

What lives here: `Spawner` (one thread that starts every child) and `Child`. What must not: what the child runs.

* Children are started by spawn, never by fork of a process with threads; subprocess.Popen uses vfork where it can.
* One thread that lives as long as the process starts them all: the kernel's parent-death signals are tied to the thread,
  and the loop is not held up. It blocks signals, so that a child starts with them blocked and cannot be hit by Ctrl-C
  before it has its handlers; the child opens them.
* The end is heard through a pidfd: only our own child is reaped (never waitpid(-1)), and a signal can never hit a
  stranger that got the same number.
"""

from __future__ import annotations

import asyncio
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

Started = Callable[["Child | None", OSError | None], None]

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_HELD_BACK = ("SIGINT", "SIGHUP", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGTTIN", "SIGTTOU", "SIGQUIT")


class Child:
    """A process that we started. `watch` must be called on the loop, once."""

    __slots__ = ("_loop", "_on_exit", "_pidfd", "_process", "pid", "returncode")

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._pidfd = os.pidfd_open(process.pid) if hasattr(os, "pidfd_open") else -1
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_exit: Callable[[], None] | None = None
        self.pid = process.pid
        self.returncode: int | None = None

    def watch(self, loop: asyncio.AbstractEventLoop, on_exit: Callable[[], None]) -> None:
        """Call `on_exit` on the loop when the process is gone; `returncode` is set by then."""
        self._loop, self._on_exit = loop, on_exit
        if self._pidfd >= 0:
            loop.add_reader(self._pidfd, self._gone)
        else:  # macOS has no pidfd
            threading.Thread(target=self._wait, args=(loop,), daemon=True).start()

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        self._process.wait()
        try:
            loop.call_soon_threadsafe(self._gone)
        except RuntimeError:  # the loop is closed
            pass

    def _gone(self) -> None:
        self.returncode = self._process.poll()
        if self.returncode is None:
            return
        self._close()
        if self._on_exit is not None:
            self._on_exit()

    def _close(self) -> None:
        if self._pidfd >= 0:
            if self._loop is not None:
                self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def signal(self, number: int) -> None:
        """Send a signal; nothing happens when the process is gone."""
        try:
            if self._pidfd >= 0:
                signal.pidfd_send_signal(self._pidfd, number)
            elif self.returncode is None:
                self._process.send_signal(number)
        except ProcessLookupError:
            pass

    def end(self) -> None:
        """Kill it and wait until it is gone, on the spot; for the end of the primary."""
        if self.returncode is None:
            self.signal(signal.SIGKILL)
            self.returncode = self._process.wait()
        self._close()

    @property
    def how(self) -> str:
        """Say how it ended: "exit code 3" or "SIGSEGV"."""
        code = self.returncode
        if code is None or code >= 0:
            return f"exit code {code}"
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"


class _Job(NamedTuple):
    command: Sequence[str]
    pass_fds: Sequence[int]
    started: Started
    environment: Mapping[str, str] | None


class Spawner:
    """The thread that starts children."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="multiloop-spawner", daemon=True)
        self._thread.start()

    def start(
        self,
        command: Sequence[str],
        pass_fds: Sequence[int],
        started: Started,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start a process; `started(child, error)` is called on the loop. The descriptors must stay open until then."""
        self._jobs.put(_Job(command, pass_fds, started, environment))

    def close(self) -> None:
        """End the thread; safe to call twice."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        held = {getattr(signal, name) for name in _HELD_BACK if hasattr(signal, name)}
        signal.pthread_sigmask(signal.SIG_BLOCK, held)
        while (job := self._jobs.get()) is not None:
            child: Child | None = None
            error: OSError | None = None
            try:
                child = Child(
                    subprocess.Popen(job.command, stdin=subprocess.DEVNULL, pass_fds=job.pass_fds, env=job.environment)
                )
            except (OSError, ValueError) as raised:  # a ValueError: a variable that no environment can hold
                error = raised if isinstance(raised, OSError) else OSError(0, str(raised))
            self._report(job.started, child, error)

    def _report(self, started: Started, child: Child | None, error: OSError | None) -> None:
        try:
            self._loop.call_soon_threadsafe(started, child, error)
        except RuntimeError:  # the loop is closed: nobody will look after it
            if child is not None:
                child.end()


def interpreter_command(function: str, *arguments: Any) -> list[str]:
    """Return the command that calls `module:function` with its arguments, by this interpreter and its flags.

    The process finds this multiloop, wherever it is; otherwise its path is its own (-P: the working folder must not
    shadow the standard library, `--app-dir` adds it later).
    """
    module, _, name = function.partition(":")
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    if "-P" not in flags:
        flags.append("-P")
    code = (
        f"import sys; root = {_ROOT!r}; root in sys.path or sys.path.append(root); del root; "
        f"from {module} import {name}; sys.exit({name}(sys.argv[1:]))"
    )
    return [sys.executable, *flags, "-c", code, *map(str, arguments)]
