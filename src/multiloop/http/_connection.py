"""One connection of an HTTP server: bytes in, exchanges in order, deadlines, the end.

What lives here: `Connection`, the protocol that a transport calls. It is no asyncio.Protocol so that it can be compiled.
What must not: how an application is called (`_asgi`, `_wsgi`, `_handler`), what a head means (`_reader`, `_wire.http1`).

    transport → data_received → RequestReader → exchange (queued, started in order) → write → transport

Rules
* The application starts only after the parser returned: it reports some errors after the head (RFC 9112 6.1).
* After a refusal, a reply with `Connection: close` or the end of an exchange that closes, no further byte is parsed.
* Every phase has one deadline for the whole phase, set once when it begins (`_deadlines` looks; no timer is made).
* `abort` and `close` are the only two ways in which the transport is closed, both here.
"""

from __future__ import annotations

import logging
from time import perf_counter
from typing import TYPE_CHECKING, Any

import httptools

from .._limits import MAX_PIPELINED, PARSE_SLICE_BYTES
from .._wire import http1
from .._wire.http1 import BadRequest
from ._deadlines import BODY, CLOSING, FIRST_BYTE, HEAD, IDLE, LINGER, NEVER, SERVING
from ._exchange import DONE, STREAMING, Exchange
from ._sharing import duplicate, shut_down_shared
from ._state import Carrier

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Callable

    from ._reader import RequestReader
    from ._service import HttpService
    from ._state import Listener

log = logging.getLogger("multiloop.http")

_LINGER_S = 2.0  # after an error reply: time for the client to read it before a reset could destroy it
_LINGER_BYTES = 1 << 20


