"""WebSocket for ASGI applications (asgi.readthedocs.io, WebSocket connection scope 2.4), and the door to sessions.

What lives here: `open_session`, `AsgiWebSocket`. What must not: frames, pings, deadlines (`_websocket_session`).

Guarantees
* The application is never cancelled: `receive` gives `websocket.disconnect` with code and reason, `send` raises OSError.
* A handshake that is malformed, or that the application refuses, is answered as HTTP: 400, 426, 403, or the denial that
  it sends (`websocket.http.response`). Nothing that a client sends reaches the application before it accepted.
* The application ends without a close: 1000 if it returned, 1011 and a log entry if it raised.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import TYPE_CHECKING, Any

from .._wire.http1 import BadRequest
from .._wire.websocket import Handshake
from ._asgi import AsgiExchange, ClientLeft
from ._exchange import DONE, ReplyError
from ._websocket_session import CLOSED, CLOSING, CONNECTING, DENYING, OPEN, Session

if TYPE_CHECKING:
    from ._connection import Connection
    from ._exchange import Exchange
    from ._service import HttpService

log = logging.getLogger("multiloop.http")

_EAGER = sys.version_info >= (3, 12)
_SCHEMES = {"http": "ws", "https": "wss"}


def open_session(service: HttpService, connection: Connection, exchange: Exchange) -> None:
    """Answer a request for a WebSocket: make a session of the connection, or refuse."""
    target = exchange.path + (b"?" + exchange.query if exchange.query else b"")
    exchange.keep_alive = False  # whatever the answer is, this connection carries no other request
    try:
        handshake = Handshake(target.decode("latin-1"), exchange.headers, deflate=service.config.ws_deflate)
    except BadRequest as refused:
        log.debug("refused a WebSocket: %s", refused.reason)
        service.active += 1
        _answer(exchange, refused.status)
        return
    limit = service.config.limit_concurrency
    if limit and service.active >= limit:
        service.active += 1
        exchange.fail(503, retry_after_s=1)
        return
    if service.websocket is not None:
        from ._websocket_native import NativeSession

        NativeSession(service, connection, exchange, handshake).start()
    else:
        AsgiWebSocket(service, connection, exchange, handshake).start()


def _answer(exchange: Exchange, status: int) -> None:
    if status != 426:
        exchange.fail(status)
        return
    exchange.start_reply(426, [(b"sec-websocket-version", b"13"), (b"upgrade", b"websocket")])
    exchange.send_body(b"", False)


class AsgiWebSocket(Session):
    """A session that an ASGI application holds."""

    __slots__ = ("_connect_told", "path", "scope", "task")

    def start(self) -> None:
        exchange, handshake = self.exchange, self.handshake
        assert isinstance(exchange, AsgiExchange)
        assert handshake is not None
        self._connect_told = False
        self.path = exchange.path
        scope = exchange.make_scope()
        del scope["method"]
        scope["type"] = "websocket"
        scope["scheme"] = _SCHEMES.get(scope["scheme"], scope["scheme"])
        scope["subprotocols"] = handshake.subprotocols
        scope["extensions"] = {"websocket.http.response": {}}
        self.scope: dict[str, Any] | None = scope
        loop = self.service.loop
        self.task: asyncio.Task[None] | None = None
        if _EAGER:
            task = asyncio.Task(self._run(), loop=loop, eager_start=True)  # type: ignore[call-arg]
        else:
            task = loop.create_task(self._run())
        if not task.done():
            self.task = task

    async def _run(self) -> None:
        scope, self.scope = self.scope, None
        try:
            await self.service.app(scope, self.receive, self.send)
        except BaseException as error:
            self._app_failed(error)
            if isinstance(error, KeyboardInterrupt | SystemExit | asyncio.CancelledError):
                raise
        else:
            self._app_returned()
        finally:
            self.task = None
            self.drop_messages()

    def _app_failed(self, error: BaseException) -> None:
        if self.state >= CLOSING and (isinstance(error, OSError) or type(error).__name__ == "WebSocketDisconnect"):
            # Starlette's and FastAPI's way to say that the client left, which needs no handler of its own
            log.debug("a WebSocket ended while it was used: %s", error)
        elif not isinstance(error, asyncio.CancelledError):
            log.error("the application raised at WebSocket %s", self.path.decode("ascii"), exc_info=error)
        self._end_with(1011, 500)

    def _app_returned(self) -> None:
        if self.state == CONNECTING or self.state == DENYING:
            log.error(
                "the application returned without %s at WebSocket %s",
                "an answer to the handshake" if self.state == CONNECTING else "a complete denial",
                self.path.decode("ascii"),
            )
        self._end_with(1000, 500)

    def _end_with(self, code: int, status: int) -> None:
        if self.state == OPEN:
            self.drop_messages()
            self.close(code)
        else:
            self.refuse(status)

    async def receive(self) -> dict[str, Any]:
        """The next event of the session (ASGI)."""
        if not self._connect_told:
            self._connect_told = True
            return {"type": "websocket.connect"}
        while True:
            message = self.next_message()
            if message is not None:
                kind = "text" if isinstance(message, str) else "bytes"
                return {"type": "websocket.receive", kind: message}
            if self.state >= CLOSING:
                return {"type": "websocket.disconnect", "code": self.code, "reason": self.reason}
            await self.changed()

    async def send(self, message: dict[str, Any]) -> None:
        """Take an event of the session (ASGI).

        Raises OSError when the session has ended (a close is then ignored), ReplyError for an event out of turn, ValueError
        or TypeError for what cannot be sent.
        """
        kind = message["type"]
        state = self.state
        if state == OPEN and kind == "websocket.send":
            room = self.post_message(_content(message))
            if room is not None:
                await self.sent(room)
        elif state >= CLOSING:
            if kind != "websocket.close":
                raise ClientLeft("the WebSocket is closed")
        elif kind == "websocket.close":
            self._send_close(message)
        elif state == CONNECTING and kind == "websocket.accept":
            headers = [(bytes(name), bytes(value)) for name, value in message.get("headers") or ()]
            self.accept(message.get("subprotocol"), headers)
        elif state == CONNECTING and kind == "websocket.http.response.start":
            assert self.exchange is not None
            self.exchange.start_reply(message["status"], message.get("headers", ()))
            self.state = DENYING
        elif state == DENYING and kind == "websocket.http.response.body":
            await self._send_denial(message.get("body", b""), message.get("more_body", False))
        else:
            now = ("before the handshake is answered", "in a denial", "in an open session")[state]
            raise ReplyError(f"an event of type {kind!r} has no place {now}")

    def _send_close(self, message: dict[str, Any]) -> None:
        if self.state == CONNECTING:
            self.code, self.reason = 1006, "the handshake was refused"
            self.refuse(403)
        elif self.state == OPEN:
            code, reason = message.get("code"), message.get("reason")
            self.close(1000 if code is None else code, reason or "")
            self.drop_messages()
        else:
            raise ReplyError("a denial ends with its body")

    async def _send_denial(self, body: bytes, more: bool) -> None:
        exchange = self.exchange
        assert exchange is not None
        exchange.send_body(bytes(body), more)
        if exchange.reply_state == DONE:
            self.exchange = None
            self.state = CLOSED
            self.connection.close(linger=True)
            self.wake()
            return
        room = self.connection.write_room()
        if room is not None:
            await room
        if exchange.gone:
            raise ClientLeft("the client left")


def _content(message: dict[str, Any]) -> str | bytes:
    text = message.get("text")
    if text is not None:
        if not isinstance(text, str):
            raise TypeError(f"websocket.send: text is a str, not {type(text).__name__}")
        return text
    data = message.get("bytes")
    if data is None:
        raise ReplyError("websocket.send needs text or bytes")
    return data if isinstance(data, bytes) else bytes(data)
