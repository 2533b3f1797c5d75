"""One open WebSocket on a connection: frames and messages, both backpressures, pings, the closing handshake.

What lives here: `Session`, the base of what speaks to ASGI applications and native handlers. What must not: how those are
called, the rules of frames (`_wire.websocket`).

    CONNECTING → OPEN → CLOSING → CLOSED      (a refused handshake: CONNECTING → DENYING → CLOSED)

Rules
* At most `ws_max_queue` messages (and the high-water mark of bytes) wait for the application; above, reading pauses.
  One read can hold ten thousand frames: they are parsed in slices, and other connections get their turn between.
* A peer that sends pings and takes no pongs is not read any more.
* All deadlines (ping, pong, close) stand in the connection's one deadline; the service's sweep looks, no timer is made.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from .._limits import READ_HIGH_WATER_BYTES, WS_CLOSE_TIMEOUT_S
from .._wire.websocket import ABNORMAL, Handshake, MessageStream
from ._asgi import ClientLeft

if TYPE_CHECKING:
    from .._wire.http1 import Fields
    from ._connection import Connection
    from ._exchange import Exchange
    from ._service import HttpService

log = logging.getLogger("multiloop.http")

CONNECTING, DENYING, OPEN, CLOSING, CLOSED = range(5)

_FIRST_SLICE_BYTES = 1024  # the most by which the messages of one read can exceed the queue's limit
_LAST_SLICE_BYTES = 64 * 1024
_FRAMES_A_TURN = 256  # parsed before other connections get their turn: some 3 ms
_NEVER = float("inf")


class Session:
    """A WebSocket that took a connection over. The connection calls the first block, the application's side the second."""

    __slots__ = ("__weakref__", "_backlog", "_counted", "_heard", "_messages", "_pinged", "_queued_bytes", "_waiter",
                 "code", "connection", "exchange", "handshake", "reason", "service", "state", "stream")  # fmt: skip

    def __init__(self, service: HttpService, connection: Connection, exchange: Exchange, handshake: Handshake) -> None:
        self.service = service
        self.connection = connection
        self.exchange: Exchange | None = exchange
        self.handshake: Handshake | None = handshake
        self.stream: MessageStream | None = None
        self.state = CONNECTING
        self.code = ABNORMAL  # of the end, once CLOSING or CLOSED
        self.reason = ""
        self._messages: list[str | bytes] | None = None
        self._queued_bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._heard = False  # since the sweep looked
        self._pinged = False
        self._counted = False
        service.active += 1  # until the handshake is answered
        self._backlog: bytes | None = connection.take_over(self)  # read and not parsed; None: reading goes on

    def start(self) -> None:
        """Call the application. May end the session before it returns."""
        raise NotImplementedError

    # -- called by the connection and the service ----------------------------------------------------------------------
    def data_received(self, data: bytes) -> None:
        self._heard = True
        if self.state == CLOSED:
            self.connection._discard(len(data))
        elif self._backlog is None:
            self._feed(data)
        else:
            self._backlog += data
            if len(self._backlog) > READ_HIGH_WATER_BYTES:
                self.connection.pause_reading()

    def eof_received(self) -> bool:
        self._ended(ABNORMAL, "the connection ended without a close")
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._ended(ABNORMAL, "the connection was lost")
        if self._counted:
            self._counted = False
            self.service.sessions -= 1

    def going_away(self) -> None:
        """The service drains: end with 1012 (RFC 6455's registry: service restart)."""
        if self.state == CONNECTING:
            self.code, self.reason = 1012, "service restart"
            self.refuse(503, retry_after_s=1)
        elif self.state == OPEN:
            self.close(1012, "service restart")

    def overdue(self, now_s: float) -> None:
        """The deadline that this session set has passed: it is time for a ping, or for the end."""
        config = self.service.config
        if self.state != OPEN:
            self.connection.abort()
        elif self._heard or self._backlog is not None:  # alive, or nobody could have heard
            self._heard = self._pinged = False
            self._set_ping_deadline()
        elif not self._pinged:
            self._pinged = True
            self._stream().ping()
            self._flush()
            self.connection.deadline_s = now_s + config.ws_ping_timeout
        else:
            self._stream().fail(1011, "no answer to a ping")
            self._flush()
            self._ended(ABNORMAL, "no answer to a ping")
            self.connection.abort()

    # -- the handshake -------------------------------------------------------------------------------------------------
    def accept(self, subprotocol: str | None = None, headers: Fields | None = None) -> None:
        """Open the session.

        Raises ValueError or TypeError for a subprotocol or header that cannot be sent; the handshake still waits then.
        """
        service, exchange, handshake = self.service, self.exchange, self.handshake
        assert exchange is not None
        assert handshake is not None
        head = handshake.accept(subprotocol, headers or [], service.date_and_server)
        self.stream = handshake.open(service.config.ws_max_size, service.config.ws_max_fragments)
        self.handshake = self.exchange = None
        self.state = OPEN
        service.active -= 1
        service.requests += 1
        service.sessions += 1
        self._counted = True
        exchange.status = 101
        self.connection.transport.write(head)
        if service.access is not None:
            service.access(exchange)
        self._set_ping_deadline()
        early, self._backlog = self._backlog, None
        if early:
            self._feed(early)
        if self._backlog is None:
            self.connection.resume_reading()

    def refuse(self, status: int, *, retry_after_s: int = 0) -> None:
        """Answer the handshake with a plain error and close."""
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            self.state = CLOSED
            exchange.fail(status, retry_after_s=retry_after_s)
            self.connection.close(linger=True)
            self.wake()

    # -- reading -------------------------------------------------------------------------------------------------------
    def _feed(self, data: bytes) -> None:
        """Parse; hold back the rest when too much waits or it takes too long."""
        stream = self._stream()
        connection = self.connection
        position, size, step = 0, len(data), _FIRST_SLICE_BYTES
        frames_left = _FRAMES_A_TURN
        wrote = False
        while position < size:
            before = stream.frames_seen
            for message in stream.feed(data[position : position + step]):  # the whole is not copied
                if self.state == OPEN:
                    self._take(message)
            position += step
            output = stream.output()
            if output:
                wrote = True
                connection.transport.write(output)
            if stream.over:
                self._peer_closed()
                return
            seen = stream.frames_seen - before
            frames_left -= seen
            step = min(step * 2, _LAST_SLICE_BYTES) if seen <= 2 else _FIRST_SLICE_BYTES
            room = connection.write_room() if wrote else None
            if room is not None or self._is_full() or (frames_left <= 0 and position < size):
                self._hold(data[position:], room)
                return

    def _hold(self, rest: bytes, room: asyncio.Future[None] | None) -> None:
        self._backlog = rest
        self.connection.pause_reading()
        if self._is_full():
            return  # `receive` goes on
        if room is not None:
            room.add_done_callback(self._go_on)
        else:
            self.service.loop.call_soon(self._go_on)

    def _go_on(self, _: Any = None) -> None:
        if self._backlog is None or self.state not in (OPEN, CLOSING) or self._is_full():
            return
        data, self._backlog = self._backlog, None
        if data:
            self._feed(data)
        if self._backlog is None:
            self.connection.resume_reading()

    def _is_full(self) -> bool:
        messages = self._messages
        return messages is not None and (
            len(messages) >= max(1, self.service.config.ws_max_queue) or self._queued_bytes > READ_HIGH_WATER_BYTES
        )

    def _take(self, message: str | bytes) -> None:
        if self._messages is None:
            self._messages = [message]
        else:
            self._messages.append(message)
        self._queued_bytes += len(message)
        self.wake()

    def _peer_closed(self) -> None:
        """The closing handshake is complete, or the peer broke the rules: nothing more is read."""
        stream = self._stream()
        self._ended(stream.code, stream.reason)
        self.connection.close(linger=True)

    def _ended(self, code: int, reason: str) -> None:
        if self.state == CONNECTING or self.state == DENYING:
            exchange, self.exchange = self.exchange, None
            if exchange is not None:
                exchange.disconnected(half=False)
                exchange.fail()
        if self.state < CLOSING:
            self.code, self.reason = code, reason
        self.state = CLOSED
        self._backlog = None
        self.wake()

    # -- for the application's side ------------------------------------------------------------------------------------
    def next_message(self) -> str | bytes | None:
        """The oldest message that waits, or None."""
        messages = self._messages
        if not messages:
            return None
        was_full = self._backlog is not None and self._is_full()  # with no backlog nothing has to go on
        message = messages.pop(0)
        self._queued_bytes -= len(message)
        if not messages:
            self._messages = None
        if was_full and not self._is_full():
            self.service.loop.call_soon(self._go_on)
        return message

    async def changed(self) -> None:
        """Wait for the next message, or the end."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            self._waiter = self.service.loop.create_future()
            await self._waiter
            return
        try:
            await asyncio.shield(waiter)  # somebody else waits already
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not waiter.cancelled() or task is None or task.cancelling():
                raise

    def wake(self) -> None:
        """Let whoever waits look again."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def post_message(self, message: str | bytes) -> asyncio.Future[None] | None:
        """Send a message; returns what to wait for (`sent`) while the client takes nothing. Raises OSError after the end."""
        if self.state != OPEN:
            raise ClientLeft("the WebSocket is closed")
        stream = self.stream
        stream.send(message)  # type: ignore[union-attr]
        self.connection.transport.write(stream.output())  # type: ignore[union-attr]
        return self.connection.write_room()

    async def sent(self, room: asyncio.Future[None]) -> None:
        """Wait until the client takes more. Raises OSError when the session has ended meanwhile."""
        await room
        if self.state != OPEN:
            raise ClientLeft("the WebSocket is closed")

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Begin to close an open session; the peer has a few seconds to answer. Raises ValueError for a wrong code."""
        if self.state != OPEN:
            return
        self._stream().close(code, reason)
        self.state = CLOSING
        self.code, self.reason = code, reason
        self._flush()
        self.connection.deadline_s = self.service.now_s + WS_CLOSE_TIMEOUT_S
        self._go_on()
        self.wake()

    def drop_messages(self) -> None:
        """Forget what waits: nobody will ask for it."""
        self._messages = None
        self._queued_bytes = 0
        self._go_on()

    def _flush(self) -> None:
        output = self._stream().output()
        if output:
            self.connection.transport.write(output)

    def _stream(self) -> MessageStream:
        assert self.stream is not None
        return self.stream

    def _set_ping_deadline(self) -> None:
        interval = self.service.config.ws_ping_interval
        self.connection.deadline_s = self.service.now_s + interval if interval > 0 else _NEVER
