"""Workers that could not be stopped and were left behind.

What lives here: the list of them, for `zombies()` and the statistics. What must not: deciding that one is.
"""

from __future__ import annotations

import time
from typing import NamedTuple


class Zombie(NamedTuple):
    """A worker of kind `interpreter` or `thread` that does not stop."""

    thread_id: int
    name: str
    kind: str
    since: float  # seconds ago
    stack: str  # where it was when it did not stop; empty if that could not be told


_left_behind: dict[int, tuple[str, str, float, str]] = {}


def add(thread_id: int, name: str, kind: str, stack: str) -> None:
    """Count one."""
    _left_behind[thread_id] = (name, kind, time.monotonic(), stack)


def discard(thread_id: int) -> None:
    """It has ended after all."""
    _left_behind.pop(thread_id, None)


def zombies() -> list[Zombie]:
    """The workers in this process that were told to stop and still run: inside C code, or handling every exception.

    Each uses its memory, and maybe a core, until that code returns or the process ends. They never hold up its end.
    """
    now = time.monotonic()
    return [
        Zombie(thread_id, name, kind, now - since, stack)
        for thread_id, (name, kind, since, stack) in _left_behind.items()
    ]
