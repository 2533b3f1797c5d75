"""Tasks that are taken back from workers: robbed for an idle one, stopped, out of time; and results that are looked up.

What lives here: `Recall`, the timers and decisions of one engine for all that. What must not: dealing (`_engine_local`),
killing itself (`_crew`), the exact protocol of revoking (`_link.revoke`).
"""

from __future__ import annotations

import asyncio
from time import monotonic_ns
from typing import TYPE_CHECKING

from . import _assign as assign
from ._link import Link, State
from ._protocol import COOPERATIVE, FINISHED, GRACE_MS, HELD, STARTED, STARTED_NS, STOP_ASKED

if TYPE_CHECKING:
    from ._engine_local import LocalEngine
    from ._tasks import Task

_PEEK_S = 0.002  # how long a result may be held by a worker whose next task is not as tiny as the ones before


class Recall:
    """What an engine does when a worker is not done with its tasks as expected."""

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine
        self._robbery: asyncio.TimerHandle | None = None
        self._peeking: asyncio.TimerHandle | None = None

    def end(self) -> None:
        """Stop the timers."""
        for timer in (self._robbery, self._peeking):
            if timer is not None:
                timer.cancel()

    # -- for idle workers ------------------------------------------------------------------------------------------
    def plan_robbery(self) -> None:
        """Look in a moment whether tasks wait behind one that takes long, while a worker is idle."""
        if self._robbery is None and any(len(link.outstanding) > 1 for link in self._engine.crew.links):
            self._robbery = self._engine.loop.call_later(assign.ROB_AFTER_S, self._rob)

    def _rob(self) -> None:
        self._robbery = None
        engine = self._engine
        if not engine.idle or engine.queue:
            return
        before = monotonic_ns() - assign.ROB_AFTER_S * 1e9
        for link in engine.crew.ready():
            if link.unstarted > 1 and link.is_running and link.words[STARTED_NS] < before:
                self.take_back(link)
        self.plan_robbery()

    def take_back(self, link: Link) -> None:
        """Deal the tasks of a worker that have not begun to others."""
        self._engine.deal_again(link.revoke(link.words[STARTED] + 1))

    # -- results that lie about ------------------------------------------------------------------------------------
    def plan_peek(self) -> None:
        """Look in a moment whether results are held behind a task that takes long."""
        if self._peeking is None:
            self._peeking = self._engine.loop.call_later(_PEEK_S, self._peek)

    def _peek(self) -> None:
        self._peeking = None
        before = monotonic_ns() - _PEEK_S * 1e9
        links = [link for link in self._engine.crew.ready() if len(link.outstanding) > 1]
        for link in links:
            if link.words[HELD] and link.words[STARTED_NS] < before:
                link.results.peek()
        if links:
            self.plan_peek()

    # -- tasks that are not wanted any more ------------------------------------------------------------------------
    def halt(self, link: Link, task: Task) -> None:
        """Keep a task from beginning or end it; the tasks behind it go to others and do not notice."""
        engine, number = self._engine, task.number
        back = link.revoke(number)
        if task.link is None:  # it had not begun, and nothing needs to be killed
            engine.deal_again(back)
            if not link.outstanding and link.state is State.READY:
                engine.is_free(link)
            return
        engine.deal_again(back)
        words = link.words
        if words[FINISHED] >= number or link.state is State.STOPPING:
            return  # its result is on its way, or it was asked before
        engine.meter.stopped += 1
        if words[COOPERATIVE] == number and words[GRACE_MS]:
            link.state = State.STOPPING
            words[STOP_ASKED] = number
            if task.stream is not None:
                link.send_credit(task, 0)
            link.grace = engine.loop.call_later(words[GRACE_MS] / 1000, lambda: engine.crew.kill(link, replace=True))
        else:
            engine.crew.kill(link, replace=True)

    def watch(self, link: Link) -> None:
        """Set the timer for the task in front, if it has a time limit."""
        timeout_s = link.outstanding[0].options.timeout
        if timeout_s is None:
            return
        due_ns = monotonic_ns() + int(timeout_s * 1e9)
        if link.deadline is not None:
            if link.deadline_ns <= due_ns:
                return  # it will look again when it fires
            link.deadline.cancel()
        link.deadline_ns = due_ns
        link.deadline = self._engine.loop.call_later(timeout_s, self._expire, link)

    def _expire(self, link: Link) -> None:
        link.deadline = None
        if not link.outstanding or link.state is not State.READY:
            return
        task = link.outstanding[0]
        timeout_s = task.options.timeout
        if timeout_s is None:
            return
        left_s = timeout_s
        if link.words[STARTED] == task.number:
            if link.words[FINISHED] == task.number:
                return  # its result is on its way
            left_s -= (monotonic_ns() - link.words[STARTED_NS]) / 1e9
        if left_s > 0:
            link.deadline_ns = monotonic_ns() + int(left_s * 1e9)
            link.deadline = self._engine.loop.call_later(left_s + 0.001, self._expire, link)
            return
        self._engine.meter.timed_out += 1
        self.halt(link, task)
        self._engine.discard(
            task, TimeoutError(f"{task.function.name} ran for longer than {timeout_s:g} s and was stopped")
        )
