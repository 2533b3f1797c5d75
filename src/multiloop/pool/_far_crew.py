"""The workers of one pool on other machines: connecting to the engine, starting, replacing and ending them.

What lives here: `FarCrew`. What must not: tasks, except for handing those of a dead worker back to the engine.

    connect ─→ start → STARTING → READY → LEAVING (idle for long, recycled, too many) or GONE
       ↑ again, with growing pauses, once the engine was lost
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from .. import _limits as limits
from ..errors import EngineLost, PoolBroken
from . import _assign as assign
from . import _far_protocol as far
from ._deaths import pool_broken
from ._far_cluster import Died, Lost
from ._far_link import FarLink, State

if TYPE_CHECKING:
    from ._engine_far import FarEngine

_log = logging.getLogger("multiloop.pool")


class FarCrew:
    """All workers that are not gone."""

    def __init__(self, engine: FarEngine, limit: int) -> None:
        self._engine = engine
        self._config = engine.config
        self.links: list[FarLink] = []
        self.limit = limit
        self.is_connected = False
        self._was_connected = False
        self._is_connecting = False
        self._wanted = 0  # workers to start once there is a connection
        self._lost_at = 0.0
        self._pause_s = 0.0
        self._boots = assign.BootRecord()
        self._timers: set[Any] = set()
        self._waiting_for_ready: list[Callable[[BaseException | None], Any]] = []
        self._number = 0
        self._is_over = False
        self._has_warned = False

    def ready(self) -> list[FarLink]:
        """Return the workers that take tasks."""
        return [link for link in self.links if link.state is State.READY]

    @property
    def working(self) -> int:
        """How many run tasks or will soon."""
        return sum(link.state in (State.STARTING, State.READY) for link in self.links)

    def left_of(self, link: FarLink) -> int | None:
        """Return how many more tasks a worker may get before it is recycled; None: any number."""
        most = self._config.recycle_after_tasks
        return None if most is None else most - link.completed - len(link.tasks)

    # -- the connection --------------------------------------------------------------------------------------------
    def _connect(self) -> None:
        if self._is_connecting or self._is_over:
            return
        self._is_connecting = True
        cluster, returns = self._engine.cluster, self._engine.returns

        def work() -> None:
            try:
                room = cluster.connect()
            except BaseException as error:
                returns.put(self._connected, None, error)
            else:
                returns.put(self._connected, room, None)

        threading.Thread(target=work, name="multiloop-connect", daemon=True).start()

    def _connected(self, room: int | None, error: BaseException | None) -> None:
        self._is_connecting = False
        if self._is_over:
            return
        if error is None:
            assert room is not None
            self.is_connected = self._was_connected = True
            self._pause_s = 0.0
            self._engine.has_room_for(room)
            self._later(limits.POOL_FAR_CHECK_S, self._check)
            wanted, self._wanted = self._wanted, 0
            self._start_some(wanted)
            self._engine.deal_soon()
            return
        address = self._engine.cluster.address
        reason = str(error) or type(error).__name__
        failure = error if isinstance(error, EngineLost) else EngineLost(f"cannot connect to {address}: {reason}")
        failure.__cause__ = error
        if not self._was_connected or monotonic() - self._lost_at > limits.POOL_FAR_RECONNECT_S:
            self._wanted = 0
            self._engine.fail_waiting(failure)
            return
        _log.warning("pool %s: %s", self._config.name, failure)
        self._pause_s = min(limits.POOL_FAR_PAUSE_MAX_S, self._pause_s * 2 or limits.POOL_FAR_PAUSE_S)
        self._later(self._pause_s, self._connect)

    def _check(self) -> None:
        """Ask now and then whether the engine is there, so that its loss is known before a task meets it."""
        if not self.is_connected:
            return
        cluster, returns = self._engine.cluster, self._engine.returns

        def checked(is_alive: bool, _: BaseException | None) -> None:
            if self._is_over or not self.is_connected:
                return
            if is_alive:
                self._later(limits.POOL_FAR_CHECK_S, self._check)
            else:
                self.lost("it does not answer any more")

        threading.Thread(
            target=lambda: returns.put(checked, cluster.is_alive(), None), name="multiloop-check", daemon=True
        ).start()

    def lost(self, reason: str) -> None:
        """The engine cannot be reached any more: its workers are gone, what waits waits for the next connection."""
        if not self.is_connected:
            return
        self.is_connected = False
        self._lost_at = monotonic()
        _log.error(
            "pool %s: the connection to %s was lost: %s", self._config.name, self._engine.cluster.address, reason
        )
        links, self.links = self.links, []
        for link in links:
            link.state = State.GONE
            self._engine.lose(link, reason)
        if self._engine.queue or self._waiting_for_ready:
            self._wanted = max(1, min(self.limit, len(self._engine.queue)))
            self._connect()
        self._engine.deal_soon()

    # -- starting --------------------------------------------------------------------------------------------------
    def grow(self, waiting: int) -> None:
        """Start as many workers as the waiting tasks want."""
        starting = sum(link.state is State.STARTING for link in self.links)
        self._start_some(assign.wanted(self.working, starting, 0, waiting, self.limit))

    def fill_up(self) -> None:
        """Start all workers that the pool may have."""
        self._start_some(self.limit - self.working if self.is_connected else sys.maxsize)

    def _start_some(self, count: int) -> None:
        if count <= 0 or self._is_over or self._engine.broken is not None:
            return
        if not self.is_connected:
            self._wanted = max(self._wanted, count)
            self._connect()
            return
        delay_s = self._boots.delay_s
        if delay_s:
            self._later(delay_s, self._start)
            return
        for _ in range(min(count, self.limit - self.working)):
            self._start()

    def _start(self) -> None:
        if self._is_over or not self.is_connected or self._engine.broken is not None or self.working >= self.limit:
            return
        self._number += 1
        link = FarLink(self._number)
        self.links.append(link)
        boot = boot_of(self._engine, self._number)
        link.handle = self._engine.cluster.start(boot, partial(self._started, link))
        self._later(limits.POOL_FAR_SLOW_START_S, partial(self._warn, link))

    def _warn(self, link: FarLink) -> None:
        if link.state is State.STARTING and not self._has_warned:
            self._has_warned = True
            _log.warning(
                "pool %s: %s has had no room for a worker for %d s; it has free: %s",
                self._config.name, self._engine.cluster.address, limits.POOL_FAR_SLOW_START_S, self._engine.cluster.room(),
            )  # fmt: skip

    def _started(self, link: FarLink, started: far.Started | None, error: BaseException | None) -> None:
        if link.state is not State.STARTING:
            return
        if error is None and started is not None:
            link.started = started
            link.state = State.READY
            link.handle.when_gone(partial(self._gone, link))
            link.idle_since = monotonic()
            self._boots.ready()
            self._later(limits.POOL_FAR_IDLE_S, partial(self._leave_if_idle, link))
            self.tell_ready(None)
            self._engine.deal_soon()
            return
        link.state = State.GONE
        self.links.remove(link)
        if isinstance(error, Lost):
            self.lost(str(error))
        elif isinstance(error, Died):
            if self._boots.died(None):
                self._engine.break_down(pool_broken(f"its workers die when they start: {error}"), error)
            else:
                self._later(self._boots.delay_s, self._engine.deal_soon)
        else:
            assert error is not None
            link.handle.kill()
            cause = error.__cause__ if isinstance(error, PoolBroken) and error.__cause__ is not None else error
            said = f"{type(cause).__name__}: {cause}"
            self._engine.break_down(pool_broken(f"a worker cannot start: {said}"), cause)

    def when_ready(self, then: Callable[[BaseException | None], Any]) -> None:
        """Start all workers, and tell when they are ready."""
        self._waiting_for_ready.append(then)
        if self._engine.broken is not None:
            self.tell_ready(self._engine.broken)
        self.fill_up()
        self.tell_ready(None)

    def tell_ready(self, error: BaseException | None) -> None:
        """Tell those who wait for the workers, if it is time."""
        if error is None and (not self.is_connected or len(self.ready()) < self.limit):
            return
        waiting, self._waiting_for_ready = self._waiting_for_ready, []
        for then in waiting:
            then(error)

    # -- ending ----------------------------------------------------------------------------------------------------
    def _gone(self, link: FarLink, error: Exception) -> None:
        """The engine says so by itself."""
        if isinstance(error, Lost):
            self.lost(str(error))
        else:
            self.died(link, str(error))

    def died(self, link: FarLink, why: str) -> None:
        """A worker is gone: find out what it was doing."""
        if link.state is State.GONE:
            return
        link.state = State.GONE
        self._engine.meter.died += not link.expired
        if link.grace is not None:
            link.grace.cancel()

        def salvaged(found: Any, error: BaseException | None) -> None:
            if link in self.links:
                self.links.remove(link)
            self._engine.bury(link, found if error is None else None, why)

        link.handle.salvage(link.started, salvaged)

    def is_idle(self, link: FarLink) -> None:
        """A worker has nothing to do: it may have to leave."""
        left = self.left_of(link)
        age = self._config.recycle_after_age
        rss = self._config.recycle_above_rss
        is_due = left is not None and left <= 0
        is_due = is_due or (age is not None and monotonic() - link.born > age)
        is_due = is_due or (rss is not None and link.rss > rss)
        if is_due:
            self._engine.meter.recycled += 1
        if is_due or self.working > self.limit:
            self._leave(link)

    def _leave_if_idle(self, link: FarLink) -> None:
        """Give a worker's resources back to the cluster when nobody has needed it for long."""
        if link.state is not State.READY:
            return
        idle_s = monotonic() - link.idle_since if not link.tasks else 0.0
        if idle_s >= limits.POOL_FAR_IDLE_S and not self._config.warm:
            self._leave(link)
        else:
            self._later(max(0.05, limits.POOL_FAR_IDLE_S - idle_s), partial(self._leave_if_idle, link))

    def _leave(self, link: FarLink) -> None:
        link.state = State.GONE
        if link in self.links:
            self.links.remove(link)
        link.handle.leave()
        if self._config.warm and not self._is_over:
            self._start()

    def resize(self, workers: int) -> None:
        """Change how many workers there may be."""
        self.limit = workers
        for link in self.ready():
            if not link.tasks and self.working > self.limit:
                self._leave(link)
        if self._config.warm:
            self.fill_up()

    def end_all(self, *, kill: bool) -> None:
        """End all workers."""
        self._is_over = True
        links, self.links = self.links, []
        for link in links:
            is_ready = link.state is State.READY
            link.state = State.GONE
            if link.handle is None:
                continue
            if kill or not is_ready:
                link.handle.kill()
            else:
                link.handle.leave()

    # -- timers ----------------------------------------------------------------------------------------------------
    def _later(self, delay_s: float, function: Callable[[], Any]) -> None:
        def run() -> None:
            self._timers.discard(timer)
            function()

        timer = self._engine.loop.call_later(delay_s, run)
        self._timers.add(timer)

    def stop_timers(self) -> None:
        """Stop them all."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()


def boot_of(engine: FarEngine, number: int) -> far.Boot:
    """Return what a worker is told before its first task."""
    from .. import __version__

    config = engine.config
    return far.Boot(
        name=config.name,
        number=number,
        version=__version__,
        python=sys.version_info[:2],
        path=tuple(sys.path),
        context=config.context,
        initializer=config.initializer,
        finalizer=config.finalizer,
        nice=config.nice,
        tells_rss=config.recycle_above_rss is not None,
    )
