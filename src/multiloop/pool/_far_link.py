"""One worker on another machine, as the pool sees it.

What lives here: `FarLink`: which tasks it has, and the calls that carry them. What must not: the engine's decisions
(`_engine_far`), Ray, Dask.

    STARTING → READY → LEAVING or GONE
"""

from __future__ import annotations

import marshal
from enum import Enum
from time import monotonic
from typing import TYPE_CHECKING, Any

from ..stats import PoolWorkerStatistics
from . import _far_protocol as far
from ._protocol import IS_HEARD

if TYPE_CHECKING:
    from ._tasks import Task

CALLS_AHEAD = 2  # on their way to one worker: the page has room for the results of two


class State(Enum):
    """Where in its life a worker is."""

    STARTING = "starting"
    READY = "ready"
    LEAVING = "leaving"
    GONE = "gone"


class FarLink:
    """One worker and what it has been given."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.handle: Any = None  # the engine's
        self.state = State.STARTING
        self.started: far.Started | None = None
        self.tasks: dict[int, Task] = {}  # by number, in their order: what it was given and has not answered
        self.calls: dict[int, tuple[int, int]] = {}  # on their way: first number, number behind the last
        self.next_task = 1
        self.completed = 0
        self.born = monotonic()
        self.since = 0.0  # when it began, as far as is known, what it does now
        self.is_peeking = False
        self.peeked_at = 0  # the task that ran when it was looked at last
        self.is_listening = False
        self.listeners = 0  # tasks with somebody who listens
        self.expired = 0  # the task for which this worker was ended, its time being over
        self.grace: Any = None  # the timer that ends it, should it not do what it was asked to
        self.rss = 0
        self.idle_since = monotonic()
        self.drops: list[int] = []  # values that nobody will name again
        self._next_call = 1
        self._defined: set[int] = set()
        self._known: set[int] = set()  # keys of shared values that it has

    @property
    def has_room(self) -> bool:
        """Whether another call may be on its way."""
        return len(self.calls) < CALLS_AHEAD

    def make_call(self, tasks: list[Task]) -> tuple[int, bytes, list[Any], dict[int, Any]]:
        """Return what `work` is called with."""
        call = self._next_call
        self._next_call += 1
        first = self.next_task
        self.next_task += len(tasks)
        self.calls[call] = first, self.next_task
        if not self.tasks:
            self.since = monotonic()
        definitions: list[tuple[int, bytes]] = []
        functions, flags, calls = [], [], []
        buffers: list[Any] = []
        shared: dict[int, Any] = {}
        for number, task in enumerate(tasks, first):
            function = task.function
            if function.number and function.number not in self._defined:
                assert function.pickled is not None
                self._defined.add(function.number)
                definitions.append((function.number, function.pickled))
            task.link = self  # type: ignore[assignment]
            task.number = number
            self.tasks[number] = task
            flag, body, options = task.flags, task.call, task.options
            if task.parcel is not None:
                parcel: Any = task.parcel
                body = body, len(buffers), len(parcel.buffers)
                buffers += parcel.buffers
                for key, value in parcel.shared.items():
                    if key not in self._known:
                        self._known.add(key)
                        shared[key] = value._far
            if task.stream is not None or options.on_report is not None:
                flag |= IS_HEARD
                self.listeners += 1
            functions.append(function.number)
            flags.append(flag)
            calls.append(body)
        dropped, self.drops = self.drops, []
        blob = marshal.dumps((definitions, first, functions, flags, calls, dropped), 2)
        return call, blob, buffers, shared

    def forget_shared(self, key: int) -> None:
        """Nobody will name this value again."""
        if key in self._known:
            self._known.discard(key)
            self.drops.append(key)

    def pop(self, number: int) -> Task | None:
        """Take a task out: it has an outcome, or goes elsewhere."""
        task = self.tasks.pop(number, None)
        if task is not None:
            task.link = None
            if task.stream is not None or task.options.on_report is not None:
                self.listeners -= 1
        return task

    def take_from(self, number: int) -> list[Task]:
        """Take out all tasks from this number on."""
        return [task for each in [n for n in self.tasks if n >= number] if (task := self.pop(each)) is not None]

    def front(self) -> tuple[int, Task] | None:
        """Return the task that it runs, as far as is known."""
        return next(iter(self.tasks.items()), None)

    def send_credit(self, task: Task, items: int) -> None:
        """See `Core.credit`."""
        if self.handle is not None:
            self.handle.tell("credit", task.number, items)

    def statistics(self) -> PoolWorkerStatistics:
        """Return a snapshot."""
        front = self.front()
        started = self.started
        return PoolWorkerStatistics(
            pid=started.pid if started is not None else 0,
            state="busy" if front is not None and self.state is State.READY else self.state.value,
            tasks=self.completed,
            age=monotonic() - self.born,
            rss=self.rss,
            task=front[1].function.name if front is not None else "",
            task_seconds=max(0.0, monotonic() - self.since) if front is not None else 0.0,
            host=started.host if started is not None else "",
        )
