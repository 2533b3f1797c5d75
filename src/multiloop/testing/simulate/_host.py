"""The simulated primary: the product's `App` between a simulated kernel and simulated workers, and the faults.

What lives here: `SimHost` (the face of `cluster._primary.Primary`, for the application) and what each fault does. What must
not: which faults happen (`_schedule`), whether that went well (`_invariants`).
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...cluster._app import App
from ...cluster._listeners import Listener
from ...cluster._settings import ListenAddress, ServeSettings, SupervisorSettings
from ...cluster._states import State
from ...http._target import AppTarget
from ._clients import Client
from ._invariants import Checker, demand
from ._kernel import Connection, Kernel, ListeningSocket
from ._schedule import Setup, Step
from ._worker import SimProcess
from ._world import Machine, World

_TICK_S = 0.25
_PARALLEL = 2
_SLOW_START_S = 70.0  # longer than --startup-timeout


@dataclass(slots=True)
class Plan:
    """How one worker's life will be."""

    start_s: float
    lifespan_s: float
    fails: bool
    capacity: int
    reap_s: float


class _Nobody:
    """Nobody reads logs and watches here: the face of `LogDesk` and `Lookout`."""

    def joined(self, process: Any) -> None:
        """A worker was started."""

    def left(self, process: Any) -> None:
        """A worker is gone."""

    def heard(self, who: Any, message: Any) -> None:
        """A worker sent lines, or a report."""

    def spawned(self, app: Any, process: Any) -> None:
        """A worker was started."""

    def ready(self, app: Any, process: Any) -> None:
        """A worker is ready."""

    def notice(self, notice: Any) -> None:
        """Something worth a line."""

    def last_look(self, app: Any, process: Any) -> None:
        """A worker is gone: what its page said."""

    def ended(self, app: Any, last: Any) -> None:
        """A worker is gone."""


class _WatchedApp(App):
    """The product's application; every action passes the checker on its way."""

    checker: Checker
    world: World

    def _act(self) -> None:
        while actions := self.supervisor.take_actions():
            for action in actions:
                name = type(action).__name__
                self.world.note(f"  {action}")
                self.checker.action(name, action, self.world.now)
                self._do[type(action)](action)  # type: ignore[operator]


