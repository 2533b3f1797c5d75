"""All pools of this process that have workers, for the end of the program and for forked children.

What lives here: the set of them and the two hooks. What must not: one pool's own life (`_core`).
"""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._core import Core

_SETTLE_S = 0.02  # between two looks whether the pools are done

_active: set[Core] = set()


class _Program:
    is_over = False


_program = _Program()


def add(core: Core) -> None:
    """A pool has an engine."""
    _active.add(core)


def discard(core: Core) -> None:
    """A pool has none any more."""
    _active.discard(core)


def active() -> list[Core]:
    """Return the pools that have an engine."""
    return list(_active)


async def settled() -> None:
    """Wait until no pool of this process has a task that waits or runs."""
    while True:  # pools work on several threads and loops: looking is simpler than being told
        if not any(core.is_busy for core in active()):
            return
        await asyncio.sleep(_SETTLE_S)


def stop_tasks() -> None:
    """Close every pool of this process that has unfinished tasks, and stop these: a server's grace is over."""
    for core in active():
        if core.is_busy:
            core.close(lambda: None, cancel_waiting=True, force=True)


def is_program_over() -> bool:
    """Whether the program has come to its end: nothing new is accepted."""
    return _program.is_over


def _at_exit() -> None:
    """As concurrent.futures: what was submitted from synchronous code is finished; a loop's tasks end with the loop."""
    _program.is_over = True
    for core in active():
        if core.driver is not None and core.driver.thread is not None:
            thread = core.driver.thread
            done = threading.Event()
            core.close(done.set)
            done.wait()
            thread.join()
        else:
            core.let_go()


def _after_fork() -> None:
    """In the child of somebody's fork: the workers are the parent's."""
    for core in active():
        core.forget()
    _active.clear()


# Before threads are joined, as concurrent.futures does it: atexit would be too late, no thread can be started there.
threading._register_atexit(_at_exit)  # type: ignore[attr-defined]
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
