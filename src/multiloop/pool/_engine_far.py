"""The engine that gives tasks to workers on other machines.

What lives here: `FarEngine`, with the same surface as `LocalEngine`: the way of a task from the queue to a far worker and
of its outcome back. What must not: workers' lives (`_far_crew`), what Ray or Dask are (`_engine_ray`, `_engine_dask`).

    add → queue → deal → FarLink.make_call → handle.ask("work") ║ the engine ║ the worker ║ answer → the caller's future
                    ↑ taken back: looked at (peek), stopped, dead

Promises are those of the local engine: a task runs at most once unless it is idempotent; a worker that dies fails only
the task that it ran; what was sent with it and had not begun goes elsewhere. Tiny tasks travel together.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from time import monotonic
from typing import TYPE_CHECKING, Any

from .. import _limits as limits
from ..errors import EngineLost
from ..stats import PoolWorkerStatistics
from . import _far_protocol as far
from ._deaths import worker_gone
from ._driver import Driver
from ._engine_local import refusal
from ._far_cluster import Died, FarCluster, Lost, Returns
from ._far_crew import FarCrew
from ._far_link import FarLink, State
from ._far_outcomes import Outcomes
from ._meter import Meter
from ._options import PoolConfig
from ._queue import NO_PLACE, Admission, TaskQueue
from ._tasks import FutureTask

if TYPE_CHECKING:
    from ._tasks import Task

_log = logging.getLogger("multiloop.pool")


class FarEngine:
    """Workers of Ray or Dask, and the queue before them."""

    def __init__(
        self, config: PoolConfig, workers: int, driver: Driver, meter: Meter, admission: Admission | None
    ) -> None:
        assert config.cluster is not None
        self.config = config
        self.cluster: FarCluster = config.cluster
        self.driver = driver
        self.loop = driver.loop
        self.hub = driver.hub
        self.meter = meter
        self.queue = TaskQueue()
        self.broken: BaseException | None = None
        self.returns = Returns(driver)
        self.cluster.bind(self.returns)
        self.outcomes = Outcomes(self)
        self.crew = FarCrew(self, workers)
        self.is_open = True
        self.has_room_for: Callable[[int], Any] = lambda workers: None  # set by the core: called once that is known
        self._admission = admission
        self._attempts: dict[Task, int] = {}
        self._is_dealing_soon = False
        self._looking: asyncio.TimerHandle | None = None
        self._closed: Callable[[], Any] | None = None
        self._is_closed = False

    def begin(self) -> None:
        """Called once, on the loop."""
        if self.config.warm:
            self.crew.fill_up()

    # -- tasks come ------------------------------------------------------------------------------------------------
    def add(self, task: Task) -> None:
        """Take a task; it fails at once when the pool is closed or broken."""
        if not self.is_open:
            self.discard(task, self.broken or refusal())
            return
        self.queue.push(task)
        self.deal_soon()

    def deal_soon(self) -> None:
        """Deal at the end of this turn of the loop: what is added together travels together."""
        if not self._is_dealing_soon:
            self._is_dealing_soon = True
            self.loop.call_soon(self._deal)

    def deal_again(self, tasks: Iterable[Task]) -> None:
        """Put tasks that have not begun before all others."""
        again = [task for task in tasks if not task.done()]
        if again:
            self.queue.push_back(again)
            self.deal_soon()

    def _deal(self) -> None:
        self._is_dealing_soon = False
        if self.queue:
            ready = self.crew.ready()
            idle = [link for link in ready if not link.tasks]
            for place, link in enumerate(idle):
                self._fill(link, len(idle) - place)
            if self.queue:
                for link in sorted(ready, key=lambda link: len(link.tasks)):
                    if link.tasks and link.has_room and self._is_quick(link):
                        self._fill(link, len(ready))
            if self.queue:
                self.crew.grow(len(self.queue))
        self._maybe_closed()

    def _fill(self, link: FarLink, among: int) -> None:
        """Send a worker its share of what waits."""
        share = min(limits.POOL_FAR_MOST, -(-len(self.queue) // among))
        left = self.crew.left_of(link)
        if left is not None:
            share = min(share, left)
        tasks = self.queue.take(share, limits.POOL_FAR_AHEAD_S * 1e9, 1) if share > 0 else []
        if not tasks:
            return
        call, blob, buffers, shared = link.make_call(tasks)
        link.handle.ask(
            "work", (call, blob, buffers, shared), lambda value, error: self._returned(link, call, value, error)
        )
        if link.listeners and not link.is_listening:
            self.outcomes.listen(link)
        self._look_soon()

    def _is_quick(self, link: FarLink) -> bool:
        """Whether what a worker has will be done soon, so that the next call is better on its way already."""
        samples = [task for _, task in zip(range(3), link.tasks.values(), strict=False)]
        longest = max(task.function.estimate_ns for task in samples)
        return len(link.tasks) * longest < limits.POOL_FAR_AHEAD_S * 1e9 and not link.listeners

    # -- answers ---------------------------------------------------------------------------------------------------
    def _returned(self, link: FarLink, call: int, value: Any, error: BaseException | None) -> None:
        """A call has ended."""
        if link.state is State.GONE:
            return
        if isinstance(error, Lost):
            self.crew.lost(str(error))
            return
        if isinstance(error, Died):
            self.crew.died(link, str(error))
            return
        first, end = link.calls.pop(call)
        if error is not None:  # the engine could not carry it
            for number in range(first, end):
                if (task := link.pop(number)) is not None:
                    self.discard(task, error)
        else:
            frames, buffers, link.rss = value
            self.outcomes.settle(link, frames, buffers)
            self.deal_again(
                task for number in range(first, end) if (task := link.pop(number)) is not None
            )  # not begun: revoked, or more results than fit
        link.since = monotonic()
        self.meter.fold()
        if not link.tasks:
            link.idle_since = link.since
            if link.grace is not None:
                link.grace.cancel()
                link.grace = None
            self.crew.is_idle(link)
        if self.queue:
            self.deal_soon()
        else:
            self._maybe_closed()

    # -- looking after those who take long ---------------------------------------------------------------------------
    def _look_soon(self) -> None:
        if self._looking is None:
            self._looking = self.loop.call_later(limits.POOL_FAR_LOOK_S, self._look)

    def _look(self) -> None:
        self._looking = None
        now = monotonic()
        for link in self.crew.ready():
            front = link.front()
            if front is None:
                continue
            self._look_soon()
            took_s = now - link.since
            if took_s < limits.POOL_FAR_LOOK_S:
                continue
            number, task = front
            if len(link.tasks) > 1 and not link.is_peeking and link.peeked_at != number:
                self._peek(link)
            timeout_s = task.options.timeout
            if timeout_s is None or took_s < timeout_s or link.expired == number:
                continue
            if not link.is_peeking:
                self._expire(link, number, task, timeout_s)
            elif took_s > timeout_s + limits.POOL_FAR_LATE_S:
                link.expired = number  # C code that keeps the interpreter's lock, or a machine that stands still
                link.handle.kill()

    def _expire(self, link: FarLink, number: int, task: Task, timeout_s: float) -> None:
        """Ask a worker whether a task is out of time; only there is known when it began."""
        link.is_peeking = True

        def answered(value: tuple[far.Peeked, bool] | None, error: BaseException | None) -> None:
            link.is_peeking = False
            if error is not None or value is None or link.state is not State.READY:
                return
            seen, is_over = value
            self._seen(link, seen)
            if is_over:
                link.expired = number
                self._end_in(link, limits.POOL_FAR_LATE_S + limits.POOL_STOP_GRACE_S)
                self.outcomes.expire(task)

        link.handle.ask("expire", (number, timeout_s, link.next_task), answered)

    def _end_in(self, link: FarLink, delay_s: float) -> None:
        """Have the engine end a worker that does not end by itself, nor its task."""
        if link.grace is None:
            link.grace = self.loop.call_later(delay_s, link.handle.kill)

    def _peek(self, link: FarLink) -> None:
        """Fetch results that are held behind a task that takes long, and take back what has not begun."""
        link.is_peeking = True

        def peeked(seen: far.Peeked | None, error: BaseException | None) -> None:
            link.is_peeking = False
            if error is None and seen is not None and link.state is State.READY:
                self._seen(link, seen)

        link.handle.ask("peek", (link.next_task,), peeked)

    def _seen(self, link: FarLink, seen: far.Peeked) -> None:
        link.peeked_at = seen.started
        link.rss = seen.rss or link.rss
        link.since = max(link.since, monotonic() - seen.for_ns / 1e9)
        for frames in seen.frames:
            self.outcomes.settle(link, frames, ())
        self.deal_again(link.take_from(seen.started + 1))

    # -- tasks that are not wanted any more ------------------------------------------------------------------------
    def stop(self, task: Task) -> None:
        """The caller of a task has its outcome, a cancel: free what it holds, and stop it where it runs."""
        self.meter.cancelled += 1
        link: Any = task.link
        self.release(task)
        if link is None:
            self.queue.forget(task)
            if isinstance(task, FutureTask):
                task.notify_cancel()
            self._maybe_closed()
        elif link.state is State.READY:
            self._halt(link, task)

    def _halt(self, link: FarLink, task: Task) -> None:
        number = task.number

        def seen(found: far.Peeked | None, error: BaseException | None) -> None:
            if error is not None or found is None or link.state is not State.READY:
                return  # if it is dead, the call says so, too
            self._seen(link, found)
            if found.started == number and found.is_running:
                self.meter.stopped += 1
                if link.grace is None:
                    link.grace = self.loop.call_later(
                        limits.POOL_FAR_LATE_S + limits.POOL_STOP_GRACE_S, link.handle.kill
                    )

        link.handle.ask("stop", (number, link.next_task), seen)

    def release(self, task: Task) -> None:
        """Let go of what an unfinished task holds: its arguments and its place. Safe to call twice."""
        if task.call is None:
            return
        task.call = task.parcel = None
        if self._attempts:
            self._attempts.pop(task, None)
        if self._admission is not None and task.number != NO_PLACE:
            self._admission.leave()

    def discard(self, task: Task, error: BaseException) -> None:
        """Fail a task without a result."""
        self.release(task)
        if isinstance(task, FutureTask) and not task.done():
            task.begin()
        task._fail(error)

    # -- workers that are gone ---------------------------------------------------------------------------------------
    def bury(self, link: FarLink, found: tuple[far.Peeked, int] | None, why: str) -> None:
        """A worker has died: settle the task it ran, and the ones it had not begun. `found`: what its page tells."""
        again: list[Task] = []
        if found is not None:
            seen, expired = found
            for frames in seen.frames:
                self.outcomes.settle(link, frames, ())
            link.expired = link.expired or expired
            ran = {number for frames in seen.frames for kind, number, _, _ in far.frames_in(frames) if kind == far.RAN}
            has_begun = seen.is_running or seen.started in ran
            again = link.take_from(seen.started + has_begun)
        what = f"a worker of {self.cluster.name}"
        if link.started is not None:
            what = f"{self.cluster.name} worker {link.started.pid} on {link.started.host}"
        for number in list(link.tasks):
            task = link.pop(number)
            assert task is not None
            if task.done():
                continue
            if number == link.expired:
                self.outcomes.expire(task)
            elif (retried := self.once_more(task)) is not None:
                again.append(retried)
            else:
                self.discard(task, worker_gone(f"{what} ended while it ran {task.function.name}: {why}"))
        if self.broken is not None:
            for task in again:
                self.discard(task, self.broken)
            again = []
        self.deal_again(again)
        self.deal_soon()  # what waited for this worker needs another

    def once_more(self, task: Task) -> Task | None:
        """Return a task that may be run again, None for one that may not."""
        tried = self._attempts.get(task, 0)
        if not task.options.idempotent or task.stream is not None or tried >= limits.POOL_RETRIES:
            return None
        self._attempts[task] = tried + 1
        self.meter.retried += 1
        return task

    def fail_waiting(self, error: BaseException) -> None:
        """There will be no worker for what waits: it fails, and what comes later tries again."""
        for task in self.queue.clear():
            self.discard(task, error)
        self.crew.tell_ready(error)
        self._maybe_closed()

    def lose(self, link: FarLink, reason: str) -> None:
        """The engine cannot be reached: what a worker had may have run."""
        again = []
        for number in list(link.tasks):
            task = link.pop(number)
            assert task is not None
            if task.done():
                continue
            if (retried := self.once_more(task)) is not None:
                again.append(retried)
            else:
                self.discard(
                    task, EngineLost(f"{self.cluster.address} was lost while {task.function.name} ran there: {reason}")
                )
        self.queue.push_back(again)

    def break_down(self, error: BaseException, cause: BaseException | None) -> None:
        """No worker can start: all tasks fail, now and later."""
        if self.broken is not None:
            return
        error.__cause__ = cause
        self.broken = error
        self.is_open = False
        _log.critical("pool %s: %s", self.config.name, error, exc_info=cause)
        self.fail_waiting(error)

    # -- the end ---------------------------------------------------------------------------------------------------
    def close(self, then: Callable[[], Any], *, cancel_waiting: bool, force: bool) -> None:
        """Take no more tasks, finish those that were accepted, end the workers, then call `then`."""
        self.is_open = False
        before = self._closed
        self._closed = then if before is None else lambda: (before(), then())
        if self._is_closed:
            then()
            return
        self.crew.tell_ready(self.broken or refusal())
        if cancel_waiting or force:
            for task in self.queue.clear():
                self._cancel(task)
        if force:
            for link in self.crew.links:
                for task in list(link.tasks.values()):
                    self._cancel(task)
            self.crew.end_all(kill=True)
        self._maybe_closed()

    def _cancel(self, task: Task) -> None:
        if not task.done():
            self.meter.cancelled += 1
            self.discard(task, asyncio.CancelledError())

    def _maybe_closed(self) -> None:
        if self._closed is None or self._is_closed or self.queue:
            return
        if any(link.tasks for link in self.crew.links if link.state is not State.GONE):
            return
        self._is_closed = True
        self._stop_timers()
        self.crew.end_all(kill=False)
        self.cluster.close()
        self._closed()

    def abandon(self) -> None:
        """End all at once and without waiting: the loop or the program ends."""
        self.is_open = False
        self._is_closed = True
        tasks = [*self.queue.clear(), *(task for link in self.crew.links for task in link.tasks.values())]
        self._stop_timers()
        self.crew.end_all(kill=True)
        self.cluster.close()
        for task in tasks:
            if task.done():
                continue
            if isinstance(task, FutureTask):
                self.discard(task, refusal())
            elif not self.loop.is_closed():
                self.discard(task, asyncio.CancelledError())
            else:
                self.release(task)

    def _stop_timers(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        self.crew.stop_timers()

    def forget(self) -> None:
        """In a forked child: nothing of it is here."""

    # -- numbers ---------------------------------------------------------------------------------------------------
    def resize(self, workers: int) -> None:
        """Change how many workers there may be."""
        self.crew.resize(workers)
        self.deal_soon()

    def when_ready(self, then: Callable[[BaseException | None], Any]) -> None:
        """Start all workers; call `then` when they are ready, or with the reason why they never will be."""
        self.crew.when_ready(then)

    def drop(self, key: int) -> None:
        """A value that was put is not held any more."""
        for link in self.crew.links:
            link.forget_shared(key)

    @property
    def queued(self) -> int:
        """How many tasks wait, sent ahead or not."""
        return len(self.queue) + sum(max(0, len(link.tasks) - 1) for link in self.crew.links)

    @property
    def running(self) -> int:
        """How many workers run a task."""
        return sum(bool(link.tasks) for link in self.crew.links)

    def workers(self) -> tuple[PoolWorkerStatistics, ...]:
        """Return a snapshot of each worker."""
        return tuple(link.statistics() for link in list(self.crew.links))
