"""Message ports: `MessagePort`, `MessageChannel`, `receive_message_on_port`.

What lives here: one end of a channel as users see it. What must not: how messages are packed (`_message`), how frames
travel (`_link`).

    post_message ─ pack ─ Link ═══ socket ═══ Link ─ queue ─ unpack ─▶ 'message' listeners | async for | receive…

Rules
* A port reads once it is started: by its first 'message' listener, by iterating over it, or by `start()`. Until then
  messages wait, in the kernel and at the sender (which feels it as backpressure). Messages are never dropped because
  nobody listens.
* At most one read of the socket is handled per turn of the loop: a ping-pong or a flood starves nobody.
* A port with a 'message' listener keeps the program running, until it is closed, unref'd or its last listener is off.
* Messages posted before `close()` are delivered before 'close', which comes at both ends.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

from .._limits import CHANNEL_HIGH_WATER_BYTES, LINGER_S, MAX_MESSAGE_BYTES, PORT_QUEUE_MESSAGES
from ..errors import ClosedError, FrameError, TransferError, UsageError
from ..events import EventEmitter
from ..loop import AnyOperation, ErrorFirst, Handle, Hub, begin, hub
from ._link import Link, Packet, socket_pair
from ._message import KINDS, memory_bytes, pack, unpack
from ._place import current
from ._transit import Receiver, Receiving, close_all, receiving, sending

CONSUMED = 9  # frame kind: the memory of a large message is free again; 8 bytes, how much


class Received(NamedTuple):
    """What `receive_message_on_port` found."""

    message: Any


class MessagePort(EventEmitter, Handle):
    """One end of a `MessageChannel`, or a worker's `parent_port`.

    Events: 'message' (value), 'messageerror' (error: it could not be unpickled, or its descriptors were lost; the port
    stays usable), 'close'. `async for value in port` instead of a listener ends when the port is closed.

    A port belongs to the thread that has it. `transfer_list=[port]` moves it, with all that is in it, to another worker.
    """

    def __init__(
        self,
        link: Link,
        *,
        emitter: EventEmitter | None = None,
        channel: bytes = b"",
        max_message_size: int = MAX_MESSAGE_BYTES,
        receiver: Receiver | None = None,
        refuse_transfer: str = "",
    ) -> None:
        Handle.__init__(self)
        self._counted = False
        self._link = link
        self._emitter = emitter or self  # a Worker emits what comes on its port
        self._channel = channel or secrets.token_bytes(8)
        self._max_bytes = max_message_size
        self._receiver = receiver
        self._refuse_transfer = refuse_transfer  # why this port cannot be transferred
        self._queue: deque[Packet] = deque()
        self._in_memory_bytes = 0  # of large messages that the peer has not unpacked
        self._is_started = False
        self._is_attached = False
        self._is_delivering = False
        self._is_closing = False  # close() was called, or the peer is gone
        self._is_transferred = False
        self._close_emitted = False
        self._takers: deque[asyncio.Future[None]] = deque()  # of `async for`
        self._drainers: list[AnyOperation[bool]] = []
        self._place = current()
        self._place.ports.add(self)

    # -- sending ---------------------------------------------------------------------------------------------------
    def post_message(self, value: Any, transfer_list: Sequence[Any] = ()) -> bool:
        """Send a copy of `value`. True: go on; False: above the high-water mark (`await drain()`), or closed.

        Never lost because of a False: the mark is advice. The value is taken as it is now.

        Args:
            transfer_list: MessagePorts and SharedBuffers in the value, and bytearrays, that move to the receiver: here
                they are closed or empty afterwards.

        Raises:
            NotSendable: a part cannot be pickled; the message names the path to it.
            TransferError: the transfer list cannot be honoured; nothing was detached.
            FrameTooLarge: larger than `max_message_size`.
            ClosedError: this port was transferred.
        """
        if self._is_transferred:
            raise ClosedError("this MessagePort was transferred to another worker")
        link = self._link
        if self._is_closing or link.is_peer_gone:
            return False
        kind, body, fds, in_memory = pack(
            value, transfer_list, receiver=self._receiver, sender=self, max_bytes=self._max_bytes
        )
        self._in_memory_bytes += in_memory
        link.send(kind, body, fds)
        if not link.outbox_bytes and not self._in_memory_bytes:
            return not link.is_peer_gone
        if asyncio._get_running_loop() is not None:
            self._attach()  # the loop writes the rest, and hears of what the receiver has taken
            self._update_reading()
        return self.buffered_amount <= CHANNEL_HIGH_WATER_BYTES and not link.is_peer_gone

    @property
    def buffered_amount(self) -> int:
        """Bytes that were posted and that the kernel or, for large messages, the receiver has not taken yet."""
        return self._link.outbox_bytes + self._in_memory_bytes

    def drain(self, callback: ErrorFirst | None = None) -> Any:
        """Wait until there is room again. True: go on posting; False: the port is closed."""
        op: AnyOperation[bool] = begin(callback)
        self._attach()
        self._drainers.append(op)
        op._stop = lambda: op in self._drainers and self._drainers.remove(op)
        self._update_reading()
        self._hub.loop.call_soon(self._drained)
        return op

    def _drained(self) -> None:
        if self._drainers and (self._is_deaf or self.buffered_amount <= CHANNEL_HIGH_WATER_BYTES):
            drainers, self._drainers = self._drainers, []
            for op in drainers:
                op._succeed(not self._is_deaf)
        if self._is_closing and not self._link.outbox_bytes:
            self._finish()

    @property
    def _is_deaf(self) -> bool:
        return self._is_closing or self._link.is_peer_gone

    # -- starting and stopping -------------------------------------------------------------------------------------
    def start(self) -> MessagePort:
        """Begin to deliver. The first 'message' listener does it, too. Returns itself."""
        self._is_started = True
        if asyncio._get_running_loop() is None:
            if not self._is_closing and self._attach not in self._place.waiting_for_loop:
                self._place.waiting_for_loop.append(self._attach)
        else:
            self._attach()
            self._wake_delivery()
        return self

    def _attach(self) -> None:
        """Join the running loop."""
        if self._is_attached or self._is_closing or self._is_transferred:
            return
        here = hub()
        self._is_attached = True
        self._opened(here)
        self._link.attach(here.loop, self._readable, self._drained)
        self._update_reading()
        if self._queue:
            self._wake_delivery()

    def _listeners_changed(self, name: Any, count: int) -> None:
        if name == "message":
            self._message_listeners(count)
        elif name == "close" and count and asyncio._get_running_loop() is not None:
            self._attach()
            self._update_reading()

    def _message_listeners(self, count: int) -> None:
        if count:
            self.start()
        if self._emitter is not self:
            return  # the worker counts, not its port
        if count:
            self.ref()
        else:
            self.unref()

    def _update_reading(self) -> None:
        if not self._is_attached or self._is_closing:
            return
        wanted = self._is_started or self._in_memory_bytes > 0 or bool(self._events and "close" in self._events)
        self._link.read(wanted and not self._link.is_ended and len(self._queue) < PORT_QUEUE_MESSAGES)

    # -- receiving -------------------------------------------------------------------------------------------------
    def _readable(self) -> None:
        for packet in self._link.receive():
            self._arrived(packet)
        if self._queue:
            self._deliver()
        if self._link.is_ended:
            self._peer_ended()
        elif len(self._queue) >= PORT_QUEUE_MESSAGES:
            self._update_reading()

    def _arrived(self, packet: Packet) -> None:
        if packet.kind in KINDS:
            self._queue.append(packet)
        elif packet.kind == CONSUMED:
            self._in_memory_bytes -= int.from_bytes(packet.body, "little")
            self._drained()
        else:
            close_all(packet.fds)

    def _has_listener(self) -> bool:
        events = self._emitter._events
        return events is not None and "message" in events

    def _deliver(self) -> None:
        """Hand what is queued to the listeners, or wake who iterates."""
        if self._is_delivering:
            return
        self._is_delivering = True
        queue = self._queue
        try:
            while queue and self._is_started and self._has_listener():
                packet = queue.popleft()
                try:
                    value = self._unpack(packet)
                except Exception as error:
                    self._message_error(error)
                else:
                    self._hub.call(self._emitter.emit, "message", value)
        finally:
            self._is_delivering = False
        for taker in self._takers:
            if not taker.done():
                taker.set_result(None)
        self._update_reading()
        if self._is_closing or self._link.is_ended:
            self._finish()

    def _wake_delivery(self) -> None:
        self._hub.loop.call_soon(self._deliver)

    def _unpack(self, packet: Packet) -> Any:
        kind, body, fds, lost = packet
        try:
            if lost:
                raise FrameError(
                    "the ports or buffers of a message were lost: this process is at its limit of open files"
                )
            return unpack(kind, body, fds)
        finally:
            in_memory = memory_bytes(kind, body)
            if in_memory:
                self._link.send(CONSUMED, in_memory.to_bytes(8, "little"))

    def _message_error(self, error: Exception) -> None:
        emitter = self._emitter
        if emitter._events is not None and "messageerror" in emitter._events:
            self._hub.call(emitter.emit, "messageerror", error)
        else:
            self._hub.uncaught(error)

    def __aiter__(self) -> AsyncIterator[Any]:
        if self._has_listener():
            raise UsageError("this port has a 'message' listener: the messages go there, not to `async for`")
        self.start()
        return _Messages(self)

    async def _next(self) -> Any:
        while not self._queue:
            if self._is_closing or self._link.is_ended:
                self._finish()
                raise StopAsyncIteration
            taker: asyncio.Future[None] = self._hub.loop.create_future()
            self._takers.append(taker)
            try:
                await taker
            finally:
                self._takers.remove(taker)
        packet = self._queue.popleft()
        self._update_reading()
        return self._unpack(packet)

    def _receive_now(self) -> Received | None:
        while not self._queue:
            packets = self._link.receive()
            if not packets:
                return None
            for packet in packets:
                self._arrived(packet)
        received = Received(self._unpack(self._queue.popleft()))
        if self._is_attached:
            self._update_reading()
            if not self._queue and self._link.is_ended:
                self._hub.loop.call_soon(self._finish)
        return received

    # -- the end ---------------------------------------------------------------------------------------------------
    def close(self) -> None:
        """Close both ends, after what was posted here has been delivered there. Safe to call twice."""
        if self._is_closing or self._is_transferred:
            return
        self._is_closing = True
        if not self._is_attached:
            self._link.flush(LINGER_S)
            self._finish()
            return
        self._link.read(False)
        self._wake_takers()
        self._hub.loop.call_soon(self._drained)

    def _peer_died(self) -> None:
        """The process at the other end has ended; copies of its socket may hide it. Take what it had sent."""
        link = self._link
        while not link.is_ended and (packets := link.receive()):
            for packet in packets:
                self._arrived(packet)
        link.is_ended = link.is_peer_gone = True
        if self._queue:
            self._deliver()
        self._peer_ended()

    def _peer_ended(self) -> None:
        self._link.read(False)
        if self._link.error is not None:
            self._hub.uncaught(self._link.error)
        self._wake_takers()
        self._drained()
        self._finish()

    def _wake_takers(self) -> None:
        for taker in self._takers:
            if not taker.done():
                taker.set_result(None)

    def _finish(self) -> None:
        """Everything is delivered and sent: close for good."""
        if self._close_emitted or self._is_delivering:
            return
        if not self._is_closing:
            if self._queue:  # the peer is gone, but what it said was not heard yet
                return
        elif self._link.outbox_bytes and not self._link.is_peer_gone:
            return
        self._is_closing = self._close_emitted = True
        self._let_go()
        if self._is_attached:
            self._drained()
            self._hub.call(self.emit, "close")
            self._ended()

    def _let_go(self) -> None:
        self._link.close()
        for packet in self._queue:
            close_all(packet.fds)
        self._queue.clear()
        self._place.ports.discard(self)

    def _shutdown(self) -> None:
        """The program on this loop ends."""
        self._link.write_outbox()
        self._is_closing = self._close_emitted = True
        self._let_go()
        self._ended()

    def __repr__(self) -> str:
        state = "transferred" if self._is_transferred else "closed" if self._is_closing else "open"
        return f"<{type(self).__name__} {state}>"

    # -- moving ----------------------------------------------------------------------------------------------------
    def _check_transferable(self, sender: Any) -> None:
        if self._is_transferred or self._is_closing:
            raise TransferError("a MessagePort in transfer_list is closed, or was transferred before")
        if self._refuse_transfer:
            raise TransferError(self._refuse_transfer)
        if isinstance(sender, MessagePort) and sender._channel == self._channel:
            raise TransferError("a MessagePort cannot be sent to its own other end: the channel would be lost")

    def __reduce_ex__(self, protocol: Any) -> Any:
        transit = sending("a MessagePort")
        if not transit.found(self):
            raise TransferError("a MessagePort in the message must also be in transfer_list: it can have one place only")
        partial, batches, outbox = self._link.snapshot()

        def attached(fds: list[int]) -> list[int]:
            return [transit.attach(fd) for fd in fds]

        state = (
            transit.attach(self._link.fileno()),
            self._channel,
            self._max_bytes,
            self._in_memory_bytes,
            partial,
            [(attached(fds), lost) for fds, lost in batches],
            [(data, attached(fds)) for data, fds in outbox],
            [(kind, bytes(body), attached(fds), lost) for kind, body, fds, lost in self._queue],
        )
        return _received_port, state

    def _detach(self) -> None:
        """It was transferred: its descriptors live on in the message."""
        self._is_transferred = self._is_closing = self._close_emitted = True
        self._let_go()
        self._ended()
        self._wake_takers()
        self._drained()


class _Messages(AsyncIterator[Any]):
    """`async for value in port`. After an error of one message the next may be asked for."""

    __slots__ = ("_port",)

    def __init__(self, port: MessagePort) -> None:
        self._port = port

    async def __anext__(self) -> Any:
        return await self._port._next()


def _received_port(
    position: int,
    channel: bytes,
    max_bytes: int,
    in_memory: int,
    partial: bytes,
    batches: list[tuple[list[int], bool]],
    outbox: list[tuple[bytes, list[int]]],
    queue: list[tuple[int, bytes, list[int], bool]],
) -> MessagePort:
    transit: Receiving = receiving()

    def taken(positions: list[int]) -> list[int]:
        return [transit.take(each) for each in positions]

    link = Link.revive(
        socket.socket(fileno=transit.take(position)),
        partial,
        [(taken(positions), lost) for positions, lost in batches],
        [(data, taken(positions)) for data, positions in outbox],
    )
    port = MessagePort(link, channel=channel, max_message_size=max_bytes)
    port._in_memory_bytes = in_memory
    port._queue.extend(Packet(kind, body, taken(positions), lost) for kind, body, positions, lost in queue)
    return port


class MessageChannel(tuple[MessagePort, MessagePort]):
    """Both ends of a new channel: `port1, port2 = MessageChannel()`.

    Raises OSError when there is no descriptor left.
    """

    __slots__ = ()

    def __new__(cls, *, max_message_size: int = MAX_MESSAGE_BYTES) -> MessageChannel:
        channel = secrets.token_bytes(8)
        return super().__new__(
            cls, (MessagePort(Link(end), channel=channel, max_message_size=max_message_size) for end in socket_pair())
        )

    @property
    def port1(self) -> MessagePort:
        """One end."""
        return self[0]

    @property
    def port2(self) -> MessagePort:
        """The other end."""
        return self[1]


def receive_message_on_port(port: Any) -> Received | None:
    """Take the next message off a port or BroadcastChannel now, without waiting and without an event.

    Returns `Received(message)`, or None when there is none. Raises what unpacking the message raises, and TypeError for
    anything else than a port or channel.
    """
    receive = getattr(port, "_receive_now", None)
    if receive is None:
        raise TypeError(f"receive_message_on_port() takes a MessagePort or BroadcastChannel, not {type(port).__name__}")
    received: Received | None = receive()
    return received


def attach_waiting(of: Hub) -> None:
    """A loop has started in this place: let the ports that were started before it join."""
    place = current()
    waiting, place.waiting_for_loop = place.waiting_for_loop, []
    for attach in waiting:
        attach()
