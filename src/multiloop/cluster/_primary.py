"""The primary of `multiloop serve`: owns the listening sockets, deals connections, does what the supervisor decides.

What lives here: `serve` and `Primary`, which joins the parts. What must not: decisions (`_supervisor`, `_policy`).

    signals, control socket, workers' messages, exits, time ─▶ Supervisor ─▶ actions ─▶ Process · Dealer · log
    connections ─▶ Dealer ─▶ workers' handoff sockets                                   (nothing else touches them)
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from .. import __version__, logs
from .. import _limits as limits
from .._wire import messages as wire
from ..loop import loop_factory
from . import _actions as act
from ._control import CommandFailed, ControlServer
from ._dealer import Dealer
from ._listeners import Listener, close_listeners, open_listeners
from ._policy import make_policy
from ._process import Process
from ._service import HTTP_SERVICE
from ._settings import ServeSettings
from ._slots import SlotSockets
from ._spawn import Spawner
from ._states import Failure
from ._supervisor import Supervisor

log = logging.getLogger("multiloop.cluster")

_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR, "critical": logging.CRITICAL}
_SAME_SIGNAL_S = 0.1  # SIGTERM again within this time is the same wish (process groups, impatient managers)


def serve(settings: ServeSettings, *, factory: str = HTTP_SERVICE) -> int:
    """Serve until told to stop; return the exit code (`_exit_codes`). Logging is set up by the caller.

    Args:
        factory: "module:function" that makes the service in each worker.

    Raises:
        ConfigError: an address cannot be listened on, or an option is wrong; no worker was started.
    """
    make_policy(settings.supervisor.policy)
    listeners = open_listeners(settings.listen, reuse_port=settings.supervisor.policy == "reuse_port")
    try:
        _raise_descriptor_limit()
        with asyncio.Runner(loop_factory=loop_factory(settings.loop)) as runner:  # type: ignore[arg-type]
            return runner.run(Primary(settings, listeners, factory).live())
    finally:
        close_listeners(listeners)


class Primary:
    """One run of the cluster."""

    def __init__(self, settings: ServeSettings, listeners: list[Listener], factory: str) -> None:
        self.settings = settings
        self._listeners = listeners
        self._factory = factory
        self._processes: dict[int, Process] = {}
        self._signals: Counter[int] = Counter()
        self._stopped_at = 0.0
        self._reloads: dict[int, asyncio.Future[str]] = {}
        self._next_token = 1
        self._announced = False
        self._stopping: asyncio.Task[None] | None = None
        self.started_at = time.time()
        self.supervisor = Supervisor(settings.supervisor, random.random, parallel=_cores(), forgiving=settings.reload)
        self._do = {
            act.Spawn: self._spawn,
            act.Activate: lambda a: self._tell(a.number, wire.Activate()),
            act.Open: self._open,
            act.Close: self._close,
            act.Drain: lambda a: self._tell(a.number, wire.Drain(a.grace_s, a.give_back)),
            act.Terminate: lambda a: self._with(a.number, lambda process: process.signal(signal.SIGTERM)),
            act.Stack: lambda a: self._with(a.number, lambda process: process.look_at_silence()),
            act.Kill: lambda a: self._with(a.number, lambda process: process.kill(stack=a.stack)),
            act.Say: self._say,
            act.Settled: self._settled,
            act.Exit: self._exit,
        }

    async def live(self) -> int:
        """Serve until the end; returns the exit code."""
        settings = self.settings
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[int] = self._loop.create_future()
        self._lifeline = os.pipe()  # workers read it; its end tells them that this process is gone
        self._dealer = Dealer(
            self._loop,
            make_policy(settings.supervisor.policy),
            credit=settings.supervisor.credit,
            max_duplicates=_max_duplicates(settings.supervisor.workers + settings.supervisor.standby),
        )
        self._slots = SlotSockets(settings.supervisor.policy, self._listeners, self._dealer)
        self._spawner = Spawner(self._loop)
        self._control = ControlServer(settings.control, self._command) if settings.control != "" else None
        _set_title(f"multiloop: primary ({settings.target.name})")
        try:
            if self._control is not None:
                self._control.start()
            self._take_signals()
            self._watch_files()
            self.supervisor.start(time.monotonic())
            self._act()
            self._tick()
            return await self._done
        finally:
            self._end()

    def _end(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._stopping is not None:
            self._stopping.cancel()
        self._spawner.close()
        self._slots.close()
        self._dealer.shut()
        for process in list(self._processes.values()):
            process.end()
        for descriptor in self._lifeline:
            os.close(descriptor)

    # -- the supervisor ------------------------------------------------------------------------------------------------
    def _act(self) -> None:
        """Do what the supervisor decided; doing may lead to more."""
        while actions := self.supervisor.take_actions():
            for action in actions:
                self._do[type(action)](action)  # type: ignore[operator]

    def _tick(self) -> None:
        if self._done.done():
            return
        self._loop.call_later(limits.TICK_S, self._tick)
        self.supervisor.tick(
            time.monotonic(), {number: process.page.last_beat() for number, process in self._processes.items()}
        )
        self._dealer.retry()
        self._act()

    def _spawn(self, action: act.Spawn) -> None:
        start = wire.Start(
            number=action.number,
            generation=action.generation,
            standby=action.standby,
            settings=self.settings,
            listeners=tuple(listener.name for listener in self._listeners),
            families=tuple(listener.sock.family for listener in self._listeners),
            factory=self._factory,
            argv=tuple(sys.argv),
        )
        try:
            process = Process(self._loop, self._spawner, start, self._lifeline[0], self._heard, self._exited)
        except OSError as error:  # no descriptors left: an exit like any other, so that it is tried again
            self._loop.call_soon(self._not_started, action.number, error)
            return
        self._processes[action.number] = process
        self._dealer.add(action.number, process.handoff, process.receiving)

    def _not_started(self, number: int, error: OSError) -> None:
        self.supervisor.exited(number, f"it could not be started: {error.strerror}", time.monotonic())
        self._act()

    def _open(self, action: act.Open) -> None:
        process = self._processes.get(action.number)
        if process is None or process.ready is None:
            return
        self._dealer.open(action.number, process.ready.capacity)
        self._slots.open(action.slot, process)
        self._announce(process.ready)

    def _close(self, action: act.Close) -> None:
        self._slots.close_for(action.number)
        self._dealer.close(action.number, pull_back=action.pull_back)

    def _tell(self, number: int, message: Any) -> None:
        self._with(number, lambda process: process.send(message))

    def _with(self, number: int, function: Any) -> None:
        process = self._processes.get(number)
        if process is not None:
            function(process)

    def _say(self, action: act.Say) -> None:
        extra = {"detail": action.detail} if action.detail else None
        log.log(_LEVELS[action.level], "%s", action.message, extra=extra)

    def _settled(self, action: act.Settled) -> None:
        for token in action.tokens:
            waiter = self._reloads.pop(token, None)
            if waiter is not None and not waiter.done():
                waiter.set_result(action.reason)

    def _exit(self, action: act.Exit) -> None:
        if not self._done.done():
            self._done.set_result(action.code)

    # -- workers -------------------------------------------------------------------------------------------------------
    def _heard(self, process: Process, message: Any) -> None:
        now, number = time.monotonic(), process.number
        if isinstance(message, wire.Report):
            process.report = message
            statistics = message.statistics
            link = self._dealer.links().get(number)
            if link is not None:
                link.requests = getattr(statistics, "active_requests", 0)
            self.supervisor.report(number, getattr(statistics, "requests", 0), message.rss_bytes, now)
        elif isinstance(message, wire.Ready):
            process.ready = message
            self.supervisor.ready(number, now)
        elif isinstance(message, wire.Imported):
            self.supervisor.imported(number, now)
        elif isinstance(message, wire.Failed):
            self.supervisor.failed(number, Failure(message.reason, message.details, message.exit_code), now)
        elif isinstance(message, wire.Leaving):
            self.supervisor.leaving(number, now)
        self._act()

    def _exited(self, process: Process, how: str) -> None:
        self._processes.pop(process.number, None)
        self._slots.close_for(process.number)
        self._dealer.bury(process.number)
        self.supervisor.exited(process.number, how, time.monotonic())
        self._act()

    def _announce(self, ready: wire.Ready) -> None:
        if not self._announced:
            self._announced = True
            scheme = "https" if self.settings.tls is not None else "http"
            where = ", ".join(listener.url(scheme) for listener in self._listeners)
            log.info(
                "serving %s (%s) on %s with %d workers (multiloop %s, pid %d)",
                *(self.settings.target.name, ready.description, where, len(self.supervisor.slots)),
                *(__version__, os.getpid()),
            )

    # -- what people ask for -------------------------------------------------------------------------------------------
    def _take_signals(self) -> None:
        for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGTTIN", "SIGTTOU", "SIGUSR1"):
            number = getattr(signal, name)
            self._loop.add_signal_handler(number, self._signalled, number)

    def _signalled(self, number: int) -> None:
        # A storm of signals is one look at what was asked: reloads and stops are wishes, not counts.
        if not self._signals:
            self._loop.call_soon(self._obey)
        self._signals[number] += 1

    def _obey(self) -> None:
        signals, self._signals = self._signals, Counter()
        if signals[signal.SIGTERM] or signals[signal.SIGINT]:
            self.stop()
        if signals[signal.SIGHUP]:
            log.info("SIGHUP: reload")
            self.reload()
        if signals[signal.SIGUSR1]:
            logs.reopen()
            for process in self._processes.values():
                process.send(wire.ReopenLogs())
        change = signals[signal.SIGTTIN] - signals[signal.SIGTTOU]
        if change:
            self.supervisor.scale(len(self.supervisor.slots) + change, time.monotonic())
            self._act()

    def stop(self) -> None:
        """Drain and end; the second time: at once."""
        now = time.monotonic()
        if not self._stopped_at:
            self._stopped_at = now
            self._stopping = self._loop.create_task(self._stop())
        elif now - self._stopped_at > _SAME_SIGNAL_S and not self.supervisor.is_fast:
            log.warning("stopping now")
            self.supervisor.stop(now, fast=True)
            self._act()

    async def _stop(self) -> None:
        """Take in what has reached the listening sockets, close them, drain the workers."""
        log.info("stopping: running requests have %g s", self.settings.supervisor.grace)
        self._dealer.empty_backlog()
        self._slots.close()
        close_listeners(self._listeners)
        deadline = time.monotonic() + limits.FAST_STOP_S
        while self._dealer.waiting and time.monotonic() < deadline:  # noqa: ASYNC110 - once in a server's life
            await asyncio.sleep(limits.TICK_S / 10)
        self.supervisor.stop(time.monotonic())
        self._act()

    def reload(self) -> asyncio.Future[str]:
        """Reload; the future gives why it failed, or an empty text."""
        token, self._next_token = self._next_token, self._next_token + 1
        outcome: asyncio.Future[str] = self._loop.create_future()
        self._reloads[token] = outcome
        self.supervisor.reload(token, time.monotonic())
        self._act()
        return outcome

    async def _command(self, command: str, arguments: Mapping[str, Any]) -> Any:
        if command == "status":
            return self.status()
        if command == "reload":
            reason = await self.reload()
            if reason:
                raise CommandFailed(f"reload failed: {reason}")
            return {"generation": self.supervisor.generation, "workers": len(self.supervisor.slots)}
        if command == "scale":
            workers = arguments.get("workers")
            if not isinstance(workers, int) or not 1 <= workers <= limits.MAX_WORKERS:
                raise CommandFailed(f"scale: a number of workers from 1 to {limits.MAX_WORKERS} is needed")
            result = self.supervisor.scale(workers, time.monotonic())
            self._act()
            return {"workers": result}
        if command == "stop":
            self.stop()
            return {"pid": os.getpid()}
        raise CommandFailed(f"unknown command {command!r}")

    def status(self) -> dict[str, Any]:
        """Return what `multiloop status` shows."""
        from ._status import status

        return status(self.settings, self._listeners, self.supervisor, self._dealer, self._processes, self.started_at)

    def _watch_files(self) -> None:
        if self.settings.reload:
            from ._watch import watch_files

            watch_files(self.settings, self._loop, self.reload)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _set_title(title: str) -> None:
    try:
        from setproctitle import setproctitle
    except ImportError:
        return
    setproctitle(title)


def _raise_descriptor_limit() -> None:
    """Raise the soft limit of descriptors to the hard one, for this process and its workers (as Go does)."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, limits.MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            pass


def _max_duplicates(workers: int) -> int:
    """Return how many duplicates the limit of descriptors leaves room for, besides two generations of workers."""
    import resource

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    try:
        used = len(os.listdir("/proc/self/fd"))
    except OSError:
        used = 32
    room = limit - used - limits.DESCRIPTORS_PER_WORKER * (2 * workers + 1) - 16
    return max(8, min(limits.MAX_DUPLICATES, room))
