"""The queue of tasks that no worker has yet: highest priority first, then first come, first served.

What lives here: `TaskQueue` and `Admission` (how many tasks a pool takes). Pure: no clock, no I/O. What must not: which
worker gets a task (`_assign`).
"""

from __future__ import annotations

import sys
from bisect import insort
from collections import deque
from collections.abc import Callable, Iterable
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._tasks import Task


_WAITS = -1  # what a task's number is while it is in the queue …
_FORGOTTEN = -2  # … and when it was cancelled there
_FORGOTTEN_MOST = 1024
NO_PLACE = -3  # what it is while it waits for a place, before the queue


class TaskQueue:
    """Lanes by priority. A task that is cancelled is forgotten at once, and removed when its turn comes."""

    __slots__ = ("_forgotten", "_lanes", "_order", "_plain", "_size")

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._plain: deque[Task] = deque()  # priority 0, which most tasks have
        self._lanes: dict[int, deque[Task]] = {0: self._plain}
        self._order = [0]  # negated priorities, so that the first is the highest
        self._size = 0
        self._forgotten = 0

    def __len__(self) -> int:
        return self._size - self._forgotten

    def push(self, task: Task) -> None:
        """Add at the end of its lane."""
        self._size += 1
        task.number = _WAITS
        priority = task.options.priority
        if not priority:
            self._plain.append(task)
        else:
            self._lane(priority).append(task)

    def push_back(self, tasks: Iterable[Task]) -> None:
        """Put back tasks that were sent and not begun, oldest first: they stand before all that wait."""
        for task in reversed(list(tasks)):
            self._size += 1
            task.number = _WAITS
            self._lane(task.options.priority).appendleft(task)

    def take(self, most: int, budget_ns: float, whatever: int) -> list[Task]:
        """Take the next tasks: `whatever` in any case, then until they make up the budget; `most` in all.

        Tasks that were cancelled while they waited are dropped on the way.
        """
        taken: list[Task] = []
        count = 0
        plain = self._plain
        is_simple = len(self._order) == 1
        left = self._size - self._forgotten
        while left and count < most and (budget_ns > 0 or count < whatever):
            task = plain.popleft() if is_simple else self._pop_from_lanes()
            self._size -= 1
            if task.number == _FORGOTTEN:
                self._forgotten -= 1
                continue
            left -= 1
            task.number = 0
            if task.can_end_unnoticed and not task.begin():
                continue
            taken.append(task)
            count += 1
            budget_ns -= task.function.estimate_ns
        return taken

    def _pop_from_lanes(self) -> Task:
        for negated in self._order:
            lane = self._lanes[-negated]
            if lane:
                task = lane.popleft()
                if not lane and negated:
                    del self._lanes[-negated]
                    self._order.remove(negated)
                return task
        raise IndexError("the queue is empty")

    def forget(self, task: Task) -> None:
        """Leave a cancelled task out; nothing happens when it is not here."""
        if task.number == _WAITS:
            task.number = _FORGOTTEN
            self._forgotten += 1
            if self._forgotten > _FORGOTTEN_MOST and self._forgotten > self._size // 2:
                for waiting in self.clear():
                    self.push(waiting)

    def clear(self) -> list[Task]:
        """Take all, in their order."""
        lanes = (self._lanes[-negated] for negated in self._order)
        taken = [task for lane in lanes for task in lane if task.number != _FORGOTTEN]
        self._reset()
        for task in taken:
            task.number = 0
        return taken

    def _lane(self, priority: int) -> deque[Task]:
        lane = self._lanes.get(priority)
        if lane is None:
            lane = self._lanes[priority] = deque()
            insort(self._order, -priority)
        return lane


class Admission:
    """Counts the tasks that are accepted and not finished; more than `limit` wait or are turned away.

    The one part of a pool that several threads touch, so it has a lock. A waiter is a function that is called, without
    the lock, once the place is its own.
    """

    __slots__ = ("_lock", "_waiters", "count", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.count = 0
        self._waiters: deque[Callable[[], bool]] = deque()
        self._lock = Lock()

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return len(self._waiters)

    def enter(self) -> bool:
        """Take a place if there is one and nobody waits for it."""
        with self._lock:
            if self.count >= self.limit or self._waiters:
                return False
            self.count += 1
            return True

    def enter_or_wait(self, waiter: Callable[[], bool]) -> bool:
        """Take a place now (True), or let `waiter` be called with one later.

        `waiter` returns False when it wants the place no more; the next one then gets it.
        """
        with self._lock:
            if self.count >= self.limit or self._waiters:
                self._waiters.append(waiter)
                return False
            self.count += 1
            return True

    def open_wide(self) -> None:
        """Let everybody in: the pool is closed, and they are to be told so."""
        with self._lock:
            self.limit = sys.maxsize
        self.settle()

    def leave(self) -> None:
        """Give a place back, to the one who has waited longest."""
        with self._lock:
            self.count -= 1
        self.settle()

    def settle(self) -> None:
        """Give free places to those who wait."""
        while True:
            with self._lock:
                if self.count >= self.limit or not self._waiters:
                    return
                waiter = self._waiters.popleft()
                self.count += 1
            if not waiter():
                with self._lock:
                    self.count -= 1
