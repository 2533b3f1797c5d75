"""A worker as its primary has it.

What lives here: `Worker`. What must not: all workers together (`_primary`), the listeners they share (`_board`).

    fork ─▶ 'fork' ─▶ 'online' ─▶ 'listening' (address) … ─▶ ['draining'] ─▶ 'disconnect' and 'exit' (code, signal)

Each event is emitted on the worker, and on the cluster with the worker in front. The last two come in either order; the
worker leaves `cluster.workers` before the later one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import pickle
import time
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from ... import _limits as limits
from ..._wire import forks as wire
from ..._wire import messages
from ..._wire.frames import Buffer, Frame
from ...child_process._options import SignalLike, SpawnOptions
from ...errors import ChannelClosed, WorkerDied
from ...ipc import Channel
from ...ipc._handoff import HandoffSocket, handoff_pair
from ...loop import Hub
from .._observer import Notice
from .._page import Page
from .._relay import has_room
from .._silence import Silence
from . import _role
from ._options import ByKey
from ._process import WorkerProcess
from ._talk import Talk

if TYPE_CHECKING:
    from ._primary import Primary

log = logging.getLogger("multiloop.cluster")

_FAILED_START_S = 1.0  # before the 'exit' of a worker that could not be started
_EXIT_FOLLOWS_S = 1.0  # that a disconnected worker takes to leave


class State(StrEnum):
    """Where a worker is in its life, as Node counts it. Each is the word, too: `worker.state == "listening"`."""

    NONE = "none"
    ONLINE = "online"
    LISTENING = "listening"
    DISCONNECTED = "disconnected"
    DEAD = "dead"


class ListeningAddress(tuple[Any, Any], ByKey):
    """Where a worker listens: (host, port), or (path, None). Also `.address`, `.port`, `.address_type` and `.fd`.

    `address_type` is 4, 6, "udp4", "udp6", or -1 for a Unix socket, as in Node; `fd` is the primary's descriptor that was
    asked for, or None.
    """

    address_type: Any
    fd: int | None

    def __new__(cls, address: Any, address_type: Any, fd: int | None = None) -> ListeningAddress:
        made = super().__new__(cls, address if isinstance(address, tuple) else (address, None))
        made.address_type = address_type
        made.fd = fd
        return made

    @property
    def address(self) -> Any:
        """The host, or the path."""
        return self[0]

    @property
    def port(self) -> Any:
        """The port; None for a path."""
        return self[1]

    def __getitem__(self, key: Any) -> Any:
        return ByKey.__getitem__(self, key) if isinstance(key, str) else tuple.__getitem__(self, key)


class Worker(Talk):
    """A worker that `cluster.fork()` started.

    Events: 'fork' · 'online' (its program runs) · 'listening' (address) · 'message' (value, handle) · 'request' (value) ·
    'draining' (it was told to disconnect) · 'disconnect' · 'exit' (code, signal: one of them None) · 'error'.

    Attributes: `id` (1, 2, 3, …, never used twice) · `process` (a `child_process.ChildProcess`: `pid`, `stdout`, …) ·
    `exited_after_disconnect`: None while it lives; True when it left because somebody told it so (`disconnect()`, or its own
    `kill()`), False when it died, ended by itself or was killed · `state`.
    """

    def __init__(self, primary: Primary, number: int, seat: int) -> None:
        self.cluster = primary
        self.id = number
        self.seat = seat
        self.exited_after_disconnect: bool | None = None
        self.state = State.NONE
        self.handoff: HandoffSocket | None = None
        self.receiving: HandoffSocket | None = None
        self.page: Page | None = None
        self.report: Any = None  # the last one
        self.started_at = time.time()
        self._primary = primary
        self._silence: Silence | None = None
        self._is_disconnected = False
        self._has_exited = False
        self._force_at_s = math.inf
        self._force: asyncio.TimerHandle | None = None
        self.process = WorkerProcess([], SpawnOptions(), primary.program_ends)

    # -- the beginning -------------------------------------------------------------------------------------------------
    def start(self, command: Sequence[str], options: Mapping[str, Any], lifeline: int) -> None:
        """Start its process, now. Raises OSError when there is no descriptor left."""
        with contextlib.ExitStack() as made, contextlib.ExitStack() as theirs:
            self.handoff, their_handoff = handoff_pair()
            made.callback(self.handoff.close)
            theirs.callback(their_handoff.close)
            self.receiving = their_handoff.copy()
            made.callback(self.receiving.close)
            self.page = Page.create()
            made.callback(self.page.close)
            role = _role.Role(self.id, self.seat, their_handoff.fileno(), self.page.descriptor, lifeline)
            env = {**options["env"], _role.VARIABLE: _role.write(their_handoff.inode, role)}
            passed = (their_handoff.fileno(), self.page.descriptor, lifeline)
            self.process = WorkerProcess(
                command, SpawnOptions(**{**options, "env": env, "pass_fds": passed}), self._primary.program_ends
            )
            self.process.mirror = self
            self.process.on_channel = self._add_handlers
            self.process.on("exit", self._exited).on("disconnect", self._disconnected).on("error", self._failed)
            self.process.launch(self._primary.hub)
            made.pop_all()

    def attach(self, of: Hub) -> None:
        """The primary's loop runs."""
        self._hub = of
        if self.page is not None and self.process.pid is not None:
            self._silence = Silence(of.loop, self.process.pid, self.page, self.process.kill, self._say)
        self.process.attach(of)

    def _add_handlers(self, channel: Channel) -> None:
        channel.handlers[wire.CONTROL] = self._controlled
        channel.handlers[wire.RELAY] = lambda frame: self._primary.relay(self, frame)
        for kind in (wire.REQUEST, wire.REPLY, wire.FAILURE):
            channel.handlers[kind] = self._talk

    def _controlled(self, frame: Frame) -> None:
        self._primary.controlled(self, pickle.loads(frame.body), frame.descriptors)

    def look_at_silence(self) -> None:
        """Find out why its loop is silent: that of a worker that listens, and so has a watchdog."""
        if self._silence is not None and self.page is not None and self.page.last_thread_beat():
            self._silence.look()

    def _say(self, level: str, text: str, detail: str) -> None:
        Notice(level, f"worker {self.id}{text}", detail).log()

    def kill_with_stack(self) -> None:
        """Send SIGKILL, after its stack was logged."""
        if self._silence is not None:
            self._silence.log_stack(lambda: self.kill("SIGKILL"))

    # -- talking -------------------------------------------------------------------------------------------------------
    def send(self, message: Any, handle: Any = None, *, keep_open: bool = False) -> bool:
        """Send a value, and with it a socket, a server or a descriptor, as `child_process.ChildProcess.send` does.

        False: it takes messages too slowly (`await worker.process.drain()`), or it is gone. Never raises for that.
        """
        return self.process.send(message, handle, keep_open=keep_open)

    post_message = send

    def send_control(self, message: Any, descriptors: Sequence[int] = ()) -> bool:
        """Send a message of ours; one to a dead worker is dropped. Raises OSError when a descriptor cannot be copied."""
        return self.process.send_frame(wire.CONTROL, pickle.dumps(message, 5), (), descriptors)

    def _send_frame(self, kind: int, body: bytes, buffers: Sequence[Buffer] = ()) -> bool:
        return self.process.send_frame(kind, body, buffers)

    def take_relayed(self, message: messages.Relay) -> bool:
        """Send what the program or another worker said on a bus; False for one that takes nothing."""
        channel = self.process.channel
        if channel is not None and not has_room(channel.buffered_bytes):
            return False
        self.send_control(message)
        return True

    def forward(self, frame: Frame, body: bytes) -> bool:
        """Pass on a frame from another worker, with its descriptors; False when it is gone or congested."""
        channel = self.process.channel
        if channel is None:
            return False
        return channel.send_frame(wire.RELAY, body, frame.buffers, frame.descriptors)

    def _is_there(self) -> bool:
        return self.process.connected

    def _who(self) -> str:
        return f"worker {self.id}"

    def listens(self) -> bool:
        """Whether anybody listens for its messages, here or on the cluster (for its process)."""
        return self.listener_count("message") + self.cluster.listener_count("message") > 0

    def message(self, value: Any, handle: Any) -> None:
        """It has sent a message (for its process)."""
        self.tell("message", value, handle)

    def keeps_running(self) -> bool:
        """The process itself is what counts."""
        return False

    def channel_closed(self) -> None:
        """Its channel is closed (for its process, whose 'disconnect' comes next)."""

    def _listeners_changed(self, name: Any, count: int) -> None:
        if name == "message" and count:
            self.process.heard_now()
        elif name == "request":
            self.answer_waiting()

    def tell(self, name: str, *args: Any) -> None:
        """Emit an event here and on the cluster."""
        self._hub.call(self.emit, name, *args)
        self._hub.call(self.cluster.emit, name, self, *args)

    # -- what happens to it --------------------------------------------------------------------------------------------
    def is_online(self) -> None:
        """Its program has begun."""
        if self.state is State.NONE:
            self.state = State.ONLINE
            self.tell("online")

    def is_listening(self, address: ListeningAddress) -> None:
        """It listens somewhere."""
        if self.state is State.ONLINE:
            self.state = State.LISTENING
        self.tell("listening", address)

    def _failed(self, error: BaseException) -> None:
        """It could not be started, or a message of its could not be unpickled."""
        if self.process.pid is None:
            log.error("worker %d could not be started: %s", self.id, error)
            code = -(getattr(error, "errno", None) or 1)
            self._is_disconnected = True
            # Later: a program that forks again at once would do nothing else.
            self._hub.loop.call_later(_FAILED_START_S, self._exited, code, None)
        elif not self.listener_count("error"):
            log.error("worker %d: %s: %s", self.id, type(error).__name__, error)  # its fault is not the primary's end
        self._emit_error_if_heard(error)

    def _disconnected(self) -> None:
        self._is_disconnected = True
        self.exited_after_disconnect = bool(self.exited_after_disconnect)
        if self.state is not State.DEAD:
            self.state = State.DISCONNECTED
        self._primary.stopped_talking(self)
        if self._has_exited:
            self._primary.remove(self)
        else:  # mostly its exit follows, and says more about why nothing will be answered
            gone = ChannelClosed(f"worker {self.id} has disconnected")
            self._hub.loop.call_later(_EXIT_FOLLOWS_S, self._fail_requests, gone)
        self.tell("disconnect")

    def _exited(self, code: int | None, signal: str | None) -> None:
        self._has_exited = True
        if self._force is not None:
            self._force.cancel()
        self.exited_after_disconnect = bool(self.exited_after_disconnect)
        self.state = State.DEAD
        how = f"was killed by {signal}" if signal is not None else f"ended with exit code {code}"
        self._fail_requests(WorkerDied(f"worker {self.id} {how}", exit_code=code, signal=signal))
        self._primary.exited(self, signal or f"exit code {code}")
        self.close()
        if self._is_disconnected:
            self._primary.remove(self)
        self.tell("exit", code, signal)

    def close(self) -> None:
        """Let go of everything that was shared with it. Safe to call twice."""
        if self._silence is not None:
            self._silence.end()
        for end in (self.handoff, self.receiving, self.page):
            if end is not None:
                end.close()

    # -- ending it -----------------------------------------------------------------------------------------------------
    def disconnect(self, grace: float | None = None) -> Worker:
        """Let it go: it gets no more connections, closes its servers, waits for their connections, disconnects, ends.

        'draining' comes at once, when a replacement may be started; 'disconnect' and 'exit' when it is done. Calling it
        again changes nothing.

        Args:
            grace: seconds after which what is left is cut: connections, then whatever else keeps it; one that does not
                leave by itself then (its loop is blocked) is killed two seconds later. None waits for all of it. A
                shorter one holds although it was told to disconnect before.
        """
        if not self.is_dead() and self.process.connected and self.exited_after_disconnect is None:
            self._primary.drain(self, grace)
        elif grace is not None:
            self.end_within(grace)
        return self

    def end_within(self, grace_s: float) -> None:
        """It was told to go: when it is there after so many seconds and a margin, it is killed. The shortest time holds."""
        force_at_s = time.monotonic() + grace_s + limits.FORCE_MARGIN_S
        if force_at_s < self._force_at_s:
            self._force_at_s = force_at_s
            self._primary.on_loop(self._arm)

    def _arm(self) -> None:
        if self._force is not None:
            self._force.cancel()
        if not self._has_exited:
            self._force = self._hub.loop.call_later(self._force_at_s - time.monotonic(), self._end_by_force)

    def _end_by_force(self) -> None:
        if self.process.kill("SIGKILL"):
            Notice("warning", f"worker {self.id} did not leave within its grace: killed", "").log()

    def kill(self, signal: SignalLike = "SIGTERM") -> bool:
        """Send a signal to its process; whether there is one. No grace: SIGTERM ends a worker at once, as in Node."""
        return self.process.kill(signal)

    destroy = kill

    @property
    def is_leaving(self) -> bool:
        """Whether it was told to go, or goes by itself."""
        return self.exited_after_disconnect is True

    def is_dead(self) -> bool:
        """Whether its process has ended (or could not be started)."""
        return self.process.is_over

    def is_connected(self) -> bool:
        """Whether its channel is open."""
        return self.process.connected

    def __repr__(self) -> str:
        return f"<Worker {self.id} pid={self.process.pid} {self.state.value}>"
