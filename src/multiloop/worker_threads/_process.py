"""Workers of the kind `process`: a Python of their own, killable at any time.

What lives here: starting and stopping one. What must not: what is said to it (`_worker`), watching processes
(`child_process`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..child_process._process import Process
from ..errors import UsageError
from ._body import Ending, OnEnd, Outfit, make_plan, write_plan
from ._options import Options
from ._place import Place
from ._words import BOOTSTRAP

if TYPE_CHECKING:
    import asyncio


class ProcessBody:
    """A worker process. Raises OSError when it cannot be started."""

    native_thread = None

    def __init__(
        self,
        options: Options,
        outfit: Outfit,
        place: Place,
        thread_id: int,
        loop: asyncio.AbstractEventLoop,
        on_end: OnEnd,
    ) -> None:
        plan_fd = -1
        try:
            plan_fd = write_plan(make_plan("process", options, outfit, place, thread_id))
            self._process = Process(
                [_python(), *_flags(), "-c", BOOTSTRAP.format(fd=plan_fd), f"[{options.name}]"],
                own_group=False,
                env=options.env,
                pass_fds=(outfit.control, outfit.port, plan_fd),
                stdin=outfit.stdin if outfit.stdin >= 0 else subprocess.DEVNULL,
                stdout=outfit.stdout if outfit.stdout >= 0 else None,
                stderr=outfit.stderr if outfit.stderr >= 0 else None,
            )
        finally:
            if plan_fd >= 0:
                os.close(plan_fd)
            outfit.close()
        self.pid = self._process.pid
        self._on_end = on_end
        self._process.watch(loop, self._ended)

    def _ended(self, code: int | None, signal_number: int | None) -> None:
        self._on_end(Ending(code, signal_number))

    def stop(self) -> None:
        """Kill it: a process stops whatever it does."""
        self._process.signal(signal.SIGKILL)

    def stack(self) -> str:
        """Never needed: it is dead."""
        return ""

    def abandon(self) -> None:
        """Kill and reap it."""
        self._process.kill_and_reap()


def _python() -> str:
    if not sys.executable:
        raise UsageError("sys.executable is empty, so no worker process can be started: set it to a Python")
    return sys.executable


def _flags() -> list[str]:
    """The options this interpreter was started with, as multiprocessing hands them on."""
    flags: Callable[[], list[str]] | None = getattr(subprocess, "_args_from_interpreter_flags", None)
    return flags() if flags is not None else []
