"""The engine that runs tasks in workers of its own.

What lives here: `LocalEngine`: the way of a task from the queue to a worker and of its outcome back. What must not: how
workers live (`_crew`), tasks taken back from them (`_recall`), the bytes (`_link`), the rules of dealing (`_assign`). All
of it runs on the driver's loop.

    add → queue → deal → link ║ worker ║ link → finished → the caller's future
                    ↑ taken back: stopped, robbed, dead
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from time import monotonic, monotonic_ns
from typing import TYPE_CHECKING, Any

from .. import _limits as limits
from ..errors import PoolClosed
from ..loop import vigil_of
from ..stats import PoolWorkerStatistics
from . import _assign as assign
from . import _protocol as protocol
from ._crew import Crew
from ._deaths import worker_died
from ._driver import Driver
from ._link import Link, State
from ._meter import Meter
from ._options import PoolConfig
from ._protocol import STARTED_NS
from ._queue import NO_PLACE, Admission, TaskQueue
from ._recall import Recall
from ._rights import close_all
from ._tasks import FutureTask

if TYPE_CHECKING:
    from ._tasks import Task

_log = logging.getLogger("multiloop.pool")

_BURST = 128  # tasks added without a turn of the loop before the workers are looked after
_UNREAD = 2048  # tasks outstanding at one worker: bounds the results that lie unread in its socket


class LocalEngine:
    """Workers of our own, and the queue before them."""

    def __init__(
        self, config: PoolConfig, workers: int, driver: Driver, meter: Meter, admission: Admission | None
    ) -> None:
        self.config = config
        self.driver = driver
        self.loop = driver.loop
        self.hub = driver.hub
        self.vigil = None if driver.thread is not None else vigil_of(driver.hub)
        self.meter = meter
        self.queue = TaskQueue()
        self.idle: list[Link] = []  # ready and without tasks; the one that was busy last is the last
        self.broken: BaseException | None = None
        self.crew = Crew(self, workers)
        self.recall = Recall(self)
        self.waits, self.runs = meter.waits.fresh, meter.runs.fresh
        self._admission = admission
        self._attempts: dict[Task, int] = {}  # of idempotent tasks whose worker died
        self._is_dealing_soon = False
        self._burst = 0
        self._is_open = True  # neither broken nor closed
        self._closed: Callable[[], Any] | None = None
        self._is_closed = False
        self._waiting_for_ready: list[Callable[[BaseException | None], Any]] = []

    def begin(self) -> None:
        """Called once, on the loop."""
        if self.config.warm:
            self.crew.fill_up()

    # -- tasks come ------------------------------------------------------------------------------------------------
    def add(self, task: Task) -> None:
        """Take a task; it fails at once when the pool is closed or broken."""
        if not self._is_open:
            self.discard(task, self.broken or refusal())
            return
        self.queue.push(task)
        if self.idle:
            self._deal_to_idle()
        elif not self._is_dealing_soon:
            self._burst = 0
            self._deal_soon()
        else:
            self._burst += 1
            if not self._burst % _BURST:
                self._deal_to_busy()

    def _deal_soon(self) -> None:
        if not self._is_dealing_soon:
            self._is_dealing_soon = True
            self.loop.call_soon(self._deal)

    def deal_again(self, tasks: Iterable[Task]) -> None:
        """Put tasks that have not begun before all others."""
        again = [task for task in tasks if not task.done()]
        if again:
            self.queue.push_back(again)
            if self.crew.may_grow:
                self.crew.grow(len(self.queue))
            self._deal_soon()

    # -- dealing ---------------------------------------------------------------------------------------------------
    def _deal(self) -> None:
        self._is_dealing_soon = False
        if self.queue and self.idle:
            self._deal_to_idle()
        if self.queue:
            self._deal_to_busy()
        if self.queue and self.crew.may_grow:
            self.crew.grow(len(self.queue))
        self._maybe_closed()

    def _deal_to_idle(self) -> None:
        idle, queue = self.idle, self.queue
        while idle and queue:
            link = idle[-1]
            if self.crew.recycles(link):
                continue
            self._fill(link, assign.share(len(queue), len(idle)), 1)
            if link.outstanding:
                idle.pop()
        if queue and not idle:
            self._deal_soon()

    def _deal_to_busy(self) -> None:
        ready = [link for link in self.crew.ready() if link.outstanding]
        for link in sorted(ready, key=_load):
            if not self.queue:
                return
            self._fill(link, assign.share(len(self.queue), len(ready)), assign.DEPTH)

    def _fill(self, link: Link, most: int, depth: int) -> None:
        """Send tasks to a worker until it has enough ahead."""
        outstanding = link.outstanding
        ahead = min(link.unstarted, len(outstanding))
        budget = assign.AHEAD_NS
        if ahead:
            if ahead > assign.ENOUGH or self.crew.is_due(link):
                return
            # What it has ahead, estimated from three of them.
            samples = outstanding[-1], outstanding[-1 - ahead // 2], outstanding[-ahead]
            budget = assign.budget_ns(ahead, max(task.function.estimate_ns for task in samples))
            most = min(most, assign.MOST - ahead, _UNREAD - len(outstanding))
        limit = self.config.recycle_after_tasks
        if limit is not None:
            most = min(most, limit - link.completed - len(outstanding))
        tasks = self.queue.take(most, budget, max(0, depth - ahead))
        if tasks:
            link.send_tasks(tasks)
            if len(tasks) == len(outstanding):
                self.recall.watch(link)
            if len(tasks) > 1:
                self.recall.plan_peek()

    def is_free(self, link: Link) -> None:
        """A worker has nothing to do."""
        if not self.crew.recycles(link):
            self.idle.append(link)
            if self.queue:
                self._deal_to_idle()
            elif self._closed is not None:
                self._maybe_closed()
            else:
                self.recall.plan_robbery()

    def is_not_free(self, link: Link) -> None:
        """A worker takes no more tasks."""
        if link in self.idle:
            self.idle.remove(link)

    def stop(self, task: Task) -> None:
        """The caller of a task has its outcome, a cancel: free what it holds, and stop it where it runs."""
        self.meter.cancelled += 1
        link = task.link
        self.release(task)
        if link is None:
            self.queue.forget(task)
            if isinstance(task, FutureTask):
                task.notify_cancel()
            self._maybe_closed()
        elif link.state in (State.READY, State.STOPPING):
            self.recall.halt(link, task)

    # -- outcomes --------------------------------------------------------------------------------------------------
    def finished(
        self, link: Link, task: Task, value: Any, error: BaseException | None, began_ns: int, ended_ns: int
    ) -> None:
        """A result has come that is no small value (those are settled in `Link._settle`)."""
        link.completed += 1
        task.function.learn(ended_ns - began_ns)
        self.waits.append(began_ns - task.submitted_ns)
        self.runs.append(ended_ns - began_ns)
        self.release(task)
        if error is None:
            task._succeed(value)
        else:
            self.meter.failed += 1
            task._fail(error)

    @property
    def has_more_to_release(self) -> bool:
        """Whether tasks hold more than their arguments."""
        return self._admission is not None or bool(self._attempts)

    def release(self, task: Task) -> None:
        """Let go of what an unfinished task holds: its arguments and its place. Safe to call twice."""
        if task.call is None:
            return
        task.call = None
        if task.parcel is not None:
            close_all(task.parcel[1])
            task.parcel = None
        if self._attempts:
            self._attempts.pop(task, None)
        if self._admission is not None and task.number != NO_PLACE:
            self._admission.leave()

    def discard(self, task: Task, error: BaseException) -> None:
        """Fail a task without a result."""
        self.release(task)
        if isinstance(task, FutureTask) and not task.done():
            task.begin()  # waiters are told only of futures that were running
        task._fail(error)

    def message(self, task: Task, kind: int, value: Any, error: BaseException | None) -> None:
        """A report or an item of a stream has come."""
        if kind == protocol.ITEM:
            if task.stream is not None:
                task.stream.put(value, error)
        elif error is not None:
            self.hub.uncaught(error)
        elif task.options.on_report is not None and not task.done():
            self.hub.call(task.options.on_report, value)

    def has_read(self, link: Link) -> None:
        """Some of a worker's frames have been settled: it may have room."""
        self.meter.fold()
        if link.outstanding:
            self.recall.watch(link)
            if self.queue and link.state is State.READY:
                if self.idle:
                    self._deal_to_idle()
                if self.queue:
                    self._fill(link, assign.share(len(self.queue), max(1, len(self.crew.links))), assign.DEPTH)
            return
        if link.state is State.STOPPING:
            link.state = State.READY
            link.grace.cancel()
            link.grace = None
        if link.state is State.READY and link not in self.idle:
            self.is_free(link)

    def link_ready(self, link: Link) -> None:
        """A worker has started."""
        self.crew.became_ready(link)

    def when_ready(self, then: Callable[[BaseException | None], Any]) -> None:
        """Start all workers; call `then` when they are ready, or with the reason why they never will be."""
        self._waiting_for_ready.append(then)
        self.check_ready()

    def check_ready(self) -> None:
        """Tell those who wait for the workers, if it is time."""
        if not self._waiting_for_ready:
            return
        error = self.broken or (refusal() if self._closed is not None else None)
        if error is None and len(self.crew.ready()) < self.crew.limit:
            self.crew.fill_up()
            return
        waiting, self._waiting_for_ready = self._waiting_for_ready, []
        for then in waiting:
            then(error)

    def link_ended(self, link: Link) -> None:
        """A worker's socket has ended."""
        self.crew.ended(link)

    def bury(self, begun: list[Task], unstarted: list[Task], what: str, exit_code: int | None) -> None:
        """Settle the tasks of a worker that is gone: the one it ran, and the ones it had not begun."""
        for task in unstarted:
            task.link = None
        again = unstarted
        for task in begun:
            if task.done():
                continue
            tried = self._attempts.get(task, 0)
            if task.options.idempotent and task.stream is None and tried < limits.POOL_RETRIES:
                self._attempts[task] = tried + 1
                self.meter.retried += 1
                task.link = None
                again = [task, *again]
            else:
                self.discard(task, worker_died(what, exit_code, task.function.name))
        if exit_code and not begun and not unstarted and self._closed is None:
            _log.warning("pool %s: %s", self.config.name, worker_died(what, exit_code, ""))
        if self.broken is not None:
            for task in again:
                if not task.done():
                    self.discard(task, self.broken)
        self.deal_again(again)
        self._maybe_closed()

    def fail_waiting(self, error: BaseException, cause: BaseException | None) -> None:
        """There is no worker for what waits: it fails, and what comes later tries again."""
        error.__cause__ = cause
        for task in self.queue.clear():
            self.discard(task, error)
        waiting, self._waiting_for_ready = self._waiting_for_ready, []
        for then in waiting:
            then(error)
        self._maybe_closed()

    def break_down(self, error: BaseException, cause: BaseException | None) -> None:
        """No worker can start: all tasks fail, now and later."""
        if self.broken is not None:
            return
        error.__cause__ = cause
        self.broken = error
        self._is_open = False
        _log.critical("pool %s: %s", self.config.name, error, exc_info=cause)
        for task in self.queue.clear():
            if not task.done():
                self.discard(task, error)
        for link in list(self.crew.links):
            if not link.outstanding:
                self.crew.kill(link, replace=False)
        self.check_ready()
        self._maybe_closed()

    # -- the end ---------------------------------------------------------------------------------------------------
    def close(self, then: Callable[[], Any], *, cancel_waiting: bool, force: bool) -> None:
        """Take no more tasks, finish those that were accepted, end the workers, then call `then`.

        `cancel_waiting` cancels what no worker has; `force` also stops what runs.
        """
        self._is_open = False
        before = self._closed
        self._closed = then if before is None else lambda: (before(), then())
        if self._is_closed:
            then()
            return
        self.check_ready()
        if cancel_waiting or force:
            # A task for which a worker is being started counts as taken.
            keep = 0 if force else sum(link.state is State.BOOTING for link in self.crew.links)
            for place, task in enumerate(self.queue.clear()):
                if place < keep:
                    self.queue.push(task)
                elif not task.done():
                    self.meter.cancelled += 1
                    self.discard(task, asyncio.CancelledError())
        if force:
            for link in list(self.crew.links):
                for task in list(link.outstanding):
                    if not task.done():
                        self.meter.cancelled += 1
                        self.discard(task, asyncio.CancelledError())
                self.crew.kill(link, replace=False)
        self._maybe_closed()

    def _maybe_closed(self) -> None:
        """Once nothing is left to do, end the workers; once they are gone, say so."""
        if self._closed is None or self._is_closed or self.queue:
            return
        links = self.crew.links
        if any(link.outstanding for link in links if link.state is not State.KILLED):
            return
        self.crew.is_closing = True
        for link in list(links):
            self.crew.leave(link, replace=False)
        if not links:
            self._is_closed = True
            self._closed()

    def abandon(self) -> None:
        """End all at once and without waiting: the loop or the program ends."""
        self._is_open = False
        self._closed = self._closed or (lambda: None)
        self._is_closed = True
        tasks = [*self.queue.clear(), *(task for link in self.crew.links for task in link.outstanding)]
        self.crew.abandon()
        self.idle.clear()
        self.check_ready()
        self.recall.end()
        for task in tasks:
            if task.done():
                continue
            if isinstance(task, FutureTask):
                self.discard(task, refusal())
            elif not self.loop.is_closed():
                self.discard(task, asyncio.CancelledError())
            else:
                self.release(task)

    def forget(self) -> None:
        """In a forked child: close our copies of the descriptors, touch nothing that the parent uses."""
        for link in self.crew.links:
            link.forget()
            if link.body is not None:
                link.body.forget()

    # -- numbers ---------------------------------------------------------------------------------------------------
    def resize(self, workers: int) -> None:
        """Change how many workers there may be."""
        self.crew.resize(workers)
        if self.config.warm:
            self.crew.fill_up()
        self._deal_soon()

    @property
    def queued(self) -> int:
        """How many tasks wait, sent ahead or not."""
        return len(self.queue) + sum(max(0, len(link.outstanding) - 1) for link in self.crew.links)

    @property
    def running(self) -> int:
        """How many workers run a task."""
        return sum(bool(link.outstanding) for link in self.crew.links)

    def workers(self) -> tuple[PoolWorkerStatistics, ...]:
        """Return a snapshot of each worker."""
        return tuple(_snapshot(link) for link in list(self.crew.links))


def _load(link: Link) -> int:
    return len(link.outstanding)


def refusal() -> PoolClosed:
    """Return the error of a task that comes too late."""
    return PoolClosed("cannot schedule new futures after shutdown: this pool is closed")


def _snapshot(link: Link) -> PoolWorkerStatistics:
    name, seconds = "", 0.0
    front = next(iter(link.outstanding), None)
    if front is not None and link.state is not State.GONE:
        name = front.function.name
        seconds = max(0.0, monotonic() - link.words[STARTED_NS] / 1e9) if link.is_running else 0.0
    return PoolWorkerStatistics(
        pid=link.body.ident if link.body is not None else 0,
        state="busy" if front is not None and link.state is State.READY else link.state.value,
        tasks=link.completed,
        age=(monotonic_ns() - link.born_ns) / 1e9,
        rss=link.body.memory_bytes() if link.body is not None else 0,
        task=name,
        task_seconds=seconds,
    )
