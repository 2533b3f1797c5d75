"""ASGI 3: one task for each request, `receive` and `send` over an exchange.

What lives here: `AsgiExchange`. What must not: framing, deadlines, the lifespan (`_lifespan`), WebSocket (`_websocket`).

Guarantees (asgi.readthedocs.io, HTTP connection scope 2.4)
* The application is never cancelled because its client left: `receive` gives `http.disconnect`, `send` raises OSError
  once the connection is lost. Background tasks in the application so run to their end.
* `send` waits while the client takes nothing above the high-water mark; `receive` lets the body come as it is taken.
* An exception before the reply was started is a logged 500; after it, the connection is cut, so that no reply looks
  complete that is not. The same holds for an application that returns without a complete reply.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from asyncio import Task
from collections.abc import Awaitable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote_to_bytes

from .._wire.http1 import Fields, header_line
from ._exchange import DONE, HELD, Exchange, ReplyError
from ._sharing import local_address

if TYPE_CHECKING:
    from ._connection import Connection

log = logging.getLogger("multiloop.http")

_EAGER = sys.version_info >= (3, 12)


class Sent:
    """What `send` returns once it has taken an event: something to await that never waits.

    Made once, because a coroutine for each event would cost more than most events do. `asyncio.create_task` and
    `ensure_future` take it as well.
    """

    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, None]:
        return _EXHAUSTED

    def send(self, value: None) -> Any:
        """End at once, as a coroutine that has nothing to wait for."""
        raise StopIteration

    def throw(self, kind: Any, value: Any = None, trace: Any = None) -> Any:
        """Raise what a canceller throws in."""
        raise kind if value is None else value

    def close(self) -> None:
        """Nothing is open."""


Coroutine.register(Sent)
_EXHAUSTED = cast("Generator[Any, Any, None]", iter(()))
_SENT = Sent()


class ClientLeft(ConnectionResetError):
    """The client is gone: nothing more can be sent to it. Raised by `send`; an application may let it pass."""


def decode_path(path: bytes) -> str:
    """A request's path as text: percent-decoded, UTF-8, what is not UTF-8 replaced."""
    if b"%" in path:
        return unquote_to_bytes(path).decode("utf-8", "replace")
    return path.decode("ascii")


