"""HTTP servers in one's own program: `create_server` (handlers) and `serve` (ASGI, WSGI or a handler).

What lives here: `Server`, which listens through the same provider as `net` does, so that it is clustered in a cluster's
worker without a changed line. What must not: serving a connection (`_service`).
"""

from __future__ import annotations

import asyncio
import socket as _socket
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, Unpack

from ..errors import UsageError
from ..events import EventEmitter
from ..loop import AnyOperation, ErrorFirst, Handle, begin, hub, launch
from ..net._provider import Listening, ListenKeywords, ListenOptions, ServerSide
from ..net._provider import listen as provide
from ._config import HttpConfig, TlsConfig
from ._target import Interface, detect_interface, is_async

if TYPE_CHECKING:
    from ..stats import HttpStatistics
    from ._service import HttpService
    from ._websocket_native import WebSocket

    WebSocketHandler = Callable[[WebSocket], Coroutine[Any, Any, None]]

_CLOSE_GRACE_S = 30.0


class Server(Handle, EventEmitter):
    """An HTTP server, made by `create_server`. Keeps `multiloop.run` going while it listens.

    Events: 'listening' · 'close' (closed, and the last connection has ended).
    """

    def __init__(
        self,
        app: Any,
        interface: Interface,
        config: HttpConfig,
        tls: TlsConfig | None,
        websocket: WebSocketHandler | None = None,
    ) -> None:
        super().__init__()
        self._app = app
        self._interface = interface
        self._config = config
        self._tls = tls
        self._websocket = websocket
        self._listening: Listening | None = None
        self._service: HttpService | None = None
        self._opening: AnyOperation[Server] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._early: list[_socket.socket] = []  # connections that came while the application starts
        self._give_back: Callable[[_socket.socket, int], bool] | None = None

    def listen(
        self,
        port: int = 0,
        host: str | None = "127.0.0.1",
        *,
        callback: ErrorFirst | None = None,
        **options: Unpack[ListenKeywords],
    ) -> Any:
        """Start to listen; an Operation that gives the server. The arguments are those of `net.Server.listen`.

        Raises:
            OSError: the address is taken, not allowed or not here; its `filename` names it.
            LifespanFailed: the ASGI application did not start.
            UsageError: it listens already.
        """
        if self._listening is not None or self._opening is not None:
            raise UsageError("listen(): this server listens already; close it first, or make another one")
        wanted = ListenOptions(port=port, host=host, tls=self._tls is not None, **options)
        self._opening = launch(self._listen(wanted), callback, discard=Server.close)
        return self._opening

    async def _listen(self, options: ListenOptions) -> Server:
        from ._service import HttpService

        try:
            listening = await provide(options, ServerSide(self._accepted, self._refused, self._end, self.statistics))
            try:
                address = listening.address
                name = f"{address[0]}:{address[1]}" if isinstance(address, tuple) else f"unix:{address}"
                service = HttpService(
                    self._app,
                    self._interface,
                    self._config,
                    tls=self._tls,
                    listeners=(name,),
                    websocket=self._websocket,
                )
                await service.start()
            except BaseException:
                listening.close()
                for sock in self._early:
                    sock.close()
                self._early.clear()
                raise
        finally:
            self._opening = None
        self._service = service
        self._listening = listening
        self._opened(hub())
        early, self._early = self._early, []
        for sock in early:
            self._serve(service, sock)
        self._hub.call(self.emit, "listening")
        return self

    def _accepted(self, sock: _socket.socket) -> bool:
        if self._closing is not None:
            return False
        if self._service is None:
            self._early.append(sock)
        else:
            self._serve(self._service, sock)
        return True

    @staticmethod
    def _serve(service: HttpService, sock: Any) -> None:
        # In a cluster's worker the primary keeps a copy of the connection until its first byte was read.
        service.adopt(
            sock,
            prefix=getattr(sock, "prefix", b""),
            kept=getattr(sock, "kept", False),
            on_first_byte=getattr(sock, "first_byte", None),
        )

    def _refused(self, sock: _socket.socket) -> None:
        """A connection that came while the server closes: nobody is told."""

    @property
    def listening(self) -> bool:
        """Whether it listens."""
        return self._listening is not None

    @property
    def address(self) -> Any:
        """(host, port) that it listens on, or the path; None while it does not listen."""
        return None if self._listening is None else self._listening.address

    def statistics(self) -> HttpStatistics | None:
        """What was served so far; None before it listens."""
        return None if self._service is None else self._service.statistics()

    def close(self, *, grace: float | None = _CLOSE_GRACE_S, callback: ErrorFirst | None = None) -> Any:
        """Accept nothing more, close idle connections, let requests finish for at most `grace` seconds (None: for ever).

        An Operation that ends when the last connection has; closing twice is fine.
        """
        op: AnyOperation[None] = begin(callback)
        if self._opening is not None:
            self._opening.cancel()
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.close()
        if self._closing is None:
            self._closing = op._hub.loop.create_task(self._close(grace))
        self._closing.add_done_callback(lambda _: op._succeed(None))
        return op

    async def _end(self, grace_s: float | None) -> None:
        # Who provides the listener may have somebody else for connections that are idle.
        self._give_back = getattr(self._listening, "give_back", None)
        await self.close(grace=grace_s)

    async def _close(self, grace_s: float | None) -> None:
        service = self._service
        if service is not None:
            service.begin_drain(self._give_back)
            try:
                await asyncio.wait_for(service.drained(), grace_s)
            except TimeoutError:
                service.close_now()
            await service.stop()
            self._service = None
        if self._alive:
            self._ended()
            self._hub.call(self.emit, "close")
        self._closing = None

    def _shutdown(self) -> None:
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        if self._service is not None:
            self._service.close_now()
        self._ended()

    async def __aenter__(self) -> Server:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close(grace=0.0 if error is not None else _CLOSE_GRACE_S)

    def __repr__(self) -> str:
        return f"<http.Server {'on ' + str(self.address) if self.listening else 'closed'}>"


