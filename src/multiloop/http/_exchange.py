"""One request and its reply: body in with backpressure, head and body out with the right framing.

What lives here: `Exchange`, the base of what speaks to ASGI, WSGI and handlers. What must not: the parser, the transport
(only through its connection's `write`), the application.

Guarantees
* One write for a reply that is known whole; above `WRITE_JOIN_BYTES` its pieces in one call, without a copy. The head is
  held until the first byte of the body (or its end).
* The framing is ours: a Content-Length that the application gave is kept to (RFC 9112 6.3: a longer body is an error, a
  shorter one cuts the connection, never a reply that looks complete); else chunked, or a length when the body is whole.
* Nothing that an application puts in a header can split a reply: `_wire.http1.header_line` raises first.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from .._limits import READ_HIGH_WATER_BYTES, WRITE_JOIN_BYTES
from .._wire import http1
from .._wire.http1 import CODING, CONNECTION, CONTINUE, DATE, LAST_CHUNK, LENGTH, SERVER, Fields

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._connection import Connection

# Looked up in place: a call for each field of each reply would cost more than the field.
_lines = http1._lines
_status_lines = http1.STATUS_LINES

HELD, STREAMING, DONE = 1, 2, 3  # Exchange.reply_state; 0 is "not started"


class ReplyError(RuntimeError):
    """The application used a reply wrongly (started twice, longer than announced, …): mend the application."""


class Exchange:
    """A request being answered. Made by the reader at the end of a head, started by the connection in order."""

    __slots__ = ("__weakref__", "_body", "_buffered_bytes", "_chunked", "_close_after", "_head", "_left_bytes",
                 "_waiter", "body_done", "connection", "expect_continue", "gone", "headers", "http_version", "keep_alive",
                 "method", "path", "query", "reply_state", "sent_bytes", "started", "started_at_s", "status",
                 "trailers", "upgrade_rest", "_no_body", "_has_date", "_has_server")  # fmt: skip

    path: bytes
    query: bytes
    headers: Fields
    http_version: str
    started_at_s: float  # set when there is an access log

    def __init__(self, connection: Connection, method: str) -> None:
        self.begin(connection, method)

    def begin(self, connection: Connection, method: str) -> None:
        """Be a new request of this connection."""
        self.connection = connection
        self.method = method
        self.keep_alive = True
        self.expect_continue = False
        self.body_done = False
        self.started = False  # the application was called
        self.upgrade_rest: bytes | None = None  # bytes behind a head that asks for a protocol we take
        self.gone = False  # the client left, or the connection was cut
        self.reply_state = 0
        self.status = 0
        self.sent_bytes = 0
        self.trailers: Fields | None = None
        self._body: list[bytes] | None = None
        self._buffered_bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._close_after = False
        self._chunked = False

    def fresh(self, connection: Connection, method: str) -> Exchange:
        """Another of the same class (the hot ones write out how: that spares the way through the type)."""
        return type(self)(connection, method)

    # -- to be overridden --------------------------------------------------------------------------------------------
    def start(self) -> None:
        """Begin to answer. May finish the whole exchange before it returns."""
        raise NotImplementedError

    def disconnected(self, *, half: bool) -> None:
        """The client closed its end (half), or the connection is lost."""
        self.gone = True
        self.wake()

    # -- the request's body --------------------------------------------------------------------------------------------
    def feed_body(self, body: bytes) -> None:
        """Take a piece of the body from the reader; pauses the connection above the mark."""
        if self.reply_state == DONE:
            return  # nobody will read it: dropped until its end, the connection counts
        if self._body is None:
            self._body = [body]
        else:
            self._body.append(body)
        self._buffered_bytes += len(body)
        if self._buffered_bytes > READ_HIGH_WATER_BYTES:
            self.connection.pause_reading()
        self.wake()

    def feed_end(self) -> None:
        """The body is complete."""
        self.body_done = True
        self.wake()

    def add_trailer(self, name: bytes, value: bytes) -> None:
        """Take a trailer field of a chunked body."""
        if self.trailers is None:
            self.trailers = []
        self.trailers.append((name, value))

    def wake(self) -> None:
        """Let whoever waits for the body or for the client look again."""
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def take_body(self) -> bytes:
        """Take what has come of the body, and let more come."""
        body = self._body
        if body is None:
            return b""
        self._body = None
        if self._buffered_bytes > READ_HIGH_WATER_BYTES:
            self.connection.resume_reading()
        self._buffered_bytes = 0
        return body[0] if len(body) == 1 else b"".join(body)

    async def wait_for_body(self) -> None:
        """Wait until there is a piece of the body, its end, or no client any more."""
        if self.expect_continue and not self.body_done:
            self.send_continue()
        while self._body is None and not self.body_done and not self.gone:
            await self.wait()

    async def wait(self) -> None:
        """Wait for the next change: body, end of body, disconnect, end of the reply."""
        if self._waiter is None:
            self._waiter = self.connection.service.loop.create_future()
        await asyncio.shield(self._waiter)

    def send_continue(self) -> None:
        """Tell a client that waits for it to send its body (RFC 9110 10.1.1)."""
        if self.expect_continue:
            self.expect_continue = False
            if self.reply_state < STREAMING and not self.gone:
                self.connection.transport.write(CONTINUE)

    # -- the reply -----------------------------------------------------------------------------------------------------
    def start_reply(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Take status and fields; nothing is written yet.

        Raises ReplyError when a reply was started before, ValueError or TypeError for a status or field that HTTP does
        not allow; then no byte of it was taken.
        """
        if self.reply_state:
            raise ReplyError("the reply was started twice")
        if status < 200:
            raise ReplyError(f"a reply cannot end with status {status}: 1xx go before it (early hints)")
        parts = [_status_lines.get(status) or http1.status_line(status)]
        length = -1
        close = not self.keep_alive
        has_date = has_server = False
        for field in headers:
            try:
                found = _lines.get(field) if type(field) is tuple else None
            except TypeError:  # a bytearray cannot be looked up
                found = None
            if found is None:
                name, value = field
                found = http1.header_line(name, value)
            line, kind, number = found
            if kind:
                if kind == LENGTH:
                    if length >= 0:
                        if length != number:
                            raise ReplyError("two different content-lengths")
                        continue
                    length = number
                    if status == 204:
                        continue
                elif kind == CODING:
                    continue  # the framing is ours
                elif kind == CONNECTION:
                    close = close or number == 1
                    continue
                elif kind == DATE:
                    has_date = True
                elif kind == SERVER:
                    has_server = True
            parts.append(line)
        self.status = status
        self._has_date = has_date
        self._has_server = has_server
        self._left_bytes = length
        self._close_after = close
        self._no_body = status == 204 or status == 304 or self.method == "HEAD"
        self._head = parts
        self.reply_state = HELD

    def _finish_head(self, body_bytes: int, more: bool) -> list[bytes]:
        parts = self._head
        self._head = []
        if not self._no_body:
            if self._left_bytes < 0:
                if not more:
                    self._left_bytes = body_bytes
                    parts.append(b"content-length: %d\r\n" % body_bytes)
                elif self.http_version == "1.1":
                    self._chunked = True
                    parts.append(b"transfer-encoding: chunked\r\n")
                else:
                    self._close_after = True
        service = self.connection.service
        if self.expect_continue and not self.body_done:
            self._close_after = True  # the client may or may not send the body now: nothing after it can be trusted
        if self._close_after or (service.closes_soon and (service.draining or self.connection.is_last())):
            self._close_after = True
            parts.append(b"connection: close\r\n")
        elif self.http_version == "1.0":
            parts.append(b"connection: keep-alive\r\n")
        if self._has_date or self._has_server:
            parts.append(service.date_line if not self._has_date else b"")
            parts.append(service.server_line if not self._has_server else b"")
        else:
            parts.append(service.date_and_server)
        parts.append(b"\r\n")
        self.reply_state = STREAMING
        return parts

    def send_body(self, body: bytes, more: bool, trailers: Fields | None = None, hold_end: bool = False) -> None:
        """Send a piece of the body; with `more` False the reply ends here (`hold_end`: trailers will end it).

        Raises ReplyError when the reply was not started, has ended, or is longer than its Content-Length.
        """
        state = self.reply_state
        if state == HELD:
            parts = self._finish_head(len(body), more or hold_end)
        elif state == STREAMING:
            parts = []
        else:
            raise ReplyError("the reply has ended" if state else "the reply was not started")
        if body and not self._no_body:
            if self._chunked:
                parts.append(b"%x\r\n" % len(body))
                parts.append(body)
                parts.append(b"\r\n")
            else:
                if self._left_bytes >= 0:
                    if len(body) > self._left_bytes:
                        self.abort_reply()
                        raise ReplyError("the body is longer than its content-length")
                    self._left_bytes -= len(body)
                parts.append(body)
            self.sent_bytes += len(body)
        if not more and not hold_end and self._chunked:
            parts.append(http1.last_chunk(trailers) if trailers else LAST_CHUNK)
        if parts and not self.gone:
            if len(body) <= WRITE_JOIN_BYTES:
                self.connection.transport.write(b"".join(parts))
            else:
                self.connection.transport.writelines(parts)
        if not more and not hold_end:
            if self._left_bytes > 0 and not self._no_body:
                self.abort_reply()
                raise ReplyError(f"the body ended {self._left_bytes} bytes before its content-length")
            self.finish()

    def finish(self) -> None:
        """The reply is complete: hand the connection on."""
        if self.reply_state != DONE:
            self.reply_state = DONE
            self._body = None
            if self._waiter is not None:
                self.wake()
            self.connection.exchange_done(self, self._close_after)

    def abort_reply(self) -> None:
        """Cut the connection: the reply cannot be completed and must not look complete."""
        if self.reply_state != DONE:
            self.reply_state = DONE
            self.gone = True
            self.wake()
            self.connection.service.active -= 1
            self.connection.abort()

    def fail(self, status: int = 500, *, retry_after_s: int = 0) -> None:
        """Answer with a plain error of ours if nothing was sent yet, else cut the connection."""
        if self.reply_state >= STREAMING:
            self.abort_reply()
            return
        self.reply_state = HELD
        self.status = status
        self.keep_alive = False
        self._close_after = True
        if not self.gone:
            body = self.method != "HEAD"
            self.connection.transport.write(
                http1.error_reply(
                    status, self.connection.service.date_and_server, body=body, retry_after_s=retry_after_s
                )
            )
        self.finish()
