"""One application of a primary: its listening sockets, its supervisor, its dealer and its workers.

What lives here: `App`, which joins those parts. What must not: decisions (`_supervisor`, `_policy`), and what all
applications share: signals, the control socket, the thread that starts processes (`_primary`).

    workers' messages, exits, time ─▶ Supervisor ─▶ actions ─▶ Process · Dealer · log
    connections ─▶ Dealer ─▶ workers' handoff sockets                (nothing else touches them)
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Protocol

from .. import __version__
from .. import _limits as limits
from .._wire import messages as wire
from . import _actions as act
from ._dealer import Dealer
from ._environment import worker_environment
from ._heads import Patience
from ._link import Kernel
from ._listeners import Listener, close_listeners
from ._log_desk import LogDesk
from ._lookout import Lookout
from ._observer import Notice
from ._policy import make_policy
from ._process import Birth, Process
from ._relay import Relays
from ._settings import ServeSettings
from ._slots import SlotSockets
from ._states import Failure
from ._supervisor import Supervisor

log = logging.getLogger("multiloop.cluster")

Heard = Callable[[Process, Any], None]
Exited = Callable[[Process, str], None]


class Host(Protocol):
    """What an application needs of the primary around it."""

    loop: asyncio.AbstractEventLoop
    log_desk: LogDesk
    lookout: Lookout
    lifeline: int  # a descriptor that workers read; its end tells them that the primary is gone
    clock: Callable[[], float]
    random: Callable[[], float]  # uniform in [0, 1)
    kernel: Kernel

    def start(self, birth: Birth, heard: Heard, exited: Exited) -> Process:
        """Start a worker's process. Raises OSError when there are no descriptors left."""

    def app_serves(self, app: App) -> None:
        """A worker of it is ready (again)."""

    def app_failed_to_boot(self, app: App, code: int) -> None:
        """No worker of it could start; it is tried again."""

    def app_ended(self, app: App, code: int) -> None:
        """All its workers are gone."""

    def count_workers(self) -> int:
        """How many workers all applications have together."""


