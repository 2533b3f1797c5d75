"""Starting an operating-system process, hearing of its end, signalling it.

What lives here: `Process`. What must not: events, streams, options' meaning for users.

* subprocess.Popen starts it (vfork where it can, and safe beside interpreters of their own); never preexec_fn, never the
  loop's own spawn. After that the Popen object is dropped: we watch and reap the child ourselves.
* Its end is heard through a pidfd and only it is reaped (never waitpid(-1)). Signals go through the pidfd as well, so
  that they cannot reach a stranger that got the same number.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from .._limits import CHILD_LAST_WAIT_S

# Children that were let go: reaped when the next one is started, on whatever thread.
_let_go: list[Process] = []
_let_go_lock = threading.Lock()


class Process:
    """One child. `watch()` once, on the loop; then `on_exit(code, signal)` comes once, one of both None."""

    __slots__ = ("_group", "_loop", "_on_exit", "_pidfd", "_thread_waits", "pid", "reaped")

    def __init__(self, arguments: Sequence[str | bytes | os.PathLike[str]], *, own_group: bool, **options: Any) -> None:
        """Start it. Raises what Popen raises: OSError with the name of what is missing, ValueError, TypeError."""
        _reap_let_go()
        popen = subprocess.Popen(arguments, process_group=0 if own_group else None, **options)
        self.pid = popen.pid
        popen.returncode = 0  # it is ours from here on: no warning, no waiting by the Popen object
        self.reaped = False
        self._group = own_group
        self._pidfd = _open_pidfd(popen.pid)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_exit: Callable[[int | None, int | None], None] | None = None
        self._thread_waits = False

    def watch(self, loop: asyncio.AbstractEventLoop, on_exit: Callable[[int | None, int | None], None]) -> None:
        """Call `on_exit` on the loop when it has ended."""
        self._loop, self._on_exit = loop, on_exit
        if self._pidfd >= 0:
            loop.add_reader(self._pidfd, self._ended)
        else:
            self._thread_waits = True
            threading.Thread(target=self._wait, name=f"wait-{self.pid}", daemon=True).start()

    def _wait(self) -> None:
        """Where there is no pidfd (macOS): a thread waits, without reaping, until the loop can."""
        try:
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:  # somebody was faster
            pass
        loop = self._loop
        try:
            if loop is not None:
                loop.call_soon_threadsafe(self._ended)
        except RuntimeError:  # the loop is closed
            pass

    def _ended(self) -> None:
        status = self._reap()
        if status is None or self._on_exit is None:
            return
        on_exit, self._on_exit = self._on_exit, None
        on_exit(*status)

    def _reap(self) -> tuple[int | None, int | None] | None:
        """Take its exit status; None while it runs. (255, None) when a stranger in this process took it before us."""
        if self.reaped:
            return None
        try:
            found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            status: tuple[int | None, int | None] = (255, None)
        else:
            if found is None:
                return None
            exited = found.si_code == os.CLD_EXITED
            status = (found.si_status, None) if exited else (None, found.si_status)
        self.reaped = True
        self._close()
        return status

    def _close(self) -> None:
        if self._pidfd >= 0:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def __del__(self) -> None:
        if getattr(self, "_pidfd", -1) >= 0:  # its loop was closed under it
            os.close(self._pidfd)

    def signal(self, number: int) -> bool:
        """Send a signal; False when it has ended. Raises PermissionError for a child that changed its user."""
        if self.reaped:
            return False
        try:
            if self._group:
                os.killpg(self.pid, number)  # not reaped, so the number is still its own
            elif self._pidfd >= 0:
                signal.pidfd_send_signal(self._pidfd, number)
            else:
                os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True

    def unwatch(self) -> None:
        """Stop watching; called on the loop. From then on any thread may `kill_and_reap` it."""
        self._on_exit = None
        if self._pidfd >= 0 and self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._pidfd)
        self._loop = None

    def forget(self) -> None:
        """In a forked child: it is the parent's, and so is the loop."""
        self._on_exit = self._loop = None
        self.reaped = True
        self._close()

    def let_go(self) -> None:
        """Stop watching; it lives on. Reaped later, if we live on too."""
        self._on_exit = None
        self._close()
        if not self.reaped:
            with _let_go_lock:
                _let_go.append(self)

    def wait_for_end(self, seconds: float) -> bool:
        """Wait until it has ended, blocking, at most so long; whether it has. For the end of the program."""
        if self._pidfd >= 0:
            waiting = select.poll()
            waiting.register(self._pidfd, select.POLLIN)
            return bool(waiting.poll(max(0.0, seconds) * 1000))
        until_s = time.monotonic() + seconds
        while not self._has_ended() and time.monotonic() < until_s:  # only where there is no pidfd
            time.sleep(0.001)
        return self._has_ended()

    def _has_ended(self) -> bool:
        try:
            return self.reaped or os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:  # somebody else has reaped it
            return True

    def kill_and_reap(self) -> None:
        """End it at once, because the program ends; waits for its end for a moment."""
        self._on_exit = None
        if self.signal(signal.SIGKILL):
            self.wait_for_end(CHILD_LAST_WAIT_S)
        if self._reap() is None and not self.reaped:
            self.let_go()


def _reap_let_go() -> None:
    with _let_go_lock:
        _let_go[:] = [process for process in _let_go if process._reap() is None and not process.reaped]


def _open_pidfd(pid: int) -> int:
    """Return a pidfd; -1 where there are none (macOS), and at the limit of open files: then a thread waits."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return -1
