"""Workers that could not be stopped and were left behind.

What lives here: the list of them, for `zombies()` and the statistics. What must not: deciding that one is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple


class Zombie(NamedTuple):
    """A worker of kind `interpreter` or `thread` that does not stop."""

    thread_id: int
    name: str
    kind: str
    since: float  # seconds ago
    stack: str  # where it was when it did not stop; empty if that could not be told


class _LeftBehind(NamedTuple):
    thread_id: int
    name: str
    kind: str
    since_s: float  # by the monotonic clock
    stack: str
    is_over: Callable[[], bool]


_left_behind: list[_LeftBehind] = []


def add(thread_id: int, name: str, kind: str, stack: str, is_over: Callable[[], bool]) -> None:
    """Count one until it is over."""
    _left_behind.append(_LeftBehind(thread_id, name, kind, time.monotonic(), stack, is_over))


def zombies() -> list[Zombie]:
    """The workers in this process that were told to stop and still run: inside C code, or handling every exception.

    Each uses its memory, and maybe a core, until that code returns or the process ends. They never hold up its end.
    """
    _left_behind[:] = [each for each in _left_behind if not each.is_over()]
    now_s = time.monotonic()
    return [Zombie(each.thread_id, each.name, each.kind, now_s - each.since_s, each.stack) for each in _left_behind]