class App:
    """One application.

    Args:
        factory: "module:function" that makes the service in each worker.
        numbers: where the workers' numbers come from.
        label: what its lines in the log begin with; "" when it is the only one.
    """

    def __init__(
        self,
        settings: ServeSettings,
        listeners: list[Listener],
        factory: str,
        numbers: Iterator[int],
        label: str = "",
    ) -> None:
        self.settings = settings
        self._workers_settings = replace(settings, process=replace(settings.process, admin=None))  # a token is in there
        self.listeners = listeners
        self.processes: dict[int, Process] = {}
        self.label = label
        self.relays = Relays()
        self.boot_code: int | None = None  # its boot failed, and what the primary would end with for that
        self._factory = factory
        self._outcomes: dict[int, asyncio.Future[str]] = {}  # of reloads and restarts, by token
        self._next_token = 1
        self._announced = False
        self._is_stopping = False
        self._numbers = numbers
        self._do = {
            act.Spawn: self._spawn,
            act.Activate: self._activate,
            act.Open: self._open,
            act.Close: self._close,
            act.Drain: lambda a: self._tell(a.number, wire.Drain(a.grace_s, a.give_back)),
            act.Terminate: lambda a: self._with(a.number, lambda process: process.signal(signal.SIGTERM)),
            act.Stack: lambda a: self._with(a.number, lambda process: process.look_at_silence()),
            act.Kill: lambda a: self._with(a.number, lambda process: process.kill(stack=a.stack)),
            act.Say: lambda a: self._notice(a.level, a.message, a.detail),
            act.Settled: self._settled,
            act.BootFailed: self._boot_failed,
            act.Exit: lambda a: self._host.app_ended(self, a.code),
        }

    def open(self, host: Host, max_duplicates: int) -> None:
        """Take a place in a primary; nothing is accepted yet. Called once, on the loop."""
        self._host = host
        self._loop = host.loop
        self.supervisor = Supervisor(
            self.settings.supervisor,
            host.random,
            parallel=_cores(),
            forgiving=self.settings.reload,
            patient=bool(self.label),
            numbers=self._numbers,
        )
        self.dealer = Dealer(
            self._loop,
            make_policy(self.settings.supervisor.policy, self.settings.target.app_dir),
            credit=self.settings.supervisor.credit,
            max_duplicates=max_duplicates,
            kernel=host.kernel,
            patience=Patience(self.settings.http.first_byte_timeout, self.settings.http.header_timeout, refuses=True),
        )
        self._slots = SlotSockets(self.settings.supervisor.policy, self.listeners, self.dealer)

    def begin(self) -> None:
        """Start the first worker."""
        if self.settings.reload:
            from ._watch import watch_files

            watch_files(self.settings, self._loop, self.reload)
        self.supervisor.start(self._host.clock())
        self._act()

    def end(self) -> None:
        """Kill what is left and close everything. Safe when `open` was never reached."""
        if hasattr(self, "_slots"):
            self._slots.close()
        if hasattr(self, "dealer"):
            self.dealer.shut()
        for process in list(self.processes.values()):
            process.end()

    # -- the supervisor ------------------------------------------------------------------------------------------------
    def _act(self) -> None:
        """Do what the supervisor decided; doing may lead to more."""
        while actions := self.supervisor.take_actions():
            for action in actions:
                self._do[type(action)](action)  # type: ignore[operator]

    def tick(self, now: float) -> None:
        """Time has passed."""
        self.supervisor.tick(now, {number: process.page.last_beat() for number, process in self.processes.items()})
        self.dealer.retry()
        self._act()

    def _spawn(self, action: act.Spawn) -> None:
        start = wire.Start(
            number=action.number,
            generation=action.generation,
            standby=action.standby,
            settings=self._workers_settings,
            listeners=tuple(listener.name for listener in self.listeners),
            families=tuple(listener.sock.family for listener in self.listeners),
            factory=self._factory,
            argv=tuple(sys.argv),
            workers=self._host.count_workers(),
            label=self.label,
        )
        environment = worker_environment(self.settings, action.number, action.slot)
        birth = Birth(start, environment, self._host.lifeline)
        try:
            process = self._host.start(birth, self._heard, self._exited)
        except OSError as error:  # no descriptors left: an exit like any other, so that it is tried again
            self._loop.call_soon(self._not_started, action.number, error)
            return
        self.processes[action.number] = process
        self.dealer.add(action.number, process.handoff, process.receiving, page=process.page)
        self._host.log_desk.joined(process)
        self._host.lookout.spawned(self, process)

    def _not_started(self, number: int, error: OSError) -> None:
        self.supervisor.exited(number, f"it could not be started: {error.strerror}", self._host.clock())
        self._act()

    def _activate(self, action: act.Activate) -> None:
        record = self.supervisor.workers.get(action.number)
        self._tell(action.number, wire.Activate(record.slot if record is not None else None))

    def _open(self, action: act.Open) -> None:
        process = self.processes.get(action.number)
        if process is None or process.ready is None:
            return
        self.dealer.open(action.number, process.ready.capacity, action.slot)
        self._slots.open(action.slot, process)
        self._announce(process.ready)
        self._host.app_serves(self)

    def _close(self, action: act.Close) -> None:
        self._slots.close_for(action.number)
        self.dealer.close(action.number, pull_back=action.pull_back)

    def _tell(self, number: int, message: Any) -> None:
        self._with(number, lambda process: process.send(message))

    def _with(self, number: int, function: Any) -> None:
        process = self.processes.get(number)
        if process is not None:
            function(process)

    def _notice(self, level: str, text: str, detail: str) -> None:
        self._host.lookout.notice(Notice(level, self.prefix + text, detail))

    @property
    def prefix(self) -> str:
        """What lines about it begin with."""
        return f"{self.label}: " if self.label else ""

    def _settled(self, action: act.Settled) -> None:
        for token in action.tokens:
            waiter = self._outcomes.pop(token, None)
            if waiter is not None and not waiter.done():
                waiter.set_result(action.reason)

    def _boot_failed(self, action: act.BootFailed) -> None:
        self.boot_code = action.code
        self._host.app_failed_to_boot(self, action.code)

    # -- workers -------------------------------------------------------------------------------------------------------
    def _heard(self, process: Process, message: Any) -> None:
        now, number = self._host.clock(), process.number
        if isinstance(message, wire.Report):
            process.report = message
            self.supervisor.report(number, getattr(message.statistics, "requests", 0), message.rss_bytes, now)
            self._host.lookout.heard(number, message)
        elif isinstance(message, wire.LogLines):
            self._host.log_desk.heard(process, message)
        elif isinstance(message, wire.Blocked | wire.Metrics):
            self._host.lookout.heard(number, message)
        elif isinstance(message, Notice):
            self._notice(message.level, message.text, message.detail)
        elif isinstance(message, wire.Relay):
            self.relays.pass_on(number, message)
            return
        elif isinstance(message, wire.Want):
            self.relays.want(number, message, process.take_relayed)
            return
        elif isinstance(message, wire.Ready):
            process.ready = message
            self._host.lookout.ready(self, process)
            self.supervisor.ready(number, now)
        elif isinstance(message, wire.Imported):
            self.supervisor.imported(number, now)
        elif isinstance(message, wire.Failed):
            self.supervisor.failed(number, Failure(message.reason, message.details, message.exit_code), now)
        elif isinstance(message, wire.Leaving):
            self.supervisor.leaving(number, now)
        self._act()

    def _exited(self, process: Process, how: str) -> None:
        last = self._host.lookout.last_look(self, process)
        self.processes.pop(process.number, None)
        self._slots.close_for(process.number)
        self.relays.left(process.number)
        self.dealer.bury(process.number)
        self._host.log_desk.left(process)
        self.supervisor.exited(process.number, how, self._host.clock())
        self._host.lookout.ended(self, last)
        self._act()

    def _announce(self, ready: wire.Ready) -> None:
        self.boot_code = None
        if not self._announced:
            self._announced = True
            log.info(
                "serving %s (%s) on %s with %d workers (multiloop %s, pid %d)",
                *(self.settings.called, ready.description, self.where, len(self.supervisor.slots)),
                *(__version__, os.getpid()),
            )

    # -- what people ask for -------------------------------------------------------------------------------------------
    @property
    def where(self) -> str:
        """The addresses, for people."""
        scheme = "https" if self.settings.tls is not None else "http"
        return ", ".join(listener.url(scheme) for listener in self.listeners)

    def stop(self) -> None:
        """Drain and end; `app_ended` is called when that is done."""
        if not self._is_stopping:
            self._is_stopping = True
            # What has reached the listening sockets is still taken in; then they are closed and the workers drain.
            self.dealer.empty_backlog()
            self._slots.close()
            close_listeners(self.listeners)
            self._stop_when_dealt(self._host.clock() + limits.FAST_STOP_S)

    def _stop_when_dealt(self, deadline: float) -> None:
        now = self._host.clock()
        if self.dealer.waiting and now < deadline and not self.supervisor.stopping:
            self._loop.call_later(limits.TICK_S / 10, self._stop_when_dealt, deadline)
        else:
            self.supervisor.stop(now)
            self._act()

    def stop_now(self) -> None:
        """Cut what still runs."""
        self.supervisor.stop(self._host.clock(), fast=True)
        self._act()

    def reload(self) -> asyncio.Future[str]:
        """Reload; the future gives why it failed, or an empty text."""
        token, outcome = self._expect()
        self.supervisor.reload(token, self._host.clock())
        self._act()
        return outcome

    def restart(self, number: int) -> asyncio.Future[str]:
        """Replace one worker; the future gives why that failed, or an empty text."""
        token, outcome = self._expect()
        self.supervisor.restart(token, number, self._host.clock())
        self._act()
        return outcome

    def _expect(self) -> tuple[int, asyncio.Future[str]]:
        token, self._next_token = self._next_token, self._next_token + 1
        outcome: asyncio.Future[str] = self._loop.create_future()
        self._outcomes[token] = outcome
        return token, outcome

    def scale(self, workers: int) -> int:
        """Want another number of workers; returns how many it will be."""
        result = self.supervisor.scale(workers, self._host.clock())
        self._act()
        return result

    def tell_all(self, message: Any) -> None:
        """Send a message to every worker."""
        for process in self.processes.values():
            process.send(message)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