class AsgiExchange(Exchange):
    """A request that an ASGI application answers."""

    __slots__ = ("_end_told", "_left", "_wants_trailers", "scope", "task", "trailer_fields")

    task: asyncio.Task[None] | None
    trailer_fields: Fields | None

    def begin(self, connection: Connection, method: str) -> None:
        Exchange.begin(self, connection, method)
        self._left = False  # told of the disconnect by the client's FIN alone
        self._end_told = False
        self._wants_trailers = False
        self.trailer_fields = None
        self.task = None

    def fresh(self, connection: Connection, method: str) -> AsgiExchange:
        made = AsgiExchange.__new__(AsgiExchange)
        made.begin(connection, method)
        return made

    def start(self) -> None:
        service = self.connection.service
        self.scope = self.make_scope()
        if service.has_task_factory:
            self.task = service.loop.create_task(self._run())
        elif _EAGER:
            task = Task(self._run(), loop=service.loop, name="request", eager_start=True)  # type: ignore[call-arg]
            if not task.done():
                self.task = task
        else:  # made here: the loop's own way formats a name for each, and uvloop's another
            self.task = Task(self._run(), loop=service.loop, name="request")

    def make_scope(self) -> dict[str, Any]:
        connection = self.connection
        listener = connection.listener
        scope: dict[str, Any] = listener.scope.copy()
        path = self.path
        text = path.decode("ascii") if b"%" not in path else decode_path(path)
        if self.http_version != "1.1":
            scope["http_version"] = self.http_version
        scope["method"] = self.method
        scope["path"] = listener.root_path + text if listener.root_path else text
        scope["raw_path"] = path
        scope["query_string"] = self.query
        scope["headers"] = self.headers
        scope["client"] = connection.peer_address or connection.peer()
        if listener.server is None:
            scope["server"] = local_address(connection.transport)
        service = connection.service
        if service.state:
            scope["state"] = service.state.copy()
        if service.proxies is not None:
            service.proxies.apply(scope)
        return scope

    async def _run(self) -> None:
        try:
            result = await self.connection.service.app(self.scope, self.receive, self.send)
        except BaseException as error:
            self._app_failed(error)
            if isinstance(error, KeyboardInterrupt | SystemExit | asyncio.CancelledError):
                raise
        else:
            if self.reply_state != DONE:
                self._app_ended(result)
        self.task = None

    def _app_failed(self, error: BaseException) -> None:
        if self.gone and isinstance(error, OSError):
            log.debug("the client left before the reply was complete: %s", error)
        elif not isinstance(error, asyncio.CancelledError):
            log.error("the application raised at %s %s", self.method, self.path.decode("ascii"), exc_info=error)
        if self.reply_state != DONE:
            self.fail()

    def _app_ended(self, result: Any) -> None:
        if self.gone:
            self.fail()
            return
        if result is not None:
            log.error("the application returned %r instead of None", type(result).__name__)
        else:
            log.error(
                "the application returned without %s reply at %s %s",
                "a complete" if self.reply_state else "a",
                self.method,
                self.path.decode("ascii"),
            )
        if self.reply_state == HELD:
            self.reply_state = 0
        self.fail()

    def disconnected(self, *, half: bool) -> None:
        if half:
            self._left = True
            self.wake()
        else:
            Exchange.disconnected(self, half=False)

    async def receive(self) -> dict[str, Any]:
        """The next event of the request (ASGI)."""
        if not self._end_told:
            if not self.body_done and self._body is None and not self.gone:
                await self.wait_for_body()
            body = self.take_body()
            if body or self.body_done:
                more = not self.body_done
                self._end_told = not more
                return {"type": "http.request", "body": body, "more_body": more}
        while not self.gone and not self._left and self.reply_state != DONE:
            await self.wait()
        return {"type": "http.disconnect"}

    def send(self, message: dict[str, Any]) -> Awaitable[None]:
        """Take an event of the reply (ASGI): at once, if there is room; what it returns is to be awaited.

        Raises OSError when the client is gone, ReplyError for an event out of turn, ValueError or TypeError for a
        status or header that HTTP does not allow.
        """
        event = message if type(message) is dict else dict(message)
        kind = event["type"]
        if self.gone:
            raise ClientLeft("the client left")
        if kind == "http.response.body":
            more = event.get("more_body", False)
            body = event.get("body", b"")
            if type(body) is not bytes:
                body = bytes(body)
            self.send_body(body, bool(more), None, self._wants_trailers)
            if more and self.connection.write_waiter is not None:
                return self._room()
            return _SENT
        if kind == "http.response.start":
            self.start_reply(event["status"], event.get("headers", ()))
            self._wants_trailers = bool(event.get("trailers", False))
            return _SENT
        return self._send_extension(kind, event)

    async def _room(self) -> None:
        room = self.connection.write_room()
        if room is not None:
            await room
        if self.gone:
            raise ClientLeft("the client left")

    async def _send_extension(self, kind: str, message: dict[str, Any]) -> None:
        if kind == "http.response.trailers":
            if not self._wants_trailers:
                raise ReplyError("trailers were not announced: http.response.start needs trailers=True")
            fields = [(bytes(name), bytes(value)) for name, value in message.get("headers", ())]
            self.trailer_fields = (self.trailer_fields or []) + fields
            if not message.get("more_trailers", False):
                self._wants_trailers = False
                self.send_body(b"", False, self.trailer_fields)
        elif kind == "http.response.early_hint":
            if self.reply_state:
                raise ReplyError("early hints come before the reply")
            if self.http_version == "1.1":
                lines = [header_line(b"link", bytes(link))[0] for link in message.get("links", ())]
                self.connection.transport.write(b"".join((b"HTTP/1.1 103 Early Hints\r\n", *lines, b"\r\n")))
        elif kind == "http.response.pathsend":
            if self.reply_state != HELD:
                raise ReplyError("pathsend comes right behind http.response.start")
            from ._sendfile import send_file

            await send_file(self, message["path"])
        elif kind in ("http.response.push", "http.response.debug"):
            pass
        else:
            raise ReplyError(f"an event of type {kind!r} has no place here")
