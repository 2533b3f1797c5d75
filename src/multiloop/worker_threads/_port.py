"""Message ports: `MessagePort`, `MessageChannel`, and a worker's `ParentPort`.

What lives here: one end of a channel as users see it, and how it moves to another worker. What must not: how messages
are packed (`_message`), taken (`_inbox`), how frames travel (`_link`).

    post_message ─ pack ─ Link ═══ socket ═══ Link ─▶ Inbox

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
import sys
from collections.abc import Sequence
from typing import Any

from .._limits import CHANNEL_HIGH_WATER_BYTES, LINGER_S, MAX_MESSAGE_BYTES, PORT_QUEUE_MESSAGES
from ..errors import ClosedError, TransferError
from ..events import EventEmitter
from ..loop import AnyOperation, ErrorFirst, Hub, begin, vigil_of
from ._inbox import Inbox
from ._link import Link, Packet, socket_pair
from ._message import INLINE, KINDS, memory_bytes, pack
from ._transit import Receiver, close_all, receiving, sending

CONSUMED = 9  # frame kind: the memory of a large message is free again; 8 bytes, how much


class MessagePort(Inbox):
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
        super().__init__(emitter)
        self._link = link
        self._channel = channel or secrets.token_bytes(8)
        self._max_bytes = max_message_size
        self._receiver = receiver
        self._refuse_transfer = refuse_transfer  # why this port cannot be transferred
        self._in_memory_bytes = 0  # of large messages that the peer has not unpacked
        self._reads_everything = False
        self._is_transferred = False
        self._close_emitted = False
        self._drainers: list[AnyOperation[bool]] = []

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
            self._queue_changed()
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
        op._stop = lambda: self._forget_drainer(op)
        self._queue_changed()
        op._hub.loop.call_soon(self._drained)
        return op

    def _forget_drainer(self, op: AnyOperation[bool]) -> None:
        if op in self._drainers:
            self._drainers.remove(op)

    def _drained(self) -> None:
        is_over = self._is_closing or self._link.is_peer_gone
        if self._drainers and (is_over or self.buffered_amount <= CHANNEL_HIGH_WATER_BYTES):
            drainers, self._drainers = self._drainers, []
            for op in drainers:
                op._succeed(not is_over)
        if self._is_closing and not self._link.outbox_bytes:
            self._finish()

    # -- receiving -------------------------------------------------------------------------------------------------
    def _join_loop(self, here: Hub) -> None:
        self._vigil = vigil_of(here)
        self._link.attach(here.loop, self._readable, self._drained)
        self._queue_changed()

    def _listeners_changed(self, name: Any, count: int) -> None:
        if name == "message":
            self._message_listeners(count)
        elif name == "close" and count and asyncio._get_running_loop() is not None:
            self._attach()
            self._queue_changed()

    def _message_listeners(self, count: int) -> None:
        if count:
            self.start()
        if self._emitter is not None:
            return  # the worker counts, not its port
        if count:
            self.ref()
        else:
            self.unref()

    def _tell_again(self, emitter: EventEmitter, count: int) -> None:
        """Listeners of a worker that has ended came or went: they get what waits."""
        self._emitter = emitter if count else None
        self._message_listeners(count)

    def _queue_changed(self) -> None:
        if not self._is_attached or self._is_closing:
            return
        wanted = (
            self._is_started
            or self._reads_everything
            or self._in_memory_bytes > 0
            or (self._events is not None and "close" in self._events)
        )
        has_room = self._reads_everything or len(self._queue) < PORT_QUEUE_MESSAGES
        self._link.read(wanted and has_room and not self._link.is_ended)

    def _read_everything(self) -> None:
        """The worker at the other end is done, and waits until all it said was taken: let nothing wait there."""
        self._reads_everything = True
        self._attach()
        self._queue_changed()

    def _readable(self) -> None:
        packets = self._link.receive()
        self._vigil.message()
        if len(packets) == 1 and not self._queue and self._takes_now(packets[0]):
            self._is_delivering = True  # most reads bring one message, and somebody listens: no detour by the queue
            try:
                self._hand_over(packets[0])
            finally:
                self._is_delivering = False
            if self._is_closing:
                self._finish()
            return
        for packet in packets:
            self._arrived(packet)
        if self._queue:
            self._deliver()
        if self._link.is_ended:
            self._peer_ended()

    def _takes_now(self, packet: Packet) -> bool:
        return packet.kind == INLINE and self._is_started and not self._is_delivering and self._has_listener()

    def _read_now(self) -> bool:
        packets = self._link.receive()
        for packet in packets:
            self._arrived(packet)
        return bool(packets)

    def _arrived(self, packet: Packet) -> None:
        if packet.kind in KINDS:
            self._queue.append(packet)
        elif packet.kind == CONSUMED:
            self._in_memory_bytes -= int.from_bytes(packet.body, "little")
            self._drained()
        else:
            close_all(packet.fds)

    def _unpacked(self, packet: Packet) -> None:
        in_memory = memory_bytes(packet.kind, packet.body)
        if in_memory:
            self._link.send(CONSUMED, in_memory.to_bytes(8, "little"))

    def _is_at_end(self) -> bool:
        return self._is_closing or self._link.is_ended

    # -- the end ---------------------------------------------------------------------------------------------------
    def close(self) -> None:
        """Close both ends, after what was posted here has been delivered there. Safe to call twice."""
        if self._is_closing:
            return
        self._is_closing = True
        if self._is_attached:
            self._link.read(False)
            self._wake_takers()
            self._hub.loop.call_soon(self._drained)
        else:
            self._link.flush(LINGER_S)
            self._finish()

    def _peer_died(self) -> None:
        """The worker at the other end has ended; copies of its socket may hide it. Take what it had sent.

        Only messages that nobody took are left then, and nobody is told of them until `_tell_again`.
        """
        while not self._link.is_ended and self._read_now():
            pass
        self._link.is_ended = self._link.is_peer_gone = True
        if self._queue:
            self._deliver()
        self._peer_ended()
        self._link.close()
        self._emitter = None  # the worker refers to its port: both go with the last reference to the worker

    def _peer_ended(self) -> None:
        self._link.read(False)
        if self._link.error is not None:
            self._hub.uncaught(self._link.error)
        self._wake_takers()
        self._drained()
        self._finish()

    def _finish(self) -> None:
        if self._close_emitted or self._is_delivering:
            return
        if not self._is_closing:
            if self._queue:  # the peer is gone, but what it said was not heard yet
                self._leave_loop()
                return
        elif self._link.outbox_bytes and not self._link.is_peer_gone:
            return
        self._is_closing = self._close_emitted = True
        self._let_go()
        if self._is_attached:
            self._drained()
            self._hub.call(self.emit, "close")
            self._ended()

    def _leave_loop(self) -> None:
        """Nothing comes any more: what is queued waits for whoever has the port, and goes with the last reference to it."""
        self._link.is_peer_gone = True
        self._link.detach()
        self._drained()
        self._ended()

    def _let_go(self) -> None:
        self._link.close()
        self._drop_queue()
        self._place.ports.discard(self)

    def _end_with_place(self, timeout_s: float | None, *, stays_open: bool = False) -> None:
        """The worker that has this port ends: wait until the other end has taken what was posted, then close."""
        self._link.detach()
        if not self._link.flush(timeout_s):
            print(
                f"multiloop: {self._link.outbox_bytes} bytes posted by {self._place.name} are lost: nobody reads them",
                file=sys.stderr,
            )
        if not stays_open:
            self._is_closing = self._close_emitted = True
            self._let_go()

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
        if self._is_closing:
            raise TransferError("a MessagePort in transfer_list is closed, or was transferred before")
        if self._refuse_transfer:
            raise TransferError(self._refuse_transfer)
        if isinstance(sender, MessagePort) and sender._channel == self._channel:
            raise TransferError("a MessagePort cannot be sent to its own other end: the channel would be lost")

    def __reduce_ex__(self, protocol: Any) -> Any:
        transit = sending("a MessagePort")
        if not transit.found(self):
            raise TransferError(
                "a MessagePort in the message must also be in transfer_list: it can have one place only"
            )
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
            [(kind, bytes(body), attached(list(fds)), lost) for kind, body, fds, lost in self._queue],
        )
        return _received_port, state

    def _detach(self) -> None:
        """It was transferred: its descriptors live on in the message."""
        self._is_transferred = self._is_closing = self._close_emitted = True
        self._let_go()
        self._ended()
        self._wake_takers()
        self._drained()


class ParentPort(MessagePort):
    """A worker's end of the channel to its parent. It outlives the loops of the worker, and goes nowhere else."""

    def __init__(self, link: Link) -> None:
        super().__init__(
            link, refuse_transfer="parent_port cannot be transferred: it is this worker's own; use a MessageChannel"
        )

    def _shutdown(self) -> None:
        """A loop of the worker ends; code behind it may still post, read, or start another."""
        self._link.write_outbox()
        self._link.detach()
        self._is_attached = False
        self._wake_takers()
        self._ended()


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
    transit = receiving()

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
