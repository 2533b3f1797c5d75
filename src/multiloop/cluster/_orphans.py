"""What PID 1 owes to its container: burying processes that nobody waits for.

What lives here: `Orphans`. What must not: our own children (`_spawn` hears of each through its pidfd).

A process whose parent died belongs to PID 1, and stays in the table of processes until PID 1 has asked for its end. Who
asks for any child (waitpid(-1)) takes away the ends of children that somebody else waits for; so only those are buried
that were dead at two looks a while apart, and are not ours.
"""

from __future__ import annotations

import os
from collections.abc import Collection

from .._limits import ORPHAN_LOOK_S


class Orphans:
    """Buries dead strangers. `look` is cheap while there are none."""

    def __init__(self) -> None:
        self._dead: set[int] = set()  # at the last look
        self._next = 0.0

    def look(self, now: float, ours: Collection[int]) -> None:
        """Look for them, about once a second; `ours` are processes that somebody here waits for."""
        if now < self._next:
            return
        self._next = now + ORPHAN_LOOK_S
        dead = _dead_children() - set(ours)
        for pid in dead & self._dead:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:  # somebody did wait for it
                pass
        self._dead = dead - self._dead


def _dead_children() -> set[int]:
    """Our children that are dead and not buried."""
    try:
        if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return set()
        return {int(name) for name in os.listdir("/proc") if name.isdigit() and _is_dead_child(name)}
    except OSError:  # no children, no /proc
        return set()


def _is_dead_child(name: str) -> bool:
    try:
        with open(f"/proc/{name}/stat", "rb") as file:
            state, parent = file.read().rpartition(b") ")[2].split()[:2]
    except OSError:
        return False
    return state == b"Z" and int(parent) == os.getpid()
