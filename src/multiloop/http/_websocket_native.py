"""WebSocket for one's own handlers: `create_server(handler, websocket=chat)`.

What lives here: `WebSocket`, what such a handler gets, and its session. What must not: frames, pings, deadlines
(`_websocket_session`).

Guarantees
* The handler decides: it may look at the request and `refuse`; the first `send`, `receive` or `async for` accepts.
* A handler is never cancelled because its client left: the iteration ends, `send` raises OSError.
* It returns: the session is closed with 1000. It raises: logged, 1011. Neither accepted nor refused: 403.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import TYPE_CHECKING

from ..errors import UsageError
from ._asgi import ClientLeft
from ._request import Request
from ._websocket_session import CLOSED, CLOSING, CONNECTING, OPEN, Session

if TYPE_CHECKING:
    from .._wire.http1 import Fields

log = logging.getLogger("multiloop.http")

_EAGER = sys.version_info >= (3, 12)

Message = str | bytes


class WebSocketClosed(ClientLeft):
    """The session has ended: `code` and `reason` are the peer's (1005: it gave none, 1006: the connection was lost)."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"the WebSocket is closed: {code}{' ' + reason if reason else ''}")
        self.code = code
        self.reason = reason


class WebSocket:
    """A client that asks for a WebSocket, and then the open session.

    `async for message in socket` gives str and bytes until the session ends. Up to a limit messages wait here; above it
    the client has to.
    """

    __slots__ = ("_session", "request", "subprotocol", "subprotocols")

    def __init__(self, session: NativeSession, request: Request, subprotocols: list[str]) -> None:
        self._session = session
        self.request = request  # what asked for it: path, query, headers, client
        self.subprotocols = subprotocols  # what the client offers, best first
        self.subprotocol: str | None = None  # what was agreed on

    def accept(
        self, subprotocol: str | None = None, headers: Mapping[str, str] | Iterable[tuple[str, str]] = ()
    ) -> None:
        """Open the session.

        Raises UsageError when it was answered before, ValueError or TypeError for a subprotocol that was not offered or a
        header that cannot be sent, WebSocketClosed when the client left.
        """
        session = self._session
        if session.state == CLOSED:
            raise WebSocketClosed(session.code, session.reason)
        if session.state != CONNECTING:
            raise UsageError("accept(): the handshake was answered already")
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        fields: Fields = [(name.encode("latin-1"), str(value).encode("latin-1")) for name, value in pairs]
        session.accept(subprotocol, fields)
        self.subprotocol = subprotocol

    def refuse(self, status: int = 403) -> None:
        """Answer the request with a plain error instead. Raises UsageError when it was accepted before."""
        if self._session.state == CONNECTING:
            self._session.code, self._session.reason = 1006, "refused"
            self._session.refuse(status)
        elif self._session.state != CLOSED:
            raise UsageError("refuse(): the session is open; close() ends it")

    async def send(self, message: Message) -> None:
        """Send a message and wait while the client takes nothing. Raises WebSocketClosed when the session has ended."""
        session = self._open()
        if session.state != OPEN:
            raise WebSocketClosed(session.code, session.reason)
        if not isinstance(message, str):
            message = bytes(message)
        room = session.post_message(message)
        if room is not None:
            try:
                await session.sent(room)
            except ClientLeft:
                raise WebSocketClosed(session.code, session.reason) from None

    async def receive(self) -> Message:
        """Return the next message. Raises WebSocketClosed when the session has ended and none is left."""
        session = self._open()
        while True:
            message = session.next_message()
            if message is not None:
                return message
            if session.state >= CLOSING:
                raise WebSocketClosed(session.code, session.reason)
            await session.changed()

    def __aiter__(self) -> AsyncIterator[Message]:
        return _Messages(self)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the session (before it was accepted: refuse it); closing twice is fine. Raises ValueError for the code."""
        if self._session.state == CONNECTING:
            self.refuse()
        else:
            self._session.close(code, reason)

    @property
    def closed(self) -> bool:
        """Whether it has ended, or is ending."""
        return self._session.state >= CLOSING

    @property
    def close_code(self) -> int | None:
        """How it ended; None while it is open."""
        return self._session.code if self.closed else None

    @property
    def close_reason(self) -> str | None:
        """What the one who closed it said; None while it is open."""
        return self._session.reason if self.closed else None

    def _open(self) -> NativeSession:
        if self._session.state == CONNECTING:
            self.accept()
        return self._session

    def __repr__(self) -> str:
        return f"<WebSocket {self.request.path} {'closed' if self.closed else 'open'}>"


class _Messages(AsyncIterator[Message]):
    """`async for message in socket`: an object, because a generator costs a good part of a small message."""

    __slots__ = ("_socket",)

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket

    async def __anext__(self) -> Message:
        session = self._socket._open()
        while True:
            message = session.next_message()
            if message is not None:
                return message
            if session.state >= CLOSING:
                raise StopAsyncIteration
            await session.changed()


class NativeSession(Session):
    """A session that a handler of one's own holds."""

    __slots__ = ("socket", "task")

    def start(self) -> None:
        assert self.exchange is not None
        assert self.handshake is not None
        self.socket = WebSocket(self, Request(self.exchange), self.handshake.subprotocols)
        loop = self.service.loop
        self.task: asyncio.Task[None] | None = None
        if _EAGER:
            task = asyncio.Task(self._run(), loop=loop, name="websocket", eager_start=True)  # type: ignore[call-arg]
        else:
            task = loop.create_task(self._run(), name="websocket")
        if not task.done():
            self.task = task

    async def _run(self) -> None:
        code = 1000
        handler = self.service.websocket
        assert handler is not None
        try:
            await handler(self.socket)
        except WebSocketClosed as error:
            log.debug("a WebSocket ended while it was used: %s", error)
        except BaseException as error:
            code = 1011
            if not isinstance(error, asyncio.CancelledError):
                log.error("the handler raised at WebSocket %s", self.socket.request.path, exc_info=error)
            if isinstance(error, KeyboardInterrupt | SystemExit | asyncio.CancelledError):
                raise
        finally:
            self.task = None
            if self.state == OPEN:
                self.close(code)
            else:
                self.refuse(403 if code == 1000 else 500)
            self.drop_messages()
