"""The workers of one pool: starting, replacing, recycling and ending them.

What lives here: `Crew`. What must not: tasks, except for handing those of a dead worker back to the engine.

    start → BOOTING → READY ⇄ STOPPING → LEAVING or KILLED → GONE      (the life of a link, `_link.State`)
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from functools import partial
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from .. import _limits as limits
from ..worker_threads._authkey import authkey
from ..worker_threads._main_module import describe_main
from . import _assign as assign
from ._bodies import ProcessBody
from ._deaths import pool_broken
from ._link import Link, State
from ._options import PoolConfig
from ._protocol import STARTED
from ._rights import close_all
from ._spawn import collect, spawn

if TYPE_CHECKING:
    from ..child_process._process import Process
    from ._engine_local import LocalEngine

_log = logging.getLogger("multiloop.pool")

_WORKING = (State.BOOTING, State.READY, State.STOPPING)


class Crew:
    """All workers that are not gone."""

    def __init__(self, engine: LocalEngine, limit: int) -> None:
        self._engine = engine
        self._config = engine.config
        self.links: list[Link] = []
        self.limit = limit
        self.may_grow = True
        self.is_closing = False
        self._boots = assign.BootRecord()
        self._start_timer: Any = None
        config = self._config
        self._looks_at_memory = config.recycle_above_rss is not None or config.recycle_after_age is not None
        self._recycles = self._looks_at_memory or config.recycle_after_tasks is not None
        self._looks = self._recycles  # whether a free worker is to be looked at

    # -- numbers ---------------------------------------------------------------------------------------------------
    @property
    def working(self) -> int:
        """How many workers run tasks or will soon."""
        return sum(link.state in _WORKING for link in self.links)

    def ready(self) -> list[Link]:
        """Return the workers that take tasks."""
        return [link for link in self.links if link.state is State.READY]

    # -- starting --------------------------------------------------------------------------------------------------
    def grow(self, waiting: int) -> None:
        """Start as many workers as the waiting tasks want."""
        starting = sum(link.state is State.BOOTING for link in self.links)
        for _ in range(assign.wanted(self.working, starting, len(self._engine.idle), waiting, self.limit)):
            self._start_soon()
        self._note()

    def fill_up(self) -> None:
        """Start all workers that the pool may have."""
        for _ in range(self.limit - self.working):
            self._start_soon()
        self._note()

    def _note(self) -> None:
        """Remember what is asked for with each task."""
        working = self.working
        self.may_grow = not self.is_closing and working < self.limit
        self._looks = self._recycles or working > self.limit

    def _start_soon(self) -> None:
        if self.is_closing or self._engine.broken is not None or self._start_timer is not None:
            return
        delay_s = self._boots.delay_s
        if delay_s:
            self._start_timer = self._engine.loop.call_later(delay_s, self._start_delayed)
        else:
            self._start()

    def _start_delayed(self) -> None:
        self._start_timer = None
        if self.is_closing or self._engine.broken is not None:
            return
        self._start()
        # The others that were wanted wait for the outcome of this one.

    def _start(self) -> None:
        slot = min(set(range(len(self.links) + 1)) - {link.slot for link in self.links})
        try:
            link = Link(self._engine, slot)
        except OSError as error:  # no descriptor left: the next task tries again
            self._cannot_start(error)
            return
        self.links.append(link)
        link.attach()
        cores = self._config.cores
        link.send_boot(boot_options(self._config, cores[slot % len(cores)] if cores else None))
        if self._config.kind != "process":
            self._start_inside(link)
            return
        driver = self._engine.driver

        def born(process: Process | None, error: BaseException | None) -> None:
            if not driver.call(self._born, link, process, error) and process is not None:
                collect(process)  # that loop is closed

        spawn(link.worker_socket, link.page_descriptor, self._config.name, born)

    def _start_inside(self, link: Link) -> None:
        """Start a worker that lives in this process."""
        from ._bodies_inside import InterpreterBody, ThreadBody

        kind = InterpreterBody if self._config.kind == "interpreter" else ThreadBody
        try:
            link.body = kind(link.worker_socket, link.page_descriptor, f"{self._config.name}-{link.slot}")
        except (OSError, RuntimeError) as error:  # no descriptor or no thread left
            close_all((link.worker_socket, link.page_descriptor))
            self._engine.loop.call_soon(self._not_born, link, error)
            return
        link.body.watch(self._engine.loop, partial(self._gone, link))

    def _cannot_start(self, error: BaseException | None) -> None:
        """A worker could not be made. Where there are others they do the work; else nobody would."""
        if not any(link.state in _WORKING for link in self.links):
            self._engine.fail_waiting(pool_broken(f"no worker can be started: {error}"), error)
        else:
            _log.warning("pool %s: a worker could not be started: %s", self._config.name, error)

    def _born(self, link: Link, process: Process | None, error: BaseException | None) -> None:
        if process is None:
            self._not_born(link, error)
            return
        link.body = ProcessBody(process)
        if link.state is State.GONE:  # abandoned meanwhile
            link.body.abandon()
            return
        link.body.watch(self._engine.loop, partial(self._gone, link))
        if link.state is State.KILLED:
            link.body.kill()

    def _not_born(self, link: Link, error: BaseException | None) -> None:
        if link.state is not State.GONE:
            self.links.remove(link)
            link.close()
            self._note()
            self._cannot_start(error)

    def became_ready(self, link: Link) -> None:
        """The initializer has run."""
        if link.state is State.BOOTING:
            link.state = State.READY
            self._boots.ready()
            self._engine.is_free(link)
            self._engine.check_ready()

    # -- ending ----------------------------------------------------------------------------------------------------
    def kill(self, link: Link, *, replace: bool) -> None:
        """End a worker now. Its tasks are seen to when it is gone."""
        if link.state in (State.KILLED, State.GONE):
            return
        link.state = State.KILLED
        self._engine.is_not_free(link)
        if link.body is not None:
            link.body.kill()
            if link.body.can_stick:
                link.hang_up()
                self._grace(link, limits.TERMINATE_S + limits.INTERRUPT_INTERVAL_S, self._stuck)
        if replace:
            self.replace()
        self._note()

    def leave(self, link: Link, *, replace: bool) -> None:
        """Tell a worker without tasks to run its finalizer and leave; kill it when that takes too long."""
        if link.state is State.BOOTING:
            self.kill(link, replace=replace)
            return
        if link.state not in (State.READY, State.STOPPING):
            return
        link.state = State.LEAVING
        self._engine.is_not_free(link)
        link.send_exit()
        self._grace(link, limits.POOL_EXIT_GRACE_S, self._kill_late)
        if replace:
            self.replace()
        self._note()

    def _grace(self, link: Link, seconds: float, then: Callable[[Link], None]) -> None:
        if link.grace is not None:
            link.grace.cancel()
        link.grace = self._engine.loop.call_later(seconds, then, link)

    def _kill_late(self, link: Link) -> None:
        self.kill(link, replace=False)

    def _stuck(self, link: Link, is_late: bool = False) -> None:
        """A worker inside this process does not stop: go on without it."""
        body: Any = link.body
        if isinstance(body, ProcessBody) or body is None or link.state is State.GONE:
            return
        stack = body.stack()
        if not stack and not is_late:  # it was seen to stop, and ends slowly; or nothing in it runs for want of a core
            self._grace(link, limits.STUCK_S - limits.TERMINATE_S, partial(self._stuck, is_late=True))
            return
        body.give_up(stack)
        _log.error(
            "pool %s: the worker (%s) does not stop: it is inside C code, or handles every exception. It is left "
            "behind; what must be stoppable needs kind='process'. It is at\n%s",
            self._config.name,
            body.label,
            stack or "(not known)",
        )
        self._bury(link, State.KILLED)

    def replace(self) -> None:
        """Start one worker for one that ends."""
        if self.working < self.limit:
            self._start_soon()

    def recycles(self, link: Link) -> bool:
        """Whether a worker without tasks is due to be replaced; it is then told to leave."""
        if not self._looks:
            return False
        if self.working > self.limit:
            self.leave(link, replace=False)
            return True
        config = self._config
        rss_bytes, now = 0, monotonic_ns()
        if config.recycle_above_rss is not None and now >= link.next_look_ns and link.body is not None:
            link.next_look_ns = now + int(limits.POOL_LOOK_INTERVAL_S * 1e9)
            rss_bytes = link.body.memory_bytes()
        reason = assign.recycle_reason(
            link.completed,
            (now - link.born_ns) / 1e9,
            rss_bytes,
            tasks=config.recycle_after_tasks,
            age=config.recycle_after_age,
            rss=config.recycle_above_rss,
            jitter=link.jitter,
        )
        if reason:
            self._engine.meter.recycled += 1
            self.leave(link, replace=True)
        return bool(reason)

    def is_due(self, link: Link) -> bool:
        """Whether a busy worker's memory or age is to be looked at: it then gets nothing ahead."""
        return self._looks_at_memory and monotonic_ns() >= link.next_look_ns

    def resize(self, limit: int) -> None:
        """Change how many workers there may be. Those that are too many leave after the task they run."""
        self.limit = limit
        surplus = self.working - limit
        for link in [*(link for link in self.links if link.state is State.BOOTING), *self._engine.idle[:]]:
            if surplus > 0:
                self.leave(link, replace=False)
                surplus -= 1
        for link in self.ready():
            if surplus > 0:
                self._engine.recall.take_back(link)  # `recycles` sees to it when it has finished
                surplus -= 1
        self._note()

    # -- the end ---------------------------------------------------------------------------------------------------
    def ended(self, link: Link) -> None:
        """The socket of a worker has ended. Its process follows in a moment, or is made to."""
        if link.state in (State.READY, State.STOPPING, State.BOOTING):
            self._grace(link, 1.0, self._kill_late)

    def _gone(self, link: Link) -> None:
        """The process of a worker has ended: settle what it finished, hand back the rest, replace it."""
        if link.state is not State.GONE:
            self._bury(link, link.state)

    def _bury(self, link: Link, was: State) -> None:
        link.state = State.KILLED
        self._engine.is_not_free(link)
        link.results.drain()
        assert link.body is not None
        exit_code, what = link.body.exit_code, f"the worker ({link.body.label})"
        started = link.words[STARTED]
        outstanding = list(link.outstanding)
        link.outstanding.clear()
        link.close()
        self.links.remove(link)
        if was is State.BOOTING:
            self._boot_failed(link, what, exit_code)
        elif was in (State.READY, State.STOPPING):
            self._engine.meter.died += 1
            self.replace()
        self._note()
        self._engine.bury(
            [task for task in outstanding if task.number <= started],
            [task for task in outstanding if task.number > started],
            what,
            exit_code,
        )

    def _boot_failed(self, link: Link, what: str, exit_code: int | None) -> None:
        error = link.boot_error
        if error is not None:
            self._engine.break_down(pool_broken(f"its initializer raised {error!r}"), error)
        elif self._boots.died(exit_code):
            how = f"signal {-exit_code}" if exit_code is not None and exit_code < 0 else f"exit code {exit_code}"
            self._engine.break_down(pool_broken(f"{what} ended with {how} before it was ready, as others before"), None)
        else:
            self._engine.meter.died += 1
            self.replace()

    def abandon(self) -> None:
        """Kill all, without waiting: the loop or the program ends."""
        self.is_closing = True
        if self._start_timer is not None:
            self._start_timer.cancel()
        for link in self.links:
            if link.body is not None:
                link.body.abandon()
            link.close()
        self.links.clear()


def boot_options(config: PoolConfig, cores: frozenset[int] | None) -> dict[str, Any]:
    """Return what a worker is told first."""
    sys.modules.setdefault("__mp_main__", sys.modules["__main__"])  # results name classes of the main file so
    try:
        folder = os.getcwd()
    except FileNotFoundError:  # removed while we are in it
        folder = "/"
    return {
        "path": [entry or folder for entry in sys.path],
        "argv": list(sys.argv),
        "main": describe_main(),
        "authkey": authkey(),
        "nice": config.nice,
        "cores": cores,
        "context": config.context,
        "initializer": config.initializer,
        "finalizer": config.finalizer,
        "traces_crashes": sys.stderr is not None,
    }
