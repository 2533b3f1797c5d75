"""A worker: its part in the cluster, beside whatever its program does.

What lives here: `Member`, which provides this process's listeners (`net._provider`), takes connections in, beats, and
leaves when it is told so. What must not: its face (`_self`), how connections reach a server (`_reception`).

    first import ─▶ become: signals, lifeline, 'online' ─▶ [a loop runs: attach] ─▶ Attached, heartbeats
    server.listen ─▶ Ask ─▶ Listening ─▶ Join ─▶ connections
    Drain ─▶ servers end, their connections are waited for ─▶ the channel closes ─▶ the program may end
    the channel closes, or the primary is gone, without a Drain: this process leaves at once
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import pickle
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

from ... import _limits as limits
from ... import child_process, health, logs
from ..._wire import forks as wire
from ..._wire import messages
from ..._wire.frames import MESSAGE, Frame, dumps, encode, snapshot
from ...child_process import Parent
from ...errors import ChannelClosed
from ...events import EventEmitter
from ...ipc import _relay
from ...ipc._handoff import HandoffSocket
from ...loop import Hub, hub, leave_signals, on_new_hub
from ...net._provider import ListenOptions, ServerSide, set_provider
from ...net._udp_options import DatagramOptions
from .._intake import Intake
from .._lifeline import Lifeline
from .._log_sender import LogSender
from .._page import Page
from .._relay import WorkerUplink
from .._vitals import answer_stack_signal, capacity, rss_bytes
from ._departure import exit_after_main, exit_now, exit_soon, tell_foreign_server
from ._neighbours import Neighbours
from ._peer import Peer
from ._reception import Entrance, Reception
from ._role import Role
from ._routes import Routes, install
from ._self import OwnEnd

if TYPE_CHECKING:
    from ...http._pace import Pace

log = logging.getLogger("multiloop.cluster")

_LAST_WORDS_S = 0.5  # for connections that go back to be taken

member: Member | None = None


def become(role: Role) -> None:
    """Make this process a worker. Called once, at the first import of multiloop."""
    global member
    parent = child_process.parent
    if parent is None:
        os._exit(0)  # the primary is gone already
    member = Member(role, parent)
    set_provider(member)
    install(member)


class Member(EventEmitter):
    """This worker, and `cluster` as an emitter in it."""

    def __init__(self, role: Role, parent: Parent) -> None:
        self.id = role.id
        self.parent = parent
        self.neighbours = Neighbours(self)
        self.worker = OwnEnd(self, role.id, parent)
        self.hub: Hub | None = None
        self._page = Page(role.page)
        os.set_inheritable(role.page, False)
        self._handoff = HandoffSocket.from_fd(role.handoff)
        self._questions: dict[int, asyncio.Future[tuple[wire.Listening, int]]] = {}
        self._next_question = 1
        self._kinds: dict[wire.Wanted, tuple[int, set[int]]] = {}  # of listeners: the next number, those that are open
        self._attached = asyncio.Event()  # the loop runs, and the channel is read
        self._beats = 0
        self._welcome = wire.Welcome(False, False)
        self._pace: Pace | None = None  # where the policy asks
        self._shares: Any = None
        self._routes: Routes | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._dies = False
        self._leaves_at_s = math.inf  # whatever keeps it
        parent.mirror = self.worker
        self._lifeline = Lifeline(
            role.lifeline,
            grace_s=limits.LEAVE_S,
            exit_code=0,
            channel=parent._ends.stream.fileno(),
            is_let_go=lambda: bool(self.worker.exited_after_disconnect) and not self._dies,
        )
        answer_stack_signal(self._page)
        self._take_signals()
        self._say_online()
        on_new_hub(self._loop_runs)

    @staticmethod
    def _take_signals() -> None:
        # Ctrl-C hits the whole group, and is the primary's. A handler that does nothing instead of SIG_IGN, which this
        # process's own children would inherit.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, lambda *_: None)
        leave_signals(signal.SIGINT, signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def _say_online(self) -> None:
        """The first words, before anything of the program runs: no loop is needed for them."""
        try:
            self.parent._ends.stream.send(encode(wire.CONTROL, pickle.dumps(wire.Online(), 5))[0])
        except OSError:
            os._exit(0)

    # -- the loop ------------------------------------------------------------------------------------------------------
    def _loop_runs(self, of: Hub) -> None:
        if self.hub is None and threading.current_thread() is threading.main_thread():
            self.hub = of
            of.loop.call_soon(self._attach, of)

    def routes_of(self, loop: asyncio.AbstractEventLoop) -> Routes | None:
        """Return what leads this loop's listening; None for one that is not this worker's. From a coroutine on it."""
        if self.hub is None and threading.current_thread() is threading.main_thread():
            hub()  # a loop that is not of `multiloop.run`: now this worker has one
        if self.hub is None or self.hub.loop is not loop:
            return None
        if self._routes is None:
            self._routes = Routes(loop, self)
        return self._routes

    def _attach(self, of: Hub) -> None:
        self._attached.set()
        channel = self.parent.channel
        if channel is None or channel.closed:
            self._leave_at_once()
            return
        channel.handlers[wire.CONTROL] = self._controlled
        channel.handlers[wire.RELAY] = self.neighbours.relayed
        for kind in (wire.REQUEST, wire.REPLY, wire.FAILURE):
            channel.handlers[kind] = self.worker._talk
        _relay.set_uplink(WorkerUplink(of.loop, self._say, lambda: channel.buffered_bytes))
        self._log_sender = LogSender(of.loop, self._say, lambda: channel.buffered_bytes)
        self._lifeline.when_cut(of.loop, self._leave_at_once)
        self.reception = Reception(of.loop, self._closed)
        self.reception.intake = Intake(of.loop, self._handoff, self.reception, self.reception.family_of, self._say_load)
        self._beat()
        self._say(wire.Attached(capacity()))

    def _say(self, message: Any) -> None:
        self.parent.send_frame(wire.CONTROL, pickle.dumps(message, 5))

    def _beat(self) -> None:
        if self.hub is None or not self.parent.connected:
            return
        self._page.beat(time.monotonic())
        self._say_load()
        self.hub.loop.call_later(limits.HEARTBEAT_INTERVAL_S, self._beat)
        self._beats += 1
        is_time = self._beats % round(limits.REPORT_INTERVAL_S / limits.HEARTBEAT_INTERVAL_S) == 1
        channel = self.parent.channel
        if is_time and self._welcome.reports and channel is not None and not channel.buffered_bytes:
            self._say(messages.Report(rss_bytes(), self.reception.load()))

    def _say_load(self) -> None:
        typical_s = self._pace.typical_s(time.perf_counter()) if self._pace is not None else 0.0
        self._page.set_load(self.reception.load().active_requests, typical_s)

    def _load_beat(self) -> None:
        if self.hub is not None and self.parent.connected:
            self._say_load()
            self.hub.loop.call_later(limits.LOAD_INTERVAL_S, self._load_beat)

    # -- listeners (`net._provider.Provider`) --------------------------------------------------------------------------
    async def listen(self, options: ListenOptions, server: ServerSide) -> Entrance:
        """Open a listener: the primary's, which all workers share."""
        if options.fd is not None:
            wanted = wire.Wanted("fd", fd=options.fd)
        elif options.path is not None:
            wanted = self.wanted_path(options.path)
        else:
            wanted = wire.Wanted("tcp", options.host or "", options.port, ipv6_only=options.ipv6_only)
        entrance = await self.open(
            wanted, server, backlog=options.backlog, path_mode=options.path_mode, tls=options.tls
        )
        self.join(entrance)
        return entrance

    async def open(
        self, wanted: wire.Wanted, server: ServerSide, *, backlog: int, path_mode: int = 0o600, tls: bool = False
    ) -> Entrance:
        """Get a listener; connections come after `join`."""
        wanted = self._numbered(wanted)
        entrance: Entrance | None = None
        try:
            answer, _ = await self._ask(wire.Ask(0, wanted, backlog, path_mode, tls))
            entrance = Entrance(self.reception, answer.listener, answer.address, answer.family, server)
            entrance.wanted = wanted
        finally:
            if entrance is None:
                self._forget(wanted)
        self.reception.open(entrance)
        return entrance

    def join(self, entrance: Entrance) -> None:
        """Let connections come."""
        found = health.statistics()
        watchdog = health.watch(found.threshold) if found.watching else health.watch()  # the program's own, if any
        watchdog.on_wake = self._thread_runs
        self._say(wire.Join(entrance.listener))

    def _thread_runs(self) -> None:
        self._page.thread_beat(time.monotonic())

    async def bind(self, options: DatagramOptions, where: Any) -> socket.socket:
        """Return a UDP socket that all workers share who bind to the same address."""
        wanted = self._numbered(wire.Wanted("udp", where[0], where[1], family=options.family))
        try:
            answer, descriptor = await self._ask(wire.Ask(0, wanted, udp=options))
        except BaseException:
            self._forget(wanted)
            raise
        if descriptor < 0:
            self._forget(wanted)
            self._say(wire.Leave(answer.listener))
            raise OSError(24, "no descriptor was left for it", f"{where[0]}:{where[1]}")
        sock = _SharedDatagram(options.family, socket.SOCK_DGRAM, 0, descriptor)
        sock.when_closed = lambda: self._datagram_closed(wanted, answer.listener)
        sock.setblocking(False)
        return sock

    def _datagram_closed(self, wanted: wire.Wanted, listener: int) -> None:
        self._forget(wanted)
        if self.parent.connected:
            self._say(wire.Leave(listener))

    @staticmethod
    def wanted_path(path: str) -> wire.Wanted:
        """Return what is asked for a Unix path: the primary may be in another working folder."""
        return wire.Wanted("unix", path=path if path.startswith("\0") else os.path.abspath(path))

    def _numbered(self, wanted: wire.Wanted) -> wire.Wanted:
        """The n-th of its kind here meets the n-th of that kind in all workers."""
        number, open_ones = self._kinds.get(wanted, (0, set()))
        open_ones.add(number)
        self._kinds[wanted] = (number + 1, open_ones)
        return wanted._replace(nth=number)

    def _forget(self, wanted: wire.Wanted) -> None:
        kind = wanted._replace(nth=0)
        _, open_ones = self._kinds.get(kind, (0, set()))
        open_ones.discard(wanted.nth)
        if not open_ones:
            self._kinds.pop(kind, None)

    async def _ask(self, ask: wire.Ask) -> tuple[wire.Listening, int]:
        await self._attached.wait()
        if not self.parent.connected:
            raise ChannelClosed("this worker has disconnected: it cannot listen any more")
        number = self._next_question
        self._next_question += 1
        waiter: asyncio.Future[tuple[wire.Listening, int]] = asyncio.get_running_loop().create_future()
        self._questions[number] = waiter
        self._say(ask._replace(number=number))
        try:
            answer, descriptor = await waiter
        except asyncio.CancelledError:
            waiter.cancel()
            raise
        if answer.error is not None:
            raise answer.error
        return answer, descriptor

    def _answered(self, answer: wire.Listening, descriptors: tuple[int, ...]) -> None:
        waiter = self._questions.pop(answer.number, None)
        descriptor = descriptors[0] if descriptors else -1
        if waiter is not None and not waiter.done():
            waiter.set_result((answer, descriptor))
            return
        if descriptor >= 0:
            os.close(descriptor)
        if answer.error is None:  # who asked was cancelled
            self._say(wire.Leave(answer.listener))

    def _closed(self, entrance: Entrance) -> None:
        if entrance.wanted is not None:
            self._forget(entrance.wanted)
        if self.parent.connected:
            self._say(wire.Leave(entrance.listener))

    # -- what the primary says -----------------------------------------------------------------------------------------
    def _controlled(self, frame: Frame) -> None:
        message, descriptors = pickle.loads(frame.body), frame.descriptors
        if isinstance(message, wire.Listening):
            self._answered(message, descriptors)
        elif isinstance(message, messages.Listen):
            self.reception.accept_from(message, descriptors)
        elif isinstance(message, wire.Drain):
            self._drain(message)
        elif isinstance(message, wire.Peers):
            self.neighbours.changed(message)
        elif isinstance(message, wire.Congested):
            if (peer := self.workers.get(message.worker)) is not None:
                peer.congested(message.is_congested)
        elif isinstance(message, wire.LockTold | wire.CounterTold):
            self.shares.heard(message, descriptors)
        elif isinstance(message, messages.Relay):
            _relay.arrived(message.name, message.data)
        elif isinstance(message, messages.FollowLogs):
            self._log_sender.asked(message)
        elif isinstance(message, messages.ReopenLogs):
            logs.reopen()
        elif isinstance(message, wire.Welcome):
            self._welcome = message
            if message.asks_for_requests:
                from ...http._pace import keep_pace

                self._pace = keep_pace()
                self._load_beat()

    @property
    def shares(self) -> Any:
        """This worker's end of locks and counters (`_sharing.WorkerShares`)."""
        if self._shares is None:
            from ._sharing import WorkerShares

            self._shares = WorkerShares(self.id, self._say, lambda: self.parent.connected)
        return self._shares

    # -- other workers -------------------------------------------------------------------------------------------------
    @property
    def workers(self) -> dict[int, Peer]:
        """The other workers, by id."""
        return self.neighbours.peers

    def broadcast(self, message: Any) -> int:
        """Send a value to all other workers; returns how many there are."""
        body, buffers = dumps(message)
        relayed = wire.pack_relay(self.id, wire.EVERYBODY, MESSAGE, body)
        self.parent.send_frame(wire.RELAY, relayed, [snapshot(buffer) for buffer in buffers])
        return len(self.workers)

    # -- listening to events -------------------------------------------------------------------------------------------
    @property
    def _hub(self) -> Hub:
        assert self.hub is not None
        return self.hub

    def tell(self, name: str, *args: Any) -> None:
        """Emit an event on this worker's own end, and on the cluster."""
        self._hub.call(self.worker.emit, name, *args)
        self._hub.call(self.emit, name, self.worker, *args)

    def is_listened_to(self) -> bool:
        """Whether anybody listens for what others send: then the program goes on."""
        emitters = (self.worker, self, *self.workers.values())
        return any(each.listener_count(name) for each in emitters for name in ("message", "request"))

    def listeners_changed(self) -> None:
        """Somebody listens, or no more."""
        self.parent.count()
        self.parent.heard_now()
        if self.hub is None:
            return
        self.neighbours.listeners_changed(self.hub)
        for talk in (self.worker, *self.workers.values()):
            talk.answer_waiting()

    def _listeners_changed(self, name: Any, count: int) -> None:
        self.listeners_changed()

    # -- leaving -------------------------------------------------------------------------------------------------------
    def leave(self, message: wire.Leaving) -> None:
        """Go by oneself: the primary says when."""
        self._dies = self._dies or message.at_once
        if self._leaving is None or message.at_once:
            self.worker.exited_after_disconnect = True
            self._say(message)

    def _drain(self, message: wire.Drain) -> None:
        self.worker.exited_after_disconnect = True
        if self._leaving is None:
            # Counted: the program goes on until this is done, and no longer, whatever its main function waits for.
            self._hub.let_main_go()
            if message.grace_s is not None:
                self._leaves_at_s = time.monotonic() + message.grace_s
            exit_after_main(self._leaves_at_s)
            self._leaving = self._hub.adopt(self._leave(message))
        elif message.at_once:
            self.parent.disconnect()

    async def _leave(self, message: wire.Drain) -> None:
        ends_by_itself = self._hub.fatal is not None  # a loop of `multiloop.run`: else nobody ends this program
        self.tell("draining")
        try:
            if not message.at_once:
                await self._close_servers(message)
        except Exception:
            log.exception("leaving failed")
        finally:
            self.parent.disconnect()
            channel = self.parent.channel
            if channel is not None:
                await channel.until_closed()
            if not ends_by_itself:
                exit_now()

    async def _close_servers(self, message: wire.Drain) -> None:
        reception, intake = self.reception, self.reception.intake
        assert intake is not None
        intake.read_all()
        reception.gives_back = message.give_back
        entrances = reception.entrances
        ends = [asyncio.ensure_future(entrance.server.end(message.grace_s)) for entrance in entrances]
        if any(entrance.is_foreign for entrance in entrances):
            tell_foreign_server()
        if ends:
            await asyncio.wait(ends)
        try:
            await asyncio.wait_for(intake.settle(), _LAST_WORDS_S)
        except TimeoutError:
            pass
        reception.gives_back = False

    def channel_closed(self) -> None:
        """The channel to the primary is closed."""
        for waiter in self._questions.values():
            if not waiter.done():
                waiter.set_exception(ChannelClosed("the primary is gone, or this worker has disconnected"))
        self._questions.clear()
        _relay.set_uplink(None)
        gone = ChannelClosed("the primary is gone, or this worker has disconnected")
        self.worker._fail_requests(gone)
        if self._shares is not None:
            self._shares.lost(gone)
        self.neighbours.lost(gone)
        if hasattr(self, "reception") and self.reception.intake is not None:
            self.reception.intake.close()
        if self.hub is not None:
            self.tell("disconnect")
        if self.worker.exited_after_disconnect is None or self._dies:
            self._leave_at_once()
        elif self.hub is not None and self._leaves_at_s < math.inf:
            self.hub.loop.call_later(max(0.0, self._leaves_at_s - time.monotonic()), self._leave_at_once)

    def _leave_at_once(self) -> None:
        """Nobody is at the other end any more, or this worker kills itself: end with exit code 0, whatever runs."""
        hub = self.hub
        if hub is not None and hub.is_ending:
            return  # it does so already, with an exit code of its own
        if hub is None or hub.fatal is None:
            exit_now()
        else:
            hub.fatal(SystemExit(0))
            exit_soon()


class _SharedDatagram(socket.socket):
    """A UDP socket that other workers have, too. Says when it is closed."""

    __slots__ = ("when_closed",)

    when_closed: Any

    def close(self) -> None:
        """Close it here."""
        tell, self.when_closed = getattr(self, "when_closed", None), None
        super().close()
        if tell is not None:
            tell()
