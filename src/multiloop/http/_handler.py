"""Native handlers: one argument returns the reply, two are Node's face; sync or async.

What lives here: `HandlerExchange` and `NodeExchange`, and `NodeResponse` (what Node's face writes to). What must not:
framing.

Guarantees
* A sync handler runs on the loop and its reply leaves before the next request is looked at; an async one is a task,
  cancelled when the client is gone (reset or full close; a FIN alone lets the reply finish).
* What a handler returns: str (text/plain), bytes (application/octet-stream), dict or list (JSON), None (204),
  `Response`, or an (async) iterator, which streams with backpressure.
* An exception before the reply was started is a logged 500, after it the connection is cut.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
from collections.abc import AsyncIterable, Iterator
from typing import TYPE_CHECKING, Any

from .._limits import WRITE_JOIN_BYTES
from .._wire.http1 import LENGTH_ENDS, length_end
from ..events import EventEmitter
from ._asgi import ClientLeft
from ._exchange import DONE, HELD, Exchange, ReplyError
from ._messages import Response, encode_json
from ._request import Request

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from ._connection import Connection

log = logging.getLogger("multiloop.http")

_EAGER = sys.version_info >= (3, 12)
_TEXT = (b"content-type", b"text/plain; charset=utf-8")
_BYTES = (b"content-type", b"application/octet-stream")
_JSON = (b"content-type", b"application/json")


class HandlerExchange(Exchange):
    """A request that a handler of one argument answers."""

    __slots__ = ("task",)

    task: asyncio.Task[None] | None

    def begin(self, connection: Connection, method: str) -> None:
        Exchange.begin(self, connection, method)
        self.task = None

    def fresh(self, connection: Connection, method: str) -> HandlerExchange:
        made = HandlerExchange.__new__(HandlerExchange)
        made.begin(connection, method)
        return made

    def start(self) -> None:
        request = Request.__new__(Request)
        request.begin(self)
        try:
            result = self.connection.service.app(request)
            if type(result) is str:
                self._reply_text(result)
            elif inspect.iscoroutine(result):
                self._run(self._finish_async(result))
            else:
                self._reply(result)
        except Exception as error:
            self.failed(error)

    def _reply_text(self, text: str) -> None:
        # The commonest reply in one step; the general way gives the same bytes but for the order of the fields.
        service = self.connection.service
        plain = self.keep_alive and self.http_version == "1.1" and not self.expect_continue and not service.closes_soon
        if not plain or self.method == "HEAD":
            self._reply(text)
            return
        body = text.encode()
        size = len(body)
        self.status = 200
        self.sent_bytes = size
        end = LENGTH_ENDS[size] if size < 1024 else length_end(size)
        if size <= WRITE_JOIN_BYTES:
            self.connection.transport.write(b"".join((service.text_head, end, body)))
        else:
            self.connection.transport.writelines((service.text_head, end, body))
        self.finish()

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        service = self.connection.service
        loop = service.loop
        if service.has_task_factory:
            task = loop.create_task(coroutine)
        elif _EAGER:
            task = asyncio.Task(coroutine, loop=loop, name="handler", eager_start=True)  # type: ignore[call-arg]
        else:
            task = asyncio.Task(coroutine, loop=loop, name="handler")
        if not task.done():
            self.task = task

    async def _finish_async(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        try:
            result = await coroutine
            if type(result) is str:
                self._reply_text(result)
            else:
                self._reply(result)
        except asyncio.CancelledError:
            self._cancelled()
        except Exception as error:
            self.failed(error)
        self.task = None if self.reply_state == DONE else self.task

    def _cancelled(self) -> None:
        if self.reply_state != DONE:
            self.fail()

    def _reply(self, result: Any) -> None:
        if isinstance(result, Response):
            status, pairs, body = result.status, result.pairs(), result.body
        else:
            status, pairs, body = 200, [], result
            if result is None:
                status = 204
        typed = any(name.lower() == b"content-type" for name, _ in pairs)
        if isinstance(body, str):
            data, kind = body.encode(), _TEXT
        elif isinstance(body, bytes | bytearray | memoryview):
            data, kind = bytes(body), _BYTES
        elif body is None:
            data, kind, typed = b"", _BYTES, True
        elif isinstance(body, AsyncIterable | Iterator):
            self.start_reply(status, pairs)
            self._run(self._stream(body))
            return
        elif hasattr(body, "send_to"):  # a file
            self.start_reply(status, pairs)
            self._run(self._send_file(body))
            return
        else:
            data, kind = encode_json(body), _JSON
        if not typed and (data or status == 200):
            pairs.append(kind)
        self.start_reply(status, pairs)
        self.send_body(data, False)

    async def _stream(self, pieces: Any) -> None:
        try:
            if isinstance(pieces, AsyncIterable):
                async for piece in pieces:
                    await self.send_piece(piece)
            else:
                for piece in pieces:
                    await self.send_piece(piece)
            self.send_body(b"", False)
        except asyncio.CancelledError:
            self._cancelled()
        except Exception as error:
            self.failed(error)
        finally:
            close = getattr(pieces, "aclose", None)
            if close is not None:
                await close()

    async def _send_file(self, body: Any) -> None:
        try:
            await body.send_to(self)
        except asyncio.CancelledError:
            self._cancelled()
        except Exception as error:
            self.failed(error)

    async def send_piece(self, piece: str | bytes) -> None:
        """Send a piece of a streamed body and wait while the client takes nothing."""
        if self.gone:
            raise ClientLeft("the client left")
        self.send_body(piece.encode() if isinstance(piece, str) else bytes(piece), True)
        room = self.connection.write_room()
        if room is not None:
            await room

    def failed(self, error: Exception) -> None:
        """The handler raised."""
        if not (self.gone and isinstance(error, OSError)):
            log.error("the handler raised at %s %s", self.method, self.path.decode("ascii"), exc_info=error)
        if self.reply_state != DONE:
            self.fail()

    def disconnected(self, *, half: bool) -> None:
        if half:
            return
        Exchange.disconnected(self, half=False)
        task = self.task
        if task is not None and not task.done():
            # Later: a task that is cancelled before its first step would never settle the exchange.
            self.connection.service.loop.call_soon(task.cancel)


class NodeResponse(EventEmitter):
    """The reply in Node's face: `status_code`, `set_header`, `write_head`, `write`, `end`.

    Events: "finish" when the reply is complete, "close" when the exchange is over or the client left before.
    """

    def __init__(self, exchange: NodeExchange) -> None:
        super().__init__()
        self._exchange = exchange
        self._fields: dict[str, tuple[str, Any]] = {}
        self.status_code = 200

    @property
    def headers_sent(self) -> bool:
        """Whether status and headers are on their way and cannot change any more."""
        return self._exchange.reply_state > HELD

    @property
    def writable_ended(self) -> bool:
        """Whether `end` was called."""
        return self._exchange.reply_state == DONE

    def set_header(self, name: str, value: Any) -> NodeResponse:
        """Set a header; a list sets one field for each value. Raises ReplyError when headers were sent."""
        self._must_be_open()
        self._fields[name.lower()] = (name, value)
        return self

    def get_header(self, name: str) -> Any:
        """What was set, or None."""
        found = self._fields.get(name.lower())
        return found[1] if found else None

    def has_header(self, name: str) -> bool:
        """Whether it was set."""
        return name.lower() in self._fields

    def remove_header(self, name: str) -> None:
        """Forget a header. Raises ReplyError when headers were sent."""
        self._must_be_open()
        self._fields.pop(name.lower(), None)

    def write_head(self, status_code: int, headers: dict[str, Any] | None = None) -> NodeResponse:
        """Set the status and more headers at once."""
        self._must_be_open()
        self.status_code = status_code
        for name, value in (headers or {}).items():
            self.set_header(name, value)
        return self

    def write_early_hints(self, links: list[str]) -> None:
        """Send a 103 with Link fields (RFC 8297)."""
        from .._wire.http1 import header_line

        self._must_be_open()
        lines = [header_line(b"link", link.encode("latin-1"))[0] for link in links]
        self._exchange.connection.transport.write(b"".join((b"HTTP/1.1 103 Early Hints\r\n", *lines, b"\r\n")))

    def write(self, chunk: str | bytes) -> bool:
        """Send a piece of the body; False above the high-water mark: `await drain()` before the next."""
        exchange = self._exchange
        if exchange.gone:
            return False
        self._start()
        exchange.send_body(chunk.encode() if isinstance(chunk, str) else bytes(chunk), True)
        return exchange.connection.write_room() is None

    async def drain(self) -> None:
        """Wait until there is room below the high-water mark. Raises ConnectionResetError when the client left."""
        room = self._exchange.connection.write_room()
        if room is not None:
            await room
        if self._exchange.gone:
            raise ClientLeft("the client left")

    def end(self, chunk: str | bytes = b"") -> None:
        """Send the last piece; the reply is complete. Raises ReplyError when it had ended."""
        exchange = self._exchange
        if exchange.gone:
            return
        self._start()
        exchange.send_body(chunk.encode() if isinstance(chunk, str) else bytes(chunk), False)

    def _must_be_open(self) -> None:
        if self._exchange.reply_state:
            raise ReplyError("headers were sent already")

    def _start(self) -> None:
        exchange = self._exchange
        if not exchange.reply_state:
            pairs: list[tuple[bytes, bytes]] = []
            for name, value in self._fields.values():
                values = value if isinstance(value, list | tuple) else (value,)
                pairs += [(name.encode("latin-1"), str(one).encode("latin-1")) for one in values]
            exchange.start_reply(self.status_code, pairs)


class NodeExchange(HandlerExchange):
    """A request that a handler of two arguments answers, now or later."""

    __slots__ = ("response",)

    def fresh(self, connection: Connection, method: str) -> NodeExchange:
        made = NodeExchange.__new__(NodeExchange)
        made.begin(connection, method)
        return made

    def _reply_text(self, text: str) -> None:
        self._reply(text)

    def start(self) -> None:
        self.response = NodeResponse(self)
        try:
            result = self.connection.service.app(Request(self), self.response)
            if inspect.iscoroutine(result):
                self._run(self._finish_async(result))
        except Exception as error:
            self.failed(error)

    def _reply(self, result: Any) -> None:
        """An async handler returned; the reply may still be written by a callback of its own."""

    def finish(self) -> None:
        was_done = self.reply_state == DONE
        HandlerExchange.finish(self)
        if not was_done:
            self._tell("finish")
            self._tell("close")

    def disconnected(self, *, half: bool) -> None:
        HandlerExchange.disconnected(self, half=half)
        if not half:
            if self.reply_state != DONE:
                self.reply_state = DONE
                if self.started:  # one that waits behind others was not counted yet
                    self.connection.service.active -= 1
            self._tell("close")

    def _tell(self, event: str) -> None:
        response = getattr(self, "response", None)
        if response is not None and response.listener_count(event):
            from ..loop import hub

            hub().call(response.emit, event)