class Connection(Carrier):
    """The protocol of one connection."""

    __slots__ = (
        "__weakref__", "_backlog", "_lingered", "_on_closed", "_on_first_byte", "_pumping", "_queue", "_refusal",
        "_served", "body_since_s", "current", "deadline_s", "eof", "phase", "reader", "reading_paused", "upgraded",
        "write_since_s",
    )  # fmt: skip

    service: HttpService

    def __init__(
        self,
        service: HttpService,
        listener: Listener,
        kept: bool = False,
        on_first_byte: Callable[[], None] | None = None,
        on_closed: Callable[[], None] | None = None,
        peer: tuple[str, int] | None = None,
    ) -> None:
        self.service = service
        self.listener = listener
        self.phase = IDLE if kept else FIRST_BYTE
        self.deadline_s = service.now_s + (service.keep_alive_s if kept else service.config.first_byte_timeout)
        self.reader: RequestReader | None = None
        self.current: Exchange | None = None
        self.upgraded: Any = None  # a WebSocket session that took the connection over
        self.eof = False
        self.write_since_s = NEVER
        self._queue: list[Exchange] | None = None
        self._backlog: bytes | None = None  # bytes that wait because too much is queued or an upgrade is due
        self._refusal: BadRequest | None = None
        self._pumping = False
        self.reading_paused = False
        self.write_waiter = None
        self._served = 0
        self.peer_address = peer
        self._on_first_byte = on_first_byte
        self._on_closed = on_closed

    # -- called by the transport -------------------------------------------------------------------------------------
    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.service.connections.add(self)
        if self.service.draining:
            self.service.idle_while_draining(self)
        if self._backlog is not None:
            prefix, self._backlog = self._backlog, None
            self.data_received(prefix)

    def was_read(self, prefix: bytes) -> None:
        """Say, before there is a transport, what others have read from it: it comes before everything else."""
        self._backlog = prefix

    def data_received(self, data: bytes) -> None:
        if self._on_first_byte is not None:
            seen, self._on_first_byte = self._on_first_byte, None
            seen()
        if self.upgraded is not None:
            self.upgraded.data_received(data)
        elif self.phase >= LINGER or self._refusal is not None:
            self._discard(len(data))
        elif self._backlog is not None:
            self._backlog += data
        else:
            self._feed(data)
            if self.current is None or self._queue is not None or self._refusal is not None:
                self.pump()
            elif not self.current.started:
                self._start(self.current)

    def eof_received(self) -> bool:
        """The client sent its last byte. A reply under way may finish (RFC 9112 9.6), anything else ends here."""
        self.eof = True
        if self.upgraded is not None:
            return bool(self.upgraded.eof_received())
        current = self.current
        if current is None or self.phase >= LINGER:
            self.close()
            return False
        if not current.body_done:
            current.disconnected(half=False)
            self.abort()
            return False
        current.disconnected(half=True)
        return not self.listener.is_tls

    def connection_lost(self, error: Exception | None) -> None:
        self.service.connections.discard(self)
        self.phase = CLOSING
        self.reader = None
        self._backlog = None
        self.resume_writing()
        upgraded, self.upgraded = self.upgraded, None
        if upgraded is not None:
            upgraded.connection_lost(error)
        left = [self.current] if self.current is not None else []
        left += self._queue or ()
        self.current = self._queue = None
        for exchange in left:
            exchange.disconnected(half=False)
        if self._on_closed is not None:
            self._on_closed()
            self._on_closed = None
        self.service.connection_gone()

    def pause_writing(self) -> None:
        if self.write_waiter is None:
            self.write_waiter = self.service.loop.create_future()
            self.write_since_s = self.service.now_s
        if self.upgraded is None and self._queue:
            self.pause_reading()

    def resume_writing(self) -> None:
        waiter, self.write_waiter = self.write_waiter, None
        self.write_since_s = NEVER
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # -- reading -----------------------------------------------------------------------------------------------------
    def _feed(self, data: bytes) -> None:
        """Parse; requests that complete are queued, errors become a refusal that is answered in its turn."""
        reader = self.reader
        service = self.service
        if reader is None:
            reader = self.reader = service.readers.pop() if service.readers else service.make_reader()
            reader.connection = self
        size = len(data)
        try:
            if size <= PARSE_SLICE_BYTES:
                reader.feed(data)
                if reader.in_message:
                    reader.count_fed(size)
            else:
                self._feed_slices(reader, data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade_due(reader, data, upgrade.args[0])
            return
        except httptools.HttpParserError as error:
            self._parser_error(reader, error, data)
            return
        except BadRequest as refused:
            self.refuse(refused)
            return
        if reader.in_message:
            self._set_reading_phase(reader)
        elif self.reader is reader:
            self.reader = None
            current = self.current
            if (current is None or current.keep_alive) if self._queue is None else self._queue[-1].keep_alive:
                reader.connection = None  # type: ignore[assignment]
                service.readers.append(reader)  # one that stopped behind its last message cannot be used again
            if self.phase == BODY or self.phase == HEAD:
                self._message_read()

    def _message_read(self) -> None:
        current = self.current
        if current is None:  # the rest of a body that nobody wanted
            self.phase = IDLE
            self.deadline_s = self.service.now_s + self.service.keep_alive_s
            if self.service.draining:
                self.service.idle_while_draining(self)
        elif current.started:
            self.phase = SERVING
            self.deadline_s = NEVER

    def _feed_slices(self, reader: RequestReader, data: bytes) -> None:
        # One read can complete ten thousand requests, and no callback can stop the parser: slices, with a look between.
        view = memoryview(data)
        position = 0
        while position < len(view):
            queue = self._queue
            if queue is not None and len(queue) >= MAX_PIPELINED:
                self._backlog = bytes(view[position:])
                self.pause_reading()
                return
            step = reader.left_bytes if reader.in_body and reader.left_bytes > PARSE_SLICE_BYTES else PARSE_SLICE_BYTES
            if queue is not None and not reader.in_body:
                step = 512
            piece = view[position : position + step]
            try:
                reader.feed(piece)
            except httptools.HttpParserUpgrade as upgrade:
                self._upgrade_due(reader, bytes(view[position:]), upgrade.args[0])
                return
            if reader.in_message:
                reader.count_fed(len(piece))
            position += step

    def take_exchange(self, exchange: Exchange) -> None:
        """Take a request whose head is complete: it is next, or waits behind others (called by the reader)."""
        if self._queue is not None:
            self._queue.append(exchange)
        elif self.current is None:
            self.current = exchange
        else:
            self._queue = [exchange]

    def _last_keeps_alive(self) -> bool:
        queue = self._queue
        last = queue[-1] if queue else self.current
        return last is None or last.keep_alive

    def _set_reading_phase(self, reader: RequestReader) -> None:
        if reader.in_body:
            if self.phase != BODY:
                self.phase = BODY
                self.body_since_s = self.service.now_s
            self.deadline_s = self.service.now_s + self.service.config.body_idle_timeout
        elif self.phase != HEAD:
            self.phase = HEAD
            self.deadline_s = self.service.now_s + self.service.config.header_timeout

    def _parser_error(self, reader: RequestReader, error: Exception, data: bytes) -> None:
        refused = reader.refused
        if refused is not None:
            self.refuse(refused)
        elif not self._last_keeps_alive() and not reader.in_message:
            # Bytes behind a request that closes the connection are not a request: nobody reads them.
            self.reader = None
        else:
            reason = str(error)
            self.refuse(BadRequest(http1.status_of_parser_error(type(error).__name__, reason, data[:64]), reason))

    def refuse(self, refused: BadRequest) -> None:
        """Nothing more is parsed; the refusal is answered after the requests before it."""
        reader = self.reader
        cut = reader.exchange if reader is not None else None
        self.reader = None
        log.debug("refused a request: %d %s", refused.status, refused.reason)
        if cut is not None:  # the bad bytes are in the body of a request whose head was good
            if cut.started:
                self.cut(cut, refused.status)
                return
            if cut is self.current:
                self.current = None
            elif self._queue is not None and cut in self._queue:
                self._queue.remove(cut)
                self._queue = self._queue or None
        self._refusal = refused

    def cut(self, exchange: Exchange, status: int) -> None:
        """End an exchange whose body will never be whole: the application learns of a disconnect, the client of why."""
        if exchange.reply_state >= STREAMING:
            if exchange.reply_state == DONE:
                self.close(linger=True)  # answered before its body was read
            else:
                exchange.abort_reply()
            return
        self.transport.write(http1.error_reply(status, self.service.date_and_server))
        exchange.reply_state = DONE
        self.service.active -= 1
        self.service.refused += 1
        self.current = None
        exchange.disconnected(half=False)
        self.close(linger=True)

    def _upgrade_due(self, reader: RequestReader, data: bytes, offset: int) -> None:
        """The parser stopped behind a head that asks for another protocol."""
        queue = self._queue
        exchange = queue[-1] if queue else self.current
        self.reader = None
        if exchange is None:
            return
        if self.service.takes_upgrade(exchange):
            exchange.upgrade_rest = data[offset:]
            self._backlog = b""
            self.pause_reading()
            return
        # Not ours (h2c, …): RFC 9110 7.8 lets a server ignore it. llhttp would cut the body: feed the head without it.
        if queue:
            queue.pop()
            self._queue = queue or None
        else:
            self.current = None
        target = exchange.path + (b"?" + exchange.query if exchange.query else b"")
        kept = [field for field in exchange.headers if field[0] != b"upgrade"]
        self._feed(http1.request_head(exchange.method, target, exchange.http_version, kept))
        if self._refusal is None and offset < len(data):
            self._feed(data[offset:])

    # -- exchanges, in order -------------------------------------------------------------------------------------------
    def _start(self, exchange: Exchange) -> None:
        exchange.started = True
        if self.service.access is not None:
            exchange.started_at_s = perf_counter()  # the loop's time stands still within a turn
        if exchange.upgrade_rest is not None:
            self.service.upgrade(self, exchange)
            return
        if exchange.body_done:
            self.phase = SERVING
            self.deadline_s = NEVER
        elif self.eof:
            self.current = None
            self.close()  # the rest of that body will never come
            return
        service = self.service
        limit = service.limit_concurrency
        service.active += 1
        if limit and service.active > limit:
            exchange.fail(503, retry_after_s=1)
        else:
            exchange.start()

    def pump(self) -> None:
        """Start what is next, until something is under way or nothing is left."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while self.phase < LINGER:
                if self.current is None and self._queue:
                    self.current = self._queue.pop(0)
                    self._queue = self._queue or None
                current = self.current
                if current is not None:
                    if current.started:
                        return
                    self._start(current)
                elif self._refusal is not None:
                    self.service.refused += 1
                    self.transport.write(http1.error_reply(self._refusal.status, self.service.date_and_server))
                    self.close(linger=True)
                elif self._backlog:
                    data, self._backlog = self._backlog, None
                    self.resume_reading()
                    self._feed(data)
                else:
                    return
        finally:
            self._pumping = False

    def exchange_done(self, exchange: Exchange, close: bool) -> None:
        """The reply of the exchange under way is complete (called by the exchange)."""
        done = exchange
        service = self.service
        service.active -= 1
        service.requests += 1
        self._served += 1
        if service.access is not None:
            service.access(done)
        if self.current is not done:
            return  # the connection is gone, or was taken over
        self.current = None
        if close:
            self.close(linger=not done.body_done)
            return
        if self.reading_paused:
            self.resume_reading()
        if not done.body_done:
            if self.eof:
                self.close()
                return
            self.phase = BODY  # the rest of the body is read and dropped, within its deadline
            self.body_since_s = service.now_s
            self.deadline_s = service.now_s + min(service.config.body_idle_timeout, 10.0)
        elif self.reader is None:
            self.phase = IDLE
            self.deadline_s = service.now_s + service.keep_alive_s
            if self.eof and self._queue is None:
                self.close()
                return
            if service.draining and self._queue is None and not self._backlog:
                service.idle_while_draining(self)
                return
        else:
            if self.eof and self._queue is None:
                self.close()  # the rest of that head will never come
                return
            self.phase = -1
            self._set_reading_phase(self.reader)
        if not self._pumping and (self._queue is not None or self._backlog or self._refusal is not None):
            self.pump()

    def is_last(self) -> bool:
        """Whether the exchange under way is the last that this connection may carry."""
        return 0 < self.service.config.max_requests_per_connection <= self._served + 1

    # -- for exchanges and sessions ------------------------------------------------------------------------------------
    def write_room(self) -> asyncio.Future[None] | None:
        """None while there is room below the high-water mark, else what to wait for."""
        if self.write_waiter is not None and self.write_waiter.cancelled():
            self.write_waiter = self.service.loop.create_future()
        return self.write_waiter

    def pause_reading(self) -> None:
        if not self.reading_paused and self.phase < CLOSING:
            self.reading_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self.reading_paused and self.phase < CLOSING:
            self.reading_paused = False
            self.transport.resume_reading()
            if self.phase == BODY:
                self.deadline_s = self.service.now_s + self.service.config.body_idle_timeout

    def take_over(self, session: Any) -> bytes:
        """Give the connection to an upgraded session; returns what the client sent behind the head."""
        exchange, self.current = self.current, None
        rest = (exchange.upgrade_rest or b"") if exchange is not None else b""
        rest, self._backlog = rest + (self._backlog or b""), None
        self.upgraded = session
        self.phase, self.deadline_s = SERVING, NEVER
        self.resume_reading()
        return rest

    # -- the end -------------------------------------------------------------------------------------------------------
    def _discard(self, size_bytes: int) -> None:
        if self.phase == LINGER:
            self._lingered += size_bytes
            if self._lingered > _LINGER_BYTES:
                self.close()

    def close(self, *, linger: bool = False) -> None:
        """Close when what was written is out; `linger` reads on a little so that a reset does not destroy the reply."""
        if self.phase == CLOSING:
            return
        self.reader = None
        if self._on_first_byte is not None:
            shut_down_shared(self.transport)
        if linger and not self.eof and not self.listener.is_tls and self.phase != LINGER:
            self.phase = LINGER
            self.deadline_s = self.service.now_s + _LINGER_S
            self._lingered = 0
            self.resume_reading()
            self.transport.write_eof()
            return
        self.phase = CLOSING
        self.deadline_s = self.service.now_s + self.service.config.write_timeout
        self.transport.close()

    def abort(self) -> None:
        """Cut the connection now; what was not sent is lost."""
        if self._on_first_byte is not None:
            shut_down_shared(self.transport)
        self.phase, self.deadline_s = CLOSING, NEVER
        self.transport.abort()

    def is_idle(self) -> bool:
        """Whether nothing is under way and nothing was read that is not answered."""
        return self.phase in (IDLE, FIRST_BYTE) and self.current is None and self.reader is None and not self._backlog

    def detach(self) -> socket.socket | None:
        """Take the socket of an idle plain connection out of this loop; None when it cannot be done."""
        shut = self.listener.is_tls or self.service.config.proxy_protocol  # the next owner has neither keys nor address
        if shut or not self.is_idle() or self.transport.get_write_buffer_size():
            return None
        self.transport.pause_reading()
        return duplicate(self.transport)

    def detached(self) -> None:
        """The duplicate found another owner: forget the connection without a word to the client."""
        self._on_first_byte = None
        self.abort()
