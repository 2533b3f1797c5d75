"""Workers of the kind `process`: a Python of their own, killable at any time.

What lives here: starting and stopping one. What must not: what is said to it (`_worker`), watching processes
(`child_process`).
"""

from __future__ import annotations

import os
import signal
import subprocess

from ..child_process._process import Process
from ..child_process._python import interpreter
from ._body import Birth, Ending, make_plan, write_plan
from ._words import BOOTSTRAP


class ProcessBody:
    """A worker process. Raises OSError when it cannot be started."""

    native_thread = None

    def __init__(self, birth: Birth) -> None:
        options, outfit = birth.options, birth.outfit
        plan_fd = -1
        try:
            plan_fd = write_plan(make_plan("process", birth))
            self._process = Process(
                [*interpreter(), "-c", BOOTSTRAP.format(fd=plan_fd), f"[{options.name}]"],
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
        self._process.watch(birth.loop, lambda code, number: birth.on_end(Ending(code, number)))

    def stop(self) -> None:
        """Kill it: a process stops whatever it does."""
        self._process.signal(signal.SIGKILL)

    def stack(self) -> str:
        """Never needed: it is dead."""
        return ""

    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._process.reaped

    def abandon(self) -> None:
        """Kill and reap it."""
        self._process.kill_and_reap()