def create_server(
    handler: Callable[..., Any],
    *,
    websocket: WebSocketHandler | None = None,
    config: HttpConfig | None = None,
    tls: TlsConfig | None = None,
) -> Server:
    """Return a server of a handler; `await server.listen(8000)` starts it.

    A handler of one argument returns the reply (str, bytes, dict or list as JSON, None for 204, `Response`, or an
    iterator that streams); one of two is Node's face: `handler(request, response)`. Both may be async.

    Args:
        websocket: an async function that gets a `WebSocket` for each request for one; without it such requests go to
            the handler.

    Raises ConfigError for anything else; ASGI and WSGI applications go to `serve`.
    """
    interface = detect_interface(handler)
    if interface is Interface.WSGI:
        interface = Interface.NODE  # two arguments, sync: here it can only be Node's face
    if interface is Interface.ASGI:
        raise UsageError(
            "create_server() takes a handler of one or two arguments: use http.serve() for an ASGI application"
        )
    if websocket is not None and not is_async(websocket):
        raise UsageError("create_server(websocket=...) takes an async function of one argument, the WebSocket")
    return Server(handler, interface, config or HttpConfig(), tls, websocket)


async def serve(
    app: Any,
    port: int = 8000,
    host: str | None = "127.0.0.1",
    *,
    interface: str = "auto",
    config: HttpConfig | None = None,
    tls: TlsConfig | None = None,
    **options: Unpack[ListenKeywords],
) -> None:
    """Serve an ASGI or WSGI application or a handler until cancelled (or until the program is told to end).

    On cancellation the server stops accepting, lets requests finish and ends the application's lifespan.
    """
    server = Server(app, detect_interface(app, interface), config or HttpConfig(), tls)
    await server.listen(port, host, **options)
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        await server.close()


def handler(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a sync function of two arguments as a handler in Node's face (it would be taken for WSGI)."""
    function.__multiloop_interface__ = Interface.NODE  # type: ignore[attr-defined]
    return function
