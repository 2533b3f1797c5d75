"""A channel between two processes, on the running loop: values and raw frames in order, with backpressure.

What lives here: `Channel`. What must not: the frame format (`_wire.frames`), the descriptors' travel (`_descriptors`).

    send ─ dumps ─ encode ─▶ outbox ─▶ transport ═══ stream ═══ transport ─▶ Decoder ─▶ inbox ─ loads ─▶ on_message
              └ descriptors ─────────▶ DescriptorHalf ═ records ═ DescriptorHalf ─┘ (a frame waits for its own)

Guarantees
* Messages arrive once and in the order of the sends, also when one waits for its descriptors.
* What is sent is a snapshot: changing the value afterwards changes nothing.
* `send` raises only for a value that cannot travel. A closed or dead peer makes it return False.
* Everything the peer sent before it went away is delivered before `on_close`.
* An exception in a listener, or while unpickling, loses no other message.
* What was sent keeps the program until it has left, also when the channel is unref'd.
* Only slices of a large message are given to the transport, so that memory is bounded and the loop goes on between.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, cast

from .._limits import (
    CHANNEL_CLOSE_S,
    CHANNEL_FLUSH_S,
    CHANNEL_HIGH_WATER_BYTES,
    CHANNEL_STALLED_S,
    MAX_MESSAGE_BYTES,
)
from .._wire.frames import MESSAGE, Decoder, Frame, dumps, encode, loads, snapshot
from ..errors import FrameError, FrameTooLarge
from ..loop import Handle, hub
from ._attach import attach, scratch_of
from ._descriptors import LOST, URGENT_MAX_BYTES, DescriptorHalf, close_all
from ._ends import ChannelEnds

_SLICE_BYTES = 256 * 1024  # of a large piece, given to the transport at once; also the transport's own mark
_LOW_BYTES = 64 * 1024

OnMessage = Callable[[Any, tuple[int, ...]], Any]


class Channel(Handle, asyncio.BufferedProtocol):
    """One end of a channel, attached to the running loop from its construction on.

    Args:
        ends: this end's sockets; the channel owns them from now on.
        on_message: called with each value and its descriptors (-1 stands for one that was lost on the way). The
            descriptors belong to the callee, who closes them.
        on_close: called once, without arguments, after everything that arrived was delivered; `error` tells why.
        on_error: called with an exception from unpickling or from a stream that is no channel; without it such errors
            are uncaught errors of the program.
        max_message_bytes: cap on one message, in both directions.

    `handlers[kind] = function(Frame)` takes raw frames; `descriptors` in them are real.
    """

    __slots__ = (
        "_aborting",
        "_close_timer",
        "_closing",
        "_decoder",
        "_descriptors",
        "_ends",
        "_inbox",
        "_is_holding",
        "_max",
        "_on_close",
        "_on_error",
        "_on_message",
        "_outbox",
        "_outbox_bytes",
        "_paused_by_transport",
        "_paused_by_user",
        "_peer_gone",
        "_scratch",
        "_transport",
        "_waiting",
        "closed",
        "error",
        "flushes_at_end",
        "handlers",
        "high_water_bytes",
        "name",
    )

    def __init__(
        self,
        ends: ChannelEnds,
        on_message: OnMessage,
        on_close: Callable[[], Any],
        *,
        on_error: Callable[[BaseException], Any] | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        high_water_bytes: int = CHANNEL_HIGH_WATER_BYTES,
        name: str = "",
    ) -> None:
        super().__init__()
        of = hub()
        self.name = name
        self.handlers: dict[int, Callable[[Frame], Any]] = {}
        self.high_water_bytes = high_water_bytes
        self.closed = False
        self.flushes_at_end = False  # what was sent leaves before the program ends, see `_last_words`
        self.error: BaseException | None = None
        self._ends = ends
        self._on_message = on_message
        self._on_close = on_close
        self._on_error = on_error
        self._max = max_message_bytes
        self._decoder = Decoder(max_message_bytes)
        self._inbox: deque[Frame] = deque()  # complete frames that wait: for descriptors, or because reading is paused
        self._outbox: deque[memoryview] = deque()  # what the transport was not given yet
        self._outbox_bytes = 0
        self._closing = False
        self._aborting = False
        self._close_timer: asyncio.TimerHandle | None = None
        self._paused_by_transport = False
        self._paused_by_user = False
        self._peer_gone = False
        self._is_holding = False  # keeps the program although it is unref'd, until what was sent has left
        self._waiting: list[asyncio.Future[None]] = []
        self._scratch = scratch_of(of.loop)
        self._transport: asyncio.Transport | None = None
        self._opened(of)
        ends.stream.setblocking(False)
        self._descriptors = DescriptorHalf(
            of.loop, ends.descriptors, self._deliver, self._descriptors_settled, self._urgent_arrived
        )
        attach(of.loop, lambda: self, ends.stream)

    # -- sending ---------------------------------------------------------------------------------------------------
    def send(self, value: Any, *, descriptors: Sequence[int] = ()) -> bool:
        """Send a value. True: go on; False: above the high-water mark (`await drain()`), or closed.

        The mark is `high_water_bytes`, and for descriptors those that have not arrived yet.

        The value is taken as it is now. Descriptors are duplicated: the caller may close its own at once.

        Raises:
            NotSendable: a part of the value cannot be pickled; the message names the path to it. Nothing was sent.
            FrameTooLarge: it is larger than `max_message_bytes`. Nothing was sent.
            OSError: a descriptor is not open, or this process has no room to duplicate it. Nothing was sent.
        """
        if self._closing:
            return False
        body, buffers = dumps(value)
        return self._send(MESSAGE, body, [snapshot(buffer) for buffer in buffers], descriptors, False)

    def send_frame(
        self,
        kind: int,
        body: bytes | bytearray | memoryview = b"",
        buffers: Sequence[bytes | bytearray | memoryview] = (),
        descriptors: Sequence[int] = (),
        *,
        own: bool = False,
        urgent: bool = False,
    ) -> bool:
        """Send raw bytes of a kind that the other end has a handler for; returns as `send`.

        Args:
            body, buffers: not copied when large: they must not change until `drain()` has returned.
            own: the channel takes the descriptors over, also when it is closed, and closes them when they have arrived.
            urgent: pass what waits on the stream. For small frames without descriptors whose order does not matter.
        """
        if self._closing:
            if own:
                for descriptor in descriptors:
                    os.close(descriptor)
            return False
        if urgent and not descriptors and len(body) <= URGENT_MAX_BYTES and not buffers:
            self._descriptors.send_urgent(cast(bytes, encode(kind, body)[0]))
            return True
        return self._send(kind, body, buffers, descriptors, own)

    def _send(self, kind: int, body: Any, buffers: Sequence[Any], descriptors: Sequence[int], own: bool) -> bool:
        size = len(body)
        for buffer in buffers:
            size += memoryview(buffer).nbytes
        if size > self._max:
            raise FrameTooLarge(size, self._max)
        ids = self._descriptors.give(descriptors, own) if descriptors else ()
        pieces = encode(kind, body, buffers, ids)
        transport = self._transport
        if transport is not None and not self._outbox and not self._paused_by_transport and size <= _SLICE_BYTES:
            for piece in pieces:
                transport.write(piece)
            if not self._counted:
                self._hold()
            return not ids or self._descriptors.has_room
        for piece in pieces:
            self._outbox.append(memoryview(piece))
            self._outbox_bytes += len(piece)
        self._fill_transport()
        if not self._counted:
            self._hold()
        return self.buffered_bytes <= self.high_water_bytes and self._descriptors.has_room

    @property
    def buffered_bytes(self) -> int:
        """Bytes that were sent and that the kernel has not taken yet."""
        transport = self._transport
        return self._outbox_bytes + (transport.get_write_buffer_size() if transport is not None else 0)

    def _fill_transport(self) -> None:
        transport, outbox = self._transport, self._outbox
        if transport is None:
            return
        while outbox and not self._paused_by_transport and not transport.is_closing():
            piece = outbox[0]
            if len(piece) > _SLICE_BYTES:
                outbox[0] = piece[_SLICE_BYTES:]
                piece = piece[:_SLICE_BYTES]
            else:
                outbox.popleft()
            self._outbox_bytes -= len(piece)
            transport.write(piece)
        if self._waiting and self._is_drained():
            self._wake_waiting()
        if self._closing:
            self._finish_closing()

    def _hold(self) -> None:
        """Keep the program until what was sent has left, although this channel is unref'd."""
        if not self._is_holding:
            self._is_holding = True
            self._hub.retain()
            self._hub.loop.call_soon(self._release_when_sent)

    def _release_when_sent(self) -> None:
        if self._is_holding and (self.closed or self._has_sent_all()):
            self._is_holding = False
            self._hub.release()

    def _has_sent_all(self) -> bool:
        """Whether nothing waits any more. If not, `resume_writing` comes when the transport has nothing left."""
        transport = self._transport
        if transport is None or self._outbox or self._descriptors.outstanding:
            return False
        if transport.get_write_buffer_size():
            transport.set_write_buffer_limits(high=0)
            return False
        return True

    async def acknowledged(self) -> bool:
        """Wait until every descriptor sent so far has arrived or was given up. False: the channel closed before."""
        while self._descriptors.unacknowledged and not self.closed:
            await self._wait()
        return not self.closed

    def _is_drained(self) -> bool:
        return self.closed or (not self._outbox and not self._paused_by_transport and self._descriptors.has_room)

    def _wake_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def drain(self) -> bool:
        """Wait until there is room again. True: go on sending; False: the channel is closed."""
        await asyncio.sleep(0)  # a loop of sends and drains must not keep the loop for itself
        while not self._is_drained():
            await self._wait()
        return not self._closing

    async def _wait(self) -> None:
        waiter: asyncio.Future[None] = self._hub.loop.create_future()
        self._waiting.append(waiter)
        await waiter

    # -- receiving -------------------------------------------------------------------------------------------------
    def get_buffer(self, sizehint: int) -> memoryview:
        room = None if self._closing else self._decoder.room()
        return self._scratch if room is None else room

    def buffer_updated(self, nbytes: int) -> None:
        if self._closing:
            return  # read and dropped: two ends that close with much to send would wait for each other
        try:
            if self._decoder.room() is None:
                frames = self._decoder.feed(self._scratch[:nbytes])
            else:
                frames = self._decoder.filled(nbytes)
        except (FrameError, FrameTooLarge) as error:
            self._broken(error)
            return
        if frames:
            self._inbox.extend(frames)
            self._deliver()
        if self._decoder.failed:
            try:
                self._decoder.feed(b"")
            except (FrameError, FrameTooLarge) as error:
                self._broken(error)

    def _urgent_arrived(self, data: bytes) -> None:
        try:
            for frame in Decoder(self._max).feed(data):
                self._dispatch(frame)
        except (FrameError, FrameTooLarge) as error:
            self._broken(error)

    def _deliver(self) -> None:
        """Hand over the frames that are complete, in order, until one waits for its descriptors."""
        inbox, arrived = self._inbox, self._descriptors.arrived
        while inbox and not self._paused_by_user and not self._closing:
            frame = inbox[0]
            if frame.descriptors:
                if not self._peer_gone and not all(number in arrived for number in frame.descriptors):
                    return
                frame = frame._replace(descriptors=tuple(arrived.pop(number, LOST) for number in frame.descriptors))
            inbox.popleft()
            self._dispatch(frame)

    def _dispatch(self, frame: Frame) -> None:
        if frame.kind != MESSAGE:
            handler = self.handlers.get(frame.kind)
            if handler is None:
                close_all(frame.descriptors)
                self._report(FrameError(f"channel {self.name!r}: nobody handles frames of kind {frame.kind}"))
            else:
                self._hub.call(handler, frame)
            return
        try:
            value = loads(frame.body, frame.buffers)
        except Exception as error:
            close_all(frame.descriptors)
            self._report(error)
            return
        self._hub.call(self._on_message, value, frame.descriptors)

    def _report(self, error: BaseException) -> None:
        if self._on_error is not None:
            self._hub.call(self._on_error, error)
        else:
            self._hub.uncaught(error)

    def pause_reading(self) -> None:
        """Deliver nothing until `resume_reading()`; the peer feels it as backpressure."""
        if not self._paused_by_user and not self._closing and not self._peer_gone:
            self._paused_by_user = True
            self._pause_transport()

    def _pause_transport(self) -> None:
        if self._paused_by_user and self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on delivering, first what had already arrived."""
        if self._paused_by_user and not self._closing:
            self._paused_by_user = False
            if self._transport is not None:
                self._transport.resume_reading()
            self._hub.loop.call_soon(self._deliver)

    # -- the end ---------------------------------------------------------------------------------------------------
    def close(self) -> None:
        """Send what was sent, then close. Nothing more is delivered; `on_close` follows. Safe to call twice."""
        if self._closing:
            return
        self._closing = True
        if self._descriptors.outstanding:
            self._close_timer = self._hub.loop.call_later(CHANNEL_CLOSE_S, self._stop_waiting)
        self._fill_transport()

    def _stop_waiting(self) -> None:
        self._descriptors.close()
        self._finish_closing()

    def _finish_closing(self) -> None:
        if self._transport is not None and self._has_sent_all():
            # Not here: asyncio's transport tells its end twice if it is closed while it says that it has room.
            self._hub.loop.call_soon(self._close_transport)

    def _close_transport(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _descriptors_settled(self) -> None:
        if self._waiting and self._descriptors.has_room:
            self._wake_waiting()  # both drain() and acknowledged() look again
        if self._closing and not self.closed:
            self._finish_closing()
        self._release_when_sent()

    def abort(self) -> None:
        """Close at once and drop what was not sent. `on_close` follows."""
        self._closing = self._aborting = True
        self._outbox.clear()
        self._outbox_bytes = 0
        if self._transport is not None:
            self._transport.abort()

    def finish(self) -> None:
        """The peer is dead (others may hold copies of its sockets): deliver what it had sent, then close."""
        if not self.closed:
            self._drain_sockets()
            self.abort()

    def _broken(self, error: BaseException) -> None:
        self.error = error
        self._report(error)
        self.abort()

    def _drain_sockets(self) -> None:
        """Read what is left: a failed write must not lose what the peer had sent before."""
        stream = self._ends.stream
        while not self._decoder.failed and stream.fileno() >= 0:
            try:
                count = socket.socket.recv_into(stream, self.get_buffer(-1))
            except OSError:
                break
            if not count:
                break
            self.buffer_updated(count)
        self._peer_gone = True  # it cannot be paused any more, and what has not come will not come
        self._paused_by_user = False
        self._descriptors.read()
        self._deliver()

    # -- asyncio's protocol ----------------------------------------------------------------------------------------
    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(high=_SLICE_BYTES, low=_LOW_BYTES)
        if self._paused_by_user:
            self._hub.loop.call_soon(self._pause_transport)  # uvloop starts reading after this returns
        if self._aborting:
            transport.abort()
        else:
            self._fill_transport()

    def pause_writing(self) -> None:
        self._paused_by_transport = True

    def resume_writing(self) -> None:
        self._paused_by_transport = False
        if self._transport is not None:
            self._transport.set_write_buffer_limits(high=_SLICE_BYTES, low=_LOW_BYTES)  # _has_sent_all lowered them
        self._fill_transport()
        self._release_when_sent()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closing:
            self.error = self.error or exc
            self._drain_sockets()
        self._closing = self.closed = True
        for frame in self._inbox:
            close_all(self._descriptors.arrived.pop(number, LOST) for number in frame.descriptors)
        self._inbox.clear()
        self._outbox.clear()
        self._outbox_bytes = 0
        self._descriptors.close()
        if self._close_timer is not None:
            self._close_timer.cancel()
        self._wake_waiting()
        self._transport = None
        self._release_when_sent()
        try:
            self._hub.call(self._on_close)
        finally:
            self._ended()

    def _last_words(self) -> Coroutine[Any, Any, None] | None:
        if not self.flushes_at_end or self.closed or self._has_sent_all():
            return None
        self.close()
        return self.until_closed()

    async def until_closed(self) -> None:
        """After `close()`: wait until what was sent has left, while the peer takes it and at most for CHANNEL_FLUSH_S."""
        loop = self._hub.loop
        until_s = loop.time() + CHANNEL_FLUSH_S
        while not self.closed and loop.time() < until_s:
            left_bytes = self.buffered_bytes
            try:
                await asyncio.wait_for(self._wait(), CHANNEL_STALLED_S)
            except TimeoutError:
                if self.buffered_bytes == left_bytes:
                    return

    def _shutdown(self) -> None:
        self.abort()
        super()._shutdown()
