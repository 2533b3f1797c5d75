"""The primary of a program that forks itself.

What lives here: `Primary`, behind the functions of `multiloop.cluster`. What must not: one worker (`_worker`), the
listeners (`_board`), dealing (`_dealer`), when a worker is routed around (`_flock`) or replaced (`_supervision`).

    fork() ─▶ a process, at once ─▶ [a loop runs: attach] ─▶ Ask ─▶ board ─▶ dealer: connections come
    heartbeats, time ─▶ flock (or the supervisor) ─▶ open, close ─▶ dealer

Before a loop runs, workers can be forked, sent to and listened to; their events come when it does. When the program
ends, they all leave with it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ... import _limits as limits
from ..._wire import forks as wire
from ..._wire import messages
from ..._wire.frames import Frame
from ...errors import UsageError
from ...events import EventEmitter
from ...ipc import _relay
from ...loop import AnyOperation, ErrorFirst, Hub, begin, hub, on_new_hub
from ...net._address import from_kernel
from .. import _actions as actions
from .._dealer import Dealer
from .._observer import Notice
from .._policy import asks_for_requests, make_policy
from .._relay import PrimaryUplink, Relays
from .._room import max_duplicates
from .._settings import SupervisorSettings
from . import _command
from ._board import Board
from ._flock import Flock
from ._keeper import Keeper
from ._options import Settings
from ._relay import Relay
from ._supervision import ReadyWhen, Supervision
from ._worker import Worker

if TYPE_CHECKING:
    from ._steward import Steward

log = logging.getLogger("multiloop.cluster")


class Primary(EventEmitter):
    """All workers of this program."""

    def __init__(self) -> None:
        self.workers: dict[int, Worker] = {}
        self.settings = Settings()
        self.scheduling_policy: Any = "round_robin"
        self.max_connections = 0
        self.hub: Hub | None = None
        self.flock: Any = Flock()
        self.topics = Relays()  # of buses and broadcast channels
        self.stopping = False  # nobody is forked any more
        self._policy: Any = None  # frozen by the first fork or setup_primary
        self.numbers = itertools.count(1)  # of workers
        self.supervision: Supervision | None = None
        self.steward: Steward | None = None  # of `multiloop run`
        self._lifeline: tuple[int, int] | None = None
        self._early: list[Callable[[], None]] = []  # what waits for a loop
        self._ticking = False
        self._said_stopping = False
        self._waiters: list[AnyOperation[None]] = []
        self._keeper: Keeper | None = None
        self._shares: Any = None
        on_new_hub(self._loop_runs)

    # -- the loop ------------------------------------------------------------------------------------------------------
    def _loop_runs(self, of: Hub) -> None:
        if threading.current_thread() is threading.main_thread() and self.hub is None and self._early:
            self._attach(of)

    def _attach(self, of: Hub) -> None:
        """From now on this loop has the workers."""
        self.hub = of
        self._keeper = Keeper(of, self.program_ends)
        self.dealer = Dealer(of.loop, max_duplicates=max_duplicates(limits.MAX_WORKERS // 16, 1))
        self.dealer.on_drop = self._dropped
        self.dealer.max_connections = self.max_connections
        self.board = Board(of.loop, self.dealer, self._policy)
        self.relays = Relay(self.workers)
        self.uplink = PrimaryUplink(of.loop, self.topics)
        _relay.set_uplink(self.uplink)
        early, self._early = self._early, []
        for function in early:
            of.loop.call_soon(function)
        if self.steward is not None:
            self.steward.loop_runs(of)

    def on_loop(self, function: Callable[[], None]) -> None:
        """Do this in the next turn of the loop: of the first one, if none runs yet."""
        if self.hub is None and asyncio._get_running_loop() is not None:
            self._early.append(function)
            self._attach(hub())
        elif self.hub is None:
            self._early.append(function)
        else:
            self.hub.loop.call_soon(function)

    def change_policy(self, wanted: Any) -> None:
        """Set the policy; it holds from the first fork or `setup_primary` on. Raises ConfigError for one that is none."""
        if self._policy is not None and wanted != self._policy:
            raise UsageError("cluster.scheduling_policy is set before the first fork() or setup_primary()")
        make_policy(wanted)
        self.scheduling_policy = wanted

    def _freeze_policy(self) -> None:
        if self._policy is None:
            wanted = self.scheduling_policy
            make_policy(wanted)  # raises for one that is none
            self._policy = wanted

    # -- starting ------------------------------------------------------------------------------------------------------
    def setup_primary(self, **changes: Any) -> None:
        """Change how the next workers are started. See `Settings`; what is not named stays."""
        settings = self.settings = self.settings.merged(changes)
        self._freeze_policy()
        self.on_loop(lambda: self._emit("setup", settings))

    def supervise(self, settings: SupervisorSettings, ready: ReadyWhen, *, signals: bool) -> Supervision:
        """Keep so many workers going from when the loop runs."""
        if self.workers or self.supervision is not None or self.stopping:
            raise UsageError("cluster.supervise() is called once, and starts all workers: without any fork() before it")
        self._freeze_policy()
        self.supervision = made = Supervision(self, settings, ready, signals=signals)
        self.flock = made.flock
        self.on_loop(self._supervise)
        return made

    def _supervise(self) -> None:
        if self.supervision is not None:
            self.supervision.begin(self._hub)
            self._start_ticking()

    def fork(self, env: Mapping[str, str] | None = None) -> Worker:
        """Start a worker, at once; returns it."""
        if self.supervision is not None:
            raise UsageError(
                "a supervised cluster starts its workers by itself: supervision.scale(n) changes their number"
            )
        if self.stopping:
            return self._dead()
        taken = {worker.seat for worker in self.workers.values() if not worker.is_dead()}
        seat = next(seat for seat in range(len(taken) + 1) if seat not in taken)
        return self._start(next(self.numbers), seat, env)

    def _start(self, number: int, seat: int, env: Mapping[str, str] | None = None) -> Worker:
        self.setup_primary()
        settings = self.settings
        command = _command.worker_command(
            _command.here(),
            settings.exec_path or sys.executable,
            exec=settings.exec,
            args=settings.args,
            exec_argv=settings.exec_argv,
            main_file=getattr(sys.modules.get("__main__"), "__file__", None),
        )
        worker = Worker(self, number, seat)
        stdio = ["pipe" if settings.silent else "inherit"] * 3 if settings.stdio is None else settings.stdio
        entries = [stdio] * 3 if isinstance(stdio, str) else list(stdio)
        own = self.steward.environment(number, seat) if self.steward is not None else {}
        options = {
            "env": {**os.environ, **own, **(settings.env or {}), **(env or {})},
            "stdio": entries if "ipc" in entries else [*entries, "ipc"],
            "cwd": settings.cwd,
            "uid": settings.uid,
            "gid": settings.gid,
            "max_message_size": settings.max_message_size,
        }
        if self._lifeline is None:
            self._lifeline = os.pipe()
        worker.start(command, options, self._lifeline[0])
        self.workers[worker.id] = worker
        self.on_loop(lambda: self._take_on(worker))
        return worker

    def _dead(self) -> Worker:
        """The program ends, or lets all workers go: the usual line `exit → fork` must not fight that."""
        if not self._said_stopping:
            self._said_stopping = True
            log.info("fork(): no worker was started, because the cluster is being shut down")
        worker = Worker(self, 0, 0)
        worker.exited_after_disconnect = False
        return worker

    def _take_on(self, worker: Worker) -> None:
        """The loop runs: hear the worker, and let it have connections when its own loop does."""
        if self.hub is None or worker.handoff is None or worker.receiving is None:
            return
        self.dealer.add(worker.id, worker.handoff, worker.receiving, seat=worker.seat, page=worker.page)
        self.flock.forked(worker.id, worker.seat, time.monotonic())
        worker.attach(self.hub)
        if self.steward is not None:
            self.steward.joined(worker)
        worker.send_control(wire.Welcome(asks_for_requests(self._policy), self.flock.wants_reports))
        self._roster_changed(worker)
        worker.tell("fork")
        if worker.is_leaving:
            self.flock.leaving(worker.id, time.monotonic())
        self._start_ticking()

    # -- what workers say ----------------------------------------------------------------------------------------------
    def controlled(self, worker: Worker, message: Any, descriptors: tuple[int, ...]) -> None:
        """Take a message of a worker's that is no user's."""
        if isinstance(message, wire.Ask):
            self._hub.adopt(self._ask(worker, message))
        elif isinstance(message, wire.Join):
            entry = self.board.join(worker, message.listener)
            if entry is not None and entry.bound is not None:
                worker.is_listening(entry.announced)
                self.flock.listening(worker.id, time.monotonic())
                self.act()
        elif isinstance(message, wire.Leave):
            self.board.leave(worker.id, message.listener)
        elif isinstance(message, messages.Report):
            worker.report = message
            self.flock.reported(worker.id, message, time.monotonic())
            self.act()
        elif isinstance(message, wire.Online):
            worker.is_online()
        elif isinstance(message, wire.Attached):
            if (link := self.dealer.links().get(worker.id)) is not None:
                link.capacity = max(1, message.capacity)
            self.flock.attached(worker.id, time.monotonic())
            self.act()
        elif isinstance(message, wire.Leaving):
            self.drain(worker, message.grace_s, at_once=message.at_once)
        elif isinstance(message, wire.LockAsk | wire.CounterAsk):
            self.shares.heard(worker, message)
        elif isinstance(message, messages.Relay):
            self.uplink.heard(worker.id, message)
        elif isinstance(message, messages.Want):
            self.topics.want(worker.id, message, worker.take_relayed)
        elif isinstance(message, messages.LogLines) and self.steward is not None:
            self.steward.logged(worker, message)

    @property
    def _hub(self) -> Hub:
        assert self.hub is not None
        return self.hub

    async def _ask(self, worker: Worker, ask: wire.Ask) -> None:
        try:
            entry = await self.board.ask(worker, ask)
        except Exception as error:
            worker.send_control(wire.Listening(ask.number, error=error))
            return
        bound = entry.bound
        assert bound is not None
        if worker.is_dead() or not worker.is_connected():
            self.board.leave(worker.id, entry.index)
            return
        answer = wire.Listening(ask.number, entry.index, bound.address, bound.sock.family)
        is_udp = bound.wanted.kind == "udp"
        try:
            worker.send_control(answer, (bound.sock.fileno(),) if is_udp else ())
        except OSError as error:  # no descriptor is left to copy it
            self.board.leave(worker.id, entry.index)
            worker.send_control(wire.Listening(ask.number, error=error))
            return
        if is_udp:
            worker.is_listening(entry.announced)

    def relay(self, worker: Worker, frame: Frame) -> None:
        """A worker sends to another one."""
        self.relays.pass_on(worker, frame)

    @property
    def shares(self) -> Any:
        """The primary's end of locks and counters (`_sharing.PrimaryShares`)."""
        if self._shares is None:
            from ._sharing import PrimaryShares

            self._shares = PrimaryShares(self)
        return self._shares

    def _roster_changed(self, came: Worker | None = None, left: Worker | None = None) -> None:
        """Tell the workers about each other."""
        for worker in self.workers.values():
            if worker is came:
                others = tuple(number for number in self.workers if number != worker.id)
                worker.send_control(wire.Peers(others, ()))
            elif worker is not left:
                news = wire.Peers((came.id,) if came is not None else (), (left.id,) if left is not None else ())
                worker.send_control(news)

    # -- time ----------------------------------------------------------------------------------------------------------
    def _start_ticking(self) -> None:
        if not self._ticking:
            self._ticking = True
            self._tick()

    def _tick(self) -> None:
        if self.hub is None or not (self.workers or self.supervision is not None):
            self._ticking = False
            return
        self.hub.loop.call_later(limits.TICK_S, self._tick)
        beats = {
            number: worker.page.last_beat()
            for number, worker in self.workers.items()
            if worker.page is not None and not worker.is_dead()
        }
        self.flock.tick(time.monotonic(), beats)
        self.dealer.max_connections = self.max_connections
        self.dealer.retry()
        self.relays.look()
        self.act()

    def act(self) -> None:
        """Do what the flock, or the supervisor in its place, decided."""
        for action in self.flock.take_actions():
            worker = self.workers.get(getattr(action, "number", 0))
            if isinstance(action, actions.Say):
                Notice(action.level, action.message, action.detail).log()
            elif isinstance(action, actions.Spawn):
                self._spawn(action)
            elif isinstance(action, actions.Settled | actions.Exit):
                if self.supervision is not None:
                    self.supervision.do(action)
            elif worker is not None:
                self._act_on(worker, action)

    def _act_on(self, worker: Worker, action: Any) -> None:
        if isinstance(action, actions.Open):
            self.dealer.open(worker.id, seat=worker.seat)
            self.board.heard(worker)
        elif isinstance(action, actions.Close):
            self.board.silent(worker.id)
            self.dealer.close(worker.id, pull_back=action.pull_back)
        elif isinstance(action, actions.Stack):
            worker.look_at_silence()
        elif isinstance(action, actions.Drain):
            self.drain(worker, action.grace_s)
        elif isinstance(action, actions.Terminate):
            worker.kill()
        elif isinstance(action, actions.Kill) and action.stack:
            worker.kill_with_stack()
        elif isinstance(action, actions.Kill):
            worker.kill("SIGKILL")

    def _spawn(self, action: actions.Spawn) -> None:
        try:
            self._start(action.number, action.slot or 0)
        except OSError as error:  # no descriptor is left: it is tried again later
            self.flock.exited(action.number, f"it could not be started: {error}", time.monotonic())
            self._hub.loop.call_soon(self.act)

    # -- ends ----------------------------------------------------------------------------------------------------------
    def drain(self, worker: Worker, grace_s: float | None, *, at_once: bool = False) -> None:
        """Let a worker go: it gets nothing more, and ends when its connections have."""
        if worker.exited_after_disconnect is None:
            worker.exited_after_disconnect = True
            if self.hub is not None:
                self.flock.leaving(worker.id, time.monotonic())
                self.act()
                worker.tell("draining")
        if grace_s is not None and self.supervision is None:
            worker.end_within(grace_s)
        others = any(
            each is not worker and each.is_connected() and not each.is_leaving for each in self.workers.values()
        )
        worker.send_control(wire.Drain(grace_s, others and not self.stopping, at_once))

    def stopped_talking(self, worker: Worker) -> None:
        """Its channel is closed: it leaves, or is dead."""
        self.flock.hung_up(worker.id, time.monotonic())
        self.act()

    def exited(self, worker: Worker, how: str) -> None:
        """Its process is gone: its unread connections go to others."""
        if self.hub is None:
            return
        died = not worker.exited_after_disconnect and not self.stopping
        self.dealer.bury(worker.id)
        self.topics.left(worker.id)
        self.board.gone(worker.id, linger=died)
        self.flock.exited(worker.id, how, time.monotonic())
        if self._shares is not None:
            self._shares.gone(worker.id)
        if self.steward is not None:
            self.steward.left(worker)
        self.act()
        self._roster_changed(left=worker)

    def remove(self, worker: Worker) -> None:
        """It has both exited and disconnected, perhaps when the program was ending already."""
        self.workers.pop(worker.id, None)
        if self.hub is not None:
            self.hub.loop.call_soon(self._look_whether_empty)

    def _look_whether_empty(self) -> None:
        if self.workers:
            return
        if self.stopping:
            self.board.close_unused()
            self.stopping = self._said_stopping = False
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter._succeed(None)

    def disconnect(self, grace: float | None = None, callback: ErrorFirst | None = None) -> Any:
        """Let all workers go, as `worker.disconnect()`; an operation that is done when they are gone."""
        op = self._until_empty(callback)
        if self.supervision is not None:
            self.supervision.stop()
            return op
        self.stopping = bool(self.workers)
        for worker in list(self.workers.values()):
            worker.disconnect(grace)
        return op

    async def wait(self) -> None:
        """Wait until no worker is left. With a line that forks another one at each exit: until the cluster is shut down."""
        while self.workers:
            await self._until_empty(None)

    def _until_empty(self, callback: ErrorFirst | None) -> Any:
        op: AnyOperation[None] = begin(callback)
        self._waiters.append(op)
        op._hub.loop.call_soon(self._look_whether_empty)
        return op

    def program_ends(self) -> None:
        """The program ends: every worker is told by the end of its lifeline and channel, and has a moment to leave."""
        if self.hub is None:
            return
        self.stopping = True
        if self.steward is not None:
            self.steward.end()
        self.hub = None
        if self._lifeline is not None:
            for descriptor in self._lifeline:
                os.close(descriptor)
            self._lifeline = None
        workers = list(self.workers.values())
        for worker in workers:
            worker.process.cut()
        deadline = time.monotonic() + limits.LEAVE_S
        for worker in workers:
            worker.process.reap(deadline - time.monotonic())
        self.dealer.shut()
        self.board.close()
        for worker in workers:
            worker.close()
        self.workers.clear()
        self.flock, self.supervision = Flock(), None
        self._ticking = self._said_stopping = False
        if self._keeper is not None:
            self._keeper.end()

    # -- talking -------------------------------------------------------------------------------------------------------
    def broadcast(self, message: Any) -> int:
        """Send a value to every worker; returns how many it was sent to."""
        return sum(
            1 for worker in list(self.workers.values()) if worker.is_connected() and worker.send(message) is not None
        )

    def _emit(self, name: str, *args: Any) -> None:
        self._hub.call(self.emit, name, *args)

    def _dropped(self, local: Any, remote: Any) -> None:
        if self.hub is not None:
            addresses = {"local_address": from_kernel(local), "remote_address": from_kernel(remote)}
            self.hub.call(self.emit, "drop", addresses)

    def _listeners_changed(self, name: Any, count: int) -> None:
        for worker in self.workers.values():
            if name == "message" and count:
                worker.process.heard_now()
            elif name == "request":
                worker.answer_waiting()