class SimHost:
    """One simulated cluster."""

    def __init__(self, seed: int, setup: Setup) -> None:
        self.seed = seed
        self.setup = setup
        self.world = World(seed)
        self.machine = Machine(self.world, "primary")
        self.kernel_table = Kernel(self.world)
        self.listener = ListeningSocket(self.kernel_table, self.machine)
        self.clients: list[Client] = []
        self.processes: dict[int, SimProcess] = {}
        self.excused: set[Connection] = set()  # cut at the end of a grace, or closed because nobody could have them
        self.died: set[Machine] = set()  # workers that did not leave in order
        self.full: list[tuple[float, float]] = []  # when the primary had no room for descriptors
        self.is_stopping = False
        self.exit_codes: list[int] = []
        self.answered = self.lost = 0
        self.broken_until = 0.0
        self._slow_starts: list[float] = []
        self._requests = itertools.count(1)
        # what App asks of its host
        self.loop: Any = self.machine.loop
        self.log_desk: Any = _Nobody()
        self.lookout: Any = _Nobody()
        self.lifeline = -1
        self.clock: Callable[[], float] = lambda: self.world.now
        self.random = random.Random(f"{seed} primary").random
        self.kernel = self.kernel_table.of(self.machine)
        self.app = self._make_app()
        self.checker = self.app.checker = Checker(self.app, _PARALLEL)
        self.app.world = self.world
        self.outcomes: list[Any] = []

    def _make_app(self) -> _WatchedApp:
        setup = self.setup
        settings = ServeSettings(
            target=AppTarget("simulated:app"),
            listen=(),
            supervisor=SupervisorSettings(
                workers=setup.workers,
                standby=setup.standby,
                policy=setup.policy,
                grace=setup.grace,
                hang_timeout=setup.hang_timeout,
                max_requests=setup.max_requests,
            ),
        )
        sock: Any = self.listener
        listener = Listener(sock, ListenAddress(), "simulated")
        return _WatchedApp(settings, [listener], "", itertools.count(1))

    def begin(self) -> None:
        """Start the primary."""
        self.app.open(self, 1 << 20)
        self.app.supervisor._parallel = _PARALLEL  # whatever machine this runs on
        self.app.begin()
        self._tick()

    def _tick(self) -> None:
        self.world.at(_TICK_S, self.machine, self._tick)
        self.app.tick(self.world.now)

    def look(self) -> None:
        """After every event: what must always hold."""
        primary = self.machine
        is_late = primary.is_stopped or self.world.now - primary.resumed_at < 1.0
        self.checker.look(self.world.now, is_late=is_late)

    # -- what App asks of its host -------------------------------------------------------------------------------------
    def start(self, birth: Any, heard: Any, exited: Any) -> Any:
        """Start a worker."""
        process = self.processes[birth.start.number] = SimProcess(self, birth, heard, exited)
        return process

    def app_serves(self, app: App) -> None:
        """A worker is ready."""

    def count_workers(self) -> int:
        """How many workers there are."""
        return len(self.app.supervisor.slots)

    def app_failed_to_boot(self, app: App, code: int) -> None:
        """Not with one application."""

    def app_ended(self, app: App, code: int) -> None:
        """Everything is over."""
        self.exit_codes.append(code)

    # -- what workers ask ----------------------------------------------------------------------------------------------
    def plan_for(self, process: SimProcess) -> Plan:
        """Choose how a worker's life will be."""
        chance = random.Random(f"{self.seed} worker {process.number}")
        start_s = chance.choice((0.1, 0.3, 1.0)) * (0.5 + chance.random())
        if self._slow_starts and process.number > 1:
            start_s = self._slow_starts.pop()
        return Plan(
            start_s=start_s,
            lifespan_s=0.05 * chance.random(),
            fails=self.world.now < self.broken_until,
            capacity=chance.choice((2, 8, 1000)),
            reap_s=chance.choice((0.001, 0.001, 0.001, 3.0)) * chance.random(),
        )

    def request_time(self, request: int) -> float:
        """Return how long a request takes."""
        chance = random.Random(f"{self.seed} request {request}")
        return chance.choice((0.002, 0.01, 0.1, 0.1, 1.0, 6.0)) * chance.random()

    def requests_shown(self, process: SimProcess) -> int:
        """Return how many requests a worker reports."""
        return process.served

    def next_request(self) -> int:
        """Return the number of a new request."""
        return next(self._requests)

    def worker_died(self, process: SimProcess) -> None:
        """A worker that served is gone without having been asked."""
        self.died.add(process.machine)
        record = self.app.supervisor.workers.get(process.number)
        if record is not None and record.is_serving:
            self.checker.died(record.slot)

    # -- clients and faults --------------------------------------------------------------------------------------------
    def clients_come(self, count: int, seconds: float) -> None:
        """Let clients come, spread over a time."""
        for _ in range(count):
            client = Client(self, len(self.clients) + 1)
            self.clients.append(client)
            self.world.at(client.chance.random() * seconds, None, client.begin)

    def do(self, step: Step) -> None:
        """Let a fault happen."""
        self.world.note(f"FAULT {step}")
        getattr(self, f"_{step.kind}")(step)

    def _pick(self, step: Step) -> SimProcess | None:
        alive = [self.processes[number] for number in sorted(self.app.processes)]
        alive = [process for process in alive if not process.machine.is_dead]
        return alive[step.which % len(alive)] if alive else None

    def _may_die(self, process: SimProcess) -> bool:
        """Before the first worker is ready, a death is the end: that is another test."""
        return self.app.supervisor.booted or process.is_ready

    def _kill(self, step: Step) -> None:
        process = self._pick(step)
        if process is not None and self._may_die(process):
            self.died.add(process.machine)
            process.die("SIGKILL")

    def _stop(self, step: Step) -> None:
        process = self._pick(step)
        if process is not None:
            process.machine.stop()
            self.world.at(step.seconds, None, process.machine.resume)

    def _term(self, step: Step) -> None:
        process = self._pick(step)
        if process is not None and self._may_die(process) and process.is_ready:
            self.world.at(0.0, process.machine, process.terminated)

    def _reload(self, step: Step) -> None:
        self.world.at(0.0, self.machine, lambda: self.outcomes.append(self.app.reload()))

    def _restart(self, step: Step) -> None:
        def restart() -> None:
            serving = [n for n, w in sorted(self.app.supervisor.workers.items()) if w.is_serving]
            if serving:
                self.outcomes.append(self.app.restart(serving[step.which % len(serving)]))

        self.world.at(0.0, self.machine, restart)

    def _scale(self, step: Step) -> None:
        self.world.at(0.0, self.machine, lambda: self.app.scale(step.which))

    def _broken(self, step: Step) -> None:
        if self.app.supervisor.booted:
            self.broken_until = self.world.now + step.seconds

    def _slow(self, step: Step) -> None:
        self._slow_starts.append(_SLOW_START_S if step.seconds > 3 else step.seconds)

    def _loss(self, step: Step) -> None:
        process = self._pick(step)
        machine = process.machine if process is not None and step.which % 3 else self.machine
        if machine is self.machine:
            self.full.append((self.world.now, self.world.now + step.seconds))
        limits = self.kernel_table.limits
        limits[machine] = self.kernel_table.counts.get(machine, 0) + step.which % 3
        self.world.at(step.seconds, None, limits.pop, machine, None)

    def _pause(self, step: Step) -> None:
        self.machine.stop()
        self.world.at(step.seconds, None, self.machine.resume)

    def _burst(self, step: Step) -> None:
        self.clients_come(step.which % 40, 0.01)

    # -- the end -------------------------------------------------------------------------------------------------------
    def heal(self) -> None:
        """End every fault."""
        self.broken_until = 0.0
        self._slow_starts.clear()
        self.kernel_table.limits.clear()
        for machine in (self.machine, *(process.machine for process in self.processes.values())):
            machine.resume()

    @property
    def is_quiet(self) -> bool:
        """Whether every client is done and every worker ready."""
        supervisor = self.app.supervisor
        return (
            all(client.outcome for client in self.clients)
            and supervisor.state == "serving"
            and len(supervisor.workers) == len(supervisor.slots) + supervisor.settings.standby
            and all(worker.state in (State.READY, State.STANDBY) for worker in supervisor.workers.values())
        )

    def stop(self) -> None:
        """SIGTERM to the primary."""
        self.is_stopping = True
        self.world.at(0.0, self.machine, self.app.stop)

    def check_answers(self) -> None:
        """Every reload and restart was answered."""
        demand(all(outcome.done() for outcome in self.outcomes), "a reload or restart was never answered")
