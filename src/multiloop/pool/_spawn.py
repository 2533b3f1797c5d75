"""Starting worker processes, off the loop, and collecting the dead.

What lives here: `spawn`, `collect`, the lifeline pipe, the command line of a worker. What must not: what is said to a
worker, when one is started.

* Never by fork: it copies locks that other threads hold, and aborts where a sub-interpreter lives.
* A thread does it, because starting takes milliseconds; it ends when nothing is left to start.
* The lifeline: one pipe whose writing end this process alone holds and never uses. Its end-of-file is the end of this
  process, on which the kernel kills every worker (`_worker_boot._die_with_parent`).
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..child_process._process import Process
from ..child_process._python import interpreter

_CODE = "import sys; sys.path.insert(0, sys.argv.pop(4)); from multiloop.pool._worker_boot import main; main()"
_PACKAGE_PARENT = str(Path(__file__).parents[2])

Born = Callable[[Process | None, BaseException | None], None]


class _Starter:
    """The jobs and the thread that does them, one after the other."""

    def __init__(self) -> None:
        self._jobs: deque[Callable[[], Any]] = deque()
        self._lock = threading.Lock()
        self._is_running = False
        self.lifeline: tuple[int, int] | None = None

    def put(self, job: Callable[[], Any]) -> None:
        with self._lock:
            self._jobs.append(job)
            if self._is_running:
                return
            self._is_running = True
        try:
            threading.Thread(target=self._work, name="multiloop-pool-start", daemon=True).start()
        except RuntimeError:  # no new threads: the interpreter is ending, or forbids daemons
            self._work()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._jobs:
                    self._is_running = False
                    return
                job = self._jobs.popleft()
            job()


_starter = _Starter()


def _after_fork() -> None:
    """In the child of somebody's fork: the thread is not here, and the lifeline belongs to the parent."""
    global _starter
    if _starter.lifeline is not None:
        for descriptor in _starter.lifeline:
            os.close(descriptor)
    _starter = _Starter()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def spawn(socket_descriptor: int, page_descriptor: int, name: str, born: Born) -> None:
    """Start a worker process with these two descriptors; both are closed here afterwards.

    `born` is called with the process, or with the error, on another thread.
    """

    def job() -> None:
        process, error = None, None
        try:
            process = _start(socket_descriptor, page_descriptor, name)
        except BaseException as raised:
            error = raised
        finally:
            os.close(socket_descriptor)
            os.close(page_descriptor)
        born(process, error)

    _starter.put(job)


def collect(process: Process) -> None:
    """Kill a process that is not watched and wait for its end, off the loop, so that no zombie stays."""
    _starter.put(process.kill_and_reap)


def _start(socket_descriptor: int, page_descriptor: int, name: str) -> Process:
    if _starter.lifeline is None:
        _starter.lifeline = os.pipe2(os.O_CLOEXEC) if hasattr(os, "pipe2") else os.pipe()
    lifeline = _starter.lifeline[0]
    passed = (socket_descriptor, page_descriptor, lifeline)
    command = [
        *interpreter(),
        "-c",
        _CODE,
        *map(str, passed),
        _PACKAGE_PARENT,
        f"[worker of {name}]",  # for whoever looks at the list of processes
    ]
    return Process(command, own_group=False, stdin=subprocess.DEVNULL, pass_fds=passed)
