"""The primary of `multiloop serve`: one process that owns the listening sockets of one or several applications.

What lives here: `serve` and `Primary`: what all applications share. What must not: one application's workers (`_app`),
decisions (`_supervisor`, `_policy`), what a command does (`_commands`).

    signals, control socket, time ─▶ Primary ─▶ App … App ─▶ workers
                                        └─▶ service manager (readiness, watchdog)
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .. import _limits as limits
from .. import logs
from .._wire import messages as wire
from ..loop import loop_factory
from ..stats import ClusterStatistics
from ._app import App, Exited, Heard
from ._commands import Commands
from ._control import ControlServer
from ._host import made_files, prepared, set_umask
from ._link import KERNEL
from ._listeners import Listener, close_listeners, open_listeners
from ._log_desk import LogDesk
from ._lookout import Lookout
from ._notify import Notifier
from ._observer import Notice, Observer
from ._orphans import Orphans
from ._policy import make_policy
from ._process import Birth, Process
from ._room import max_duplicates, raise_descriptor_limit
from ._service import HTTP_SERVICE
from ._settings import ServeSettings
from ._spawn import Spawner
from ._title import set_title

log = logging.getLogger("multiloop.cluster")

_SAME_SIGNAL_S = 0.1  # SIGTERM again within this time is the same wish (process groups, impatient managers)
_STATUS_INTERVAL_S = 1.0


def serve(
    settings: ServeSettings, *more: ServeSettings, factory: str = HTTP_SERVICE, observer: Observer | None = None
) -> int:
    """Serve until told to stop; return the exit code (`_exit_codes`). Logging is set up by the caller.

    Args:
        settings, more: one application each. What concerns the whole process (`process`, `loop`) is the first one's.
        factory: "module:function" that makes the service in each worker.
        observer: is told what happens; with one, workers measure themselves.

    Raises:
        ConfigError: an address cannot be listened on, or an option is wrong; no worker was started.
    """
    applications = (settings, *more)
    for one in applications:
        make_policy(one.supervisor.policy, one.target.app_dir)
    set_umask(settings.process)
    notifier = Notifier()
    listeners: list[list[Listener]] = []
    try:
        for one in applications:
            made = open_listeners(one.listen, reuse_port=one.supervisor.policy == "reuse_port")
            listeners.append(made)
        raise_descriptor_limit()
        with prepared(settings.process, made_files(settings, listeners)):
            numbers = itertools.count(1)
            apps = [
                App(one, sockets, factory, numbers, label=one.called if more else "")
                for one, sockets in zip(applications, listeners, strict=True)
            ]
            with asyncio.Runner(loop_factory=loop_factory(settings.loop)) as runner:  # type: ignore[arg-type]
                return runner.run(Primary(apps, notifier, observer).live())
    finally:
        notifier.close()
        for sockets in listeners:
            close_listeners(sockets)


class Primary:
    """One run of a primary."""

    def __init__(self, apps: Sequence[App], notifier: Notifier, observer: Observer | None = None) -> None:
        self.apps = tuple(apps)
        self.started_at = time.time()
        self.lookout = Lookout(self.apps, self.started_at, observer)
        self._notifier = notifier
        self._settings = apps[0].settings
        self._signals: Counter[int] = Counter()
        self._stopped_at = 0.0
        self._stopped_now = False
        self._exit_code = 0
        self._over: set[App] = set()
        self._is_announced = False
        self._next_status = 0.0
        self._orphans = Orphans() if os.getpid() == 1 else None

    async def live(self) -> int:
        """Serve until the end; returns the exit code."""
        control = self._settings.process.control
        self.loop = asyncio.get_running_loop()
        self._done: asyncio.Future[int] = self.loop.create_future()
        self.lifeline, self._lifeline_end = os.pipe()  # workers read it; its end tells them that this process is gone
        self._spawner = Spawner(self.loop)
        self.log_desk = LogDesk(self.loop)
        self.clock, self.random, self.kernel = time.monotonic, random.random, KERNEL
        self._commands = Commands(self)
        self._control = ControlServer(control, self._commands.do) if control != "" else None
        set_title(f"multiloop: primary ({', '.join(app.settings.called for app in self.apps)})")
        try:
            if self._control is not None:
                self._control.start()
            self._take_signals()
            room = max_duplicates(sum(app.settings.supervisor.workers for app in self.apps), len(self.apps))
            for app in self.apps:
                app.open(self, room)
            self.lookout.start(self)
            for app in self.apps:
                app.begin()
            self._tick()
            return await self._done
        finally:
            self._end()

    def _end(self) -> None:
        if self._control is not None:
            self._control.close()
        self.lookout.close()
        self.log_desk.close()
        self._spawner.close()
        for app in self.apps:
            app.end()
        for descriptor in (self.lifeline, self._lifeline_end):
            os.close(descriptor)

    def _tick(self) -> None:
        if self._done.done():
            return
        self.loop.call_later(limits.TICK_S, self._tick)
        now = time.monotonic()
        for app in self.apps:
            app.tick(now)
        if self._orphans is not None:
            self._orphans.look(now, {process.pid for app in self.apps for process in app.processes.values()})
        self._notifier.ping(now)
        if now >= self._next_status:
            self._next_status = now + _STATUS_INTERVAL_S
            self._notifier.status(self._commands.summary())

    def start(self, birth: Birth, heard: Heard, exited: Exited) -> Process:
        """Start a worker's process. Raises OSError when there are no descriptors left."""
        return Process(self.loop, self._spawner, birth, heard, exited)

    # -- what applications say -----------------------------------------------------------------------------------------
    def app_serves(self, app: App) -> None:
        """A worker of it is ready."""
        self._say_ready()

    def count_workers(self) -> int:
        """How many workers all applications have together: what they share the machine by."""
        return sum(len(app.supervisor.slots) for app in self.apps)

    def app_failed_to_boot(self, app: App, code: int) -> None:
        """No worker of it could start: the others go on. If none can start, that is the end."""
        if any(one.supervisor.booted or one.boot_code is None for one in self.apps):
            self._say_ready()
        elif not self._stopped_at:
            log.critical("no application could start")
            self._exit_code = self.apps[0].boot_code or code
            self.stop()

    def app_ended(self, app: App, code: int) -> None:
        """All its workers are gone. With the last application the primary ends."""
        self._over.add(app)
        self._exit_code = self._exit_code or code
        if len(self._over) == len(self.apps) and not self._done.done():
            self._done.set_result(self._exit_code)

    def _say_ready(self) -> None:
        """Tell the service manager, once every application serves (or was tried, and another one serves)."""
        if not self._is_announced and all(app.supervisor.booted or app.boot_code is not None for app in self.apps):
            self._is_announced = True
            self._notifier.say("READY=1", f"STATUS={self._commands.summary()}")

    # -- what people ask for -------------------------------------------------------------------------------------------
    def _take_signals(self) -> None:
        for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGTTIN", "SIGTTOU", "SIGUSR1"):
            number = getattr(signal, name)
            self.loop.add_signal_handler(number, self._signalled, number)

    def _signalled(self, number: int) -> None:
        # A storm of signals is one look at what was asked: reloads and stops are wishes, not counts.
        if not self._signals:
            self.loop.call_soon(self._obey)
        self._signals[number] += 1

    def _obey(self) -> None:
        signals, self._signals = self._signals, Counter()
        if signals[signal.SIGTERM] or signals[signal.SIGINT]:
            self.stop()
        if signals[signal.SIGHUP]:
            self._notice("SIGHUP: reload")
            self.reload()
        if signals[signal.SIGUSR1]:
            logs.reopen()
            for app in self.apps:
                app.tell_all(wire.ReopenLogs())
        change = signals[signal.SIGTTIN] - signals[signal.SIGTTOU]
        if change and len(self.apps) > 1:
            log.warning("SIGTTIN and SIGTTOU: which application? Use multiloop scale N --app NAME")
        elif change:
            (app,) = self.apps
            app.scale(len(app.supervisor.slots) + change)

    # -- what an observer may ask for (`_observer.Observed`) -----------------------------------------------------------
    def statistics(self) -> ClusterStatistics:
        """Return a snapshot of everything."""
        return self.lookout.statistics()

    def ask_for_reports(self) -> set[int]:
        """Have the workers send their figures at once; returns whose are due."""
        return self.lookout.ask_for_reports()

    async def command(self, command: str, arguments: Mapping[str, Any]) -> Any:
        """Do what the control socket can ask for. Raises CommandFailed."""
        return await self._commands.do(command, arguments)

    def stop(self) -> None:
        """Drain and end; the second time: at once."""
        now = time.monotonic()
        if not self._stopped_at:
            self._stopped_at = now
            grace = max(app.settings.supervisor.grace for app in self.apps)
            self._notice(f"stopping: running requests have {grace:g} s")
            needed_us = round((grace + limits.FAST_STOP_S + limits.DRAIN_KILL_MARGIN_S + 1.0) * 1e6)
            self._notifier.say("STOPPING=1", f"EXTEND_TIMEOUT_USEC={needed_us}")
            for app in self.apps:
                app.stop()
        elif now - self._stopped_at > _SAME_SIGNAL_S and not self._stopped_now:
            self._stopped_now = True
            log.warning("stopping now")
            for app in self.apps:
                app.stop_now()

    def _notice(self, text: str) -> None:
        self.lookout.notice(Notice("info", text))

    def reload(self, apps: Iterable[App] | None = None) -> list[asyncio.Future[str]]:
        """Reload some applications, or all; each future gives why that failed, or an empty text."""
        outcomes = [app.reload() for app in (self.apps if apps is None else apps)]
        if self._is_announced and not self._stopped_at:
            self._notifier.reloading()
            asyncio.gather(*outcomes).add_done_callback(lambda _: self._notifier.say("READY=1"))
        return outcomes
