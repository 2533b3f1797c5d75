"""An application being served on one loop: what a worker runs, and `create_server` and `serve` as well.

What lives here: `HttpService` (connections come in through `adopt`). What must not: listening sockets,
processes.

One sweep for all connections looks at deadlines twice a second and renews the Date; no connection has a timer.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import socket
from collections.abc import Callable, Coroutine
from email.utils import formatdate
from time import perf_counter
from typing import TYPE_CHECKING, Any

from .. import __version__
from .._limits import SWEEP_INTERVAL_S
from ..loop import offload
from ..stats import HttpStatistics
from ._config import HttpConfig, TlsConfig
from ._connection import Connection
from ._deadlines import BODY, CLOSING, IDLE, LINGER, check_rates, overdue
from ._lifespan import Lifespan
from ._pace import kept_pace
from ._reader import RequestReader
from ._request_ids import RequestIds
from ._serving import may_be_asked
from ._state import Listener, ServiceState
from ._surround import surround
from ._target import Interface

if TYPE_CHECKING:
    import ssl

    from ._exchange import Exchange
    from ._websocket_native import WebSocket

Reader: type[RequestReader] = RequestReader
with contextlib.suppress(ImportError):  # plain Python runs, or this httptools is not the one that the binding knows
    Reader = importlib.import_module("multiloop.http._llhttp").NativeReader

log = logging.getLogger("multiloop.http")

_IDLE_WHILE_DRAINING_S = 1.0  # a kept connection that nobody takes stays this long, for a request that is on its way
_SETTLE_S = 0.02  # between looks for requests that go on although their client left
_SPARE_READERS = 64  # kept by the sweep


class HttpService(ServiceState):
    """Serves one application on the running loop.

    Args:
        app: the application or handler.
        interface: how it is called (`_target.detect_interface`).
        listeners: for each listening socket its name, "host:port" or "unix:path"; `adopt` gives the index.
        websocket: a handler for WebSockets beside one of requests; an ASGI application has its own.

    `start()` must succeed before the first `adopt`; `begin_drain`, `drained` and `stop` end it in this order.
    """

    def __init__(
        self,
        app: Any,
        interface: Interface,
        config: HttpConfig | None = None,
        *,
        tls: TlsConfig | None = None,
        listeners: tuple[str, ...] = ("",),
        websocket: Callable[[WebSocket], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        super().__init__(app, config or HttpConfig(), asyncio.get_running_loop())
        self.interface = interface
        self.websocket = websocket
        self.clock = self.loop.time  # tests put another in its place
        self.sessions = 0  # WebSockets open now
        self._drain_event = asyncio.Event()
        self._lifespan = Lifespan(app, self.config.lifespan, self._drain_event) if interface is Interface.ASGI else None
        self._drained: asyncio.Future[None] | None = None
        self._adopting: set[asyncio.Task[None]] = set()  # connections before their first byte of HTTP: TLS, PROXY
        self._give_back: Callable[[socket.socket, int], bool] | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._open_session: Callable[[HttpService, Connection, Exchange], None] | None = None
        context = make_tls_context(tls) if tls is not None else None
        self.listeners = [Listener(i, name, self.config, context) for i, name in enumerate(listeners)]
        self.proxies = _proxies(self.config)
        self._access_log = _access(self.config)
        self._meter: Callable[[Exchange], None] | None = None
        self._trace: Callable[[Exchange], None] | None = None
        pace = kept_pace()
        self._pace = pace.ended if pace is not None else None
        self._tell()
        self.request_ids = RequestIds(self)
        answers, self._runner = _exchange_class(interface, self)
        self._template = answers.__new__(answers)
        self._renew_date()
        may_be_asked(self)

    # -- life ----------------------------------------------------------------------------------------------------------
    async def start(self) -> None:
        """Start the application. Raises LifespanFailed, or what the application raised."""
        if self._lifespan is not None:
            await self._lifespan.startup()
            if self._lifespan.supported:
                self.state = self._lifespan.state
        self.has_task_factory = self.loop.get_task_factory() is not None  # the application may have set one
        surround(self)
        self._sweep()

    def adopt(
        self,
        sock: socket.socket,
        *,
        listener: int = 0,
        prefix: bytes = b"",
        kept: bool = False,
        on_first_byte: Callable[[], None] | None = None,
        on_closed: Callable[[], None] | None = None,
    ) -> None:
        """Serve an accepted, non-blocking socket. `prefix` was read from it before; `kept` came from another worker."""
        at = self.listeners[listener]
        if self.config.proxy_protocol and not kept:
            self._begin(self._adopt_behind_proxy(sock, at, prefix, on_first_byte, on_closed))
        else:
            self._adopt(sock, at, prefix, lambda: Connection(self, at, kept, on_first_byte, on_closed), on_closed)

    def _adopt(
        self,
        sock: socket.socket,
        listener: Listener,
        prefix: bytes,
        make: Callable[[], Any],
        on_closed: Callable[[], None] | None,
    ) -> None:
        if listener.tls_context is not None:
            self._begin(self._adopt_tls(make, sock, listener.tls_context, on_closed))
            return
        if prefix:
            bare = make

            def make() -> Any:
                connection = bare()
                connection.was_read(prefix)
                return connection

        connecting = self.loop.connect_accepted_socket(make, sock)
        waiter = _first_wait(connecting)
        if waiter is not None:
            _Connecting(connecting, waiter)

    def _begin(self, adopting: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(adopting)
        self._adopting.add(task)
        task.add_done_callback(self._begun)

    def _begun(self, task: asyncio.Task[None]) -> None:
        self._adopting.discard(task)
        self.connection_gone()

    async def _adopt_tls(
        self,
        make: Callable[[], Any],
        sock: socket.socket,
        context: ssl.SSLContext,
        on_closed: Callable[[], None] | None,
    ) -> None:
        try:
            await self.loop.connect_accepted_socket(
                make, sock, ssl=context, ssl_handshake_timeout=self.config.tls_handshake_timeout
            )
        except (OSError, EOFError) as error:
            log.debug("a TLS handshake failed: %s", error)
            sock.close()
            if on_closed is not None:
                on_closed()

    async def _adopt_behind_proxy(
        self,
        sock: socket.socket,
        listener: Listener,
        prefix: bytes,
        on_first_byte: Callable[[], None] | None,
        on_closed: Callable[[], None] | None,
    ) -> None:
        from ._proxy_protocol import read_proxy_header

        try:
            peer, rest = await read_proxy_header(sock, prefix, self.config.first_byte_timeout, on_first_byte)
        except (OSError, ValueError) as error:  # TimeoutError is an OSError
            log.debug("refused a connection: %s", str(error) or "no PROXY header in time")
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # the primary may still hold a copy
            sock.close()
            if on_closed is not None:
                on_closed()
            return
        except BaseException:
            sock.close()
            raise
        self._adopt(sock, listener, rest, lambda: Connection(self, listener, False, None, on_closed, peer), on_closed)

    def begin_drain(self, give_back: Callable[[socket.socket, int], bool] | None = None) -> None:
        """Begin to end: the application is told, replies close their connection, WebSockets get 1012.

        Idle kept plain connections are offered to `give_back` as duplicates; those it takes are forgotten here without
        a word to the client, the others are closed with FIN a second later.
        """
        if self.draining:
            return
        self.draining = self.closes_soon = True
        self._give_back = give_back
        self._drain_event.set()
        for connection in list(self.connections):
            if connection.upgraded is not None:
                connection.upgraded.going_away()
            elif connection.is_idle():
                self.idle_while_draining(connection)
        self.connection_gone()

    def idle_while_draining(self, connection: Connection) -> None:
        """Find an idle connection another owner, or an end."""
        if self._give_back is not None:
            copy = connection.detach()
            if copy is not None:
                if self._give_back(copy, connection.listener.index):
                    connection.detached()
                    return
                copy.close()
                connection.transport.resume_reading()
        if connection.phase == IDLE:
            connection.deadline_s = self.now_s + _IDLE_WHILE_DRAINING_S

    async def drained(self) -> None:
        """Wait until no connection is left, and no application is at work for a client that left."""
        while self.connections or self._adopting or self.active:
            if self.connections or self._adopting:
                self._drained = self.loop.create_future()
                await self._drained
            else:
                await asyncio.sleep(_SETTLE_S)

    def connection_gone(self) -> None:
        """A connection ended (called by it)."""
        drained = self._drained
        if drained is not None and not self.connections and not drained.done():
            drained.set_result(None)

    def freeze(self) -> None:
        """Read nothing new, finish what was started: the primary is gone."""
        self.begin_drain()
        for connection in list(self.connections):
            if connection.is_idle():
                connection.close()

    def close_now(self) -> None:
        """Cut every connection."""
        for connection in list(self.connections):
            connection.abort()

    async def stop(self) -> None:
        """End the application: lifespan.shutdown, once. Connections must be gone."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        if self._lifespan is not None:
            await self._lifespan.shutdown()
        if self._runner is not None:
            await self._runner.close()

    def measure(self, meter: Callable[[Exchange], None] | None) -> None:
        """Have `meter` called with each exchange whose reply has ended, as the access log is; None ends that."""
        if meter is self._meter:
            return
        if meter is not None and self.access is None:
            now = perf_counter()
            for connection in self.connections:
                if connection.current is not None:
                    connection.current.started_at_s = now  # nobody has asked when it started
        self._meter = meter
        self._tell()

    def trace(self, ended: Callable[[Exchange], None]) -> None:
        """Have this called, too, with each exchange whose reply has ended."""
        self._trace = ended
        self._tell()

    def _tell(self) -> None:
        """Set what is called with each exchange whose reply has ended; None: nobody wants to know."""
        told: Callable[[Exchange], None] | None = None
        for each in (self._trace, self._access_log, self._pace, self._meter):
            if each is not None:
                told = each if told is None else _both(each, told)
        self.access = told

    @property
    def has_access_log(self) -> bool:
        """Whether a line is written for each request."""
        return self._access_log is not None

    def statistics(self) -> HttpStatistics:
        """What this service did so far."""
        return HttpStatistics(
            connections=len(self.connections),
            active_requests=self.active,
            requests=self.requests,
            refused=self.refused,
            websockets=self.sessions,
            draining=self.draining,
        )

    # -- for connections -----------------------------------------------------------------------------------------------
    def make_reader(self) -> RequestReader:
        """A reader for one message; connections put it back into `readers` behind the message."""
        return Reader(self, self._template)

    def takes_upgrade(self, exchange: Exchange) -> bool:
        """Whether a request to change the protocol is answered with a WebSocket."""
        if self.interface is not Interface.ASGI and self.websocket is None:
            return False
        if exchange.method != "GET" or exchange.http_version != "1.1":
            return False
        return any(name == b"upgrade" and value.lower() == b"websocket" for name, value in exchange.headers)

    def upgrade(self, connection: Connection, exchange: Exchange) -> None:
        """Make a WebSocket of the connection."""
        if self._open_session is not None:
            self._open_session(self, connection, exchange)
        else:  # the first one of a worker: the library takes a while to load, so a thread does
            task = self.loop.create_task(self._upgrade_first(connection, exchange))
            self._adopting.add(task)
            task.add_done_callback(self._adopting.discard)

    async def _upgrade_first(self, connection: Connection, exchange: Exchange) -> None:
        module = await offload(importlib.import_module, "multiloop.http._websocket")
        self._open_session = module.open_session
        if connection.current is exchange and connection.phase < LINGER:
            module.open_session(self, connection, exchange)

    # -- the sweep -----------------------------------------------------------------------------------------------------
    def _sweep(self) -> None:
        now = self.now_s = self.clock()
        self._sweeper = self.loop.call_later(SWEEP_INTERVAL_S, self._sweep)
        self._renew_date()
        del self.readers[_SPARE_READERS:]
        due = [c for c in self.connections if c.deadline_s <= now or c.write_since_s < now or c.phase == BODY]
        for connection in due:
            if connection.deadline_s <= now:
                if connection.phase == CLOSING:
                    connection.abort()
                else:
                    overdue(connection, now)
            else:
                check_rates(connection, now)

    def _renew_date(self) -> None:
        config = self.config
        self.set_lines(
            b"date: %b\r\n" % formatdate(usegmt=True).encode() if config.date_header else b"",
            b"server: multiloop/%b\r\n" % __version__.encode() if config.server_header else b"",
        )


class _Connecting:
    """Drives `connect_accepted_socket` by hand: a task for each connection would double its cost."""

    __slots__ = ("_coroutine",)

    def __init__(self, coroutine: Coroutine[Any, Any, Any], waiter: asyncio.Future[Any]) -> None:
        self._coroutine = coroutine
        waiter.add_done_callback(self._ready)

    def _ready(self, waiter: asyncio.Future[Any]) -> None:
        try:
            self._coroutine.send(None)
        except StopIteration:
            pass
        except OSError as error:
            log.debug("a connection was lost before it was served: %s", error)


def _first_wait(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Future[Any] | None:
    try:
        waiter: asyncio.Future[Any] = coroutine.send(None)
    except StopIteration:
        return None
    except OSError as error:
        log.debug("a connection was lost before it was served: %s", error)
        return None
    waiter._asyncio_future_blocking = False
    return waiter


def _exchange_class(interface: Interface, service: HttpService) -> tuple[type[Exchange], Any]:
    if interface is Interface.ASGI:
        from ._asgi import AsgiExchange

        return AsgiExchange, None
    if interface is Interface.WSGI:
        from ._wsgi import WsgiExchange, WsgiThreads

        return WsgiExchange, WsgiThreads(service.config.wsgi_threads, service.config.wsgi_queue)
    from ._handler import HandlerExchange, NodeExchange

    return (NodeExchange if interface is Interface.NODE else HandlerExchange), None


def _both(one: Callable[[Exchange], None], other: Callable[[Exchange], None]) -> Callable[[Exchange], None]:
    def call(exchange: Exchange) -> None:
        one(exchange)
        other(exchange)

    return call


def _proxies(config: HttpConfig) -> Any:
    if not config.proxy_headers:
        return None
    from ._proxy import TrustedProxies

    return TrustedProxies(config.proxy_headers)


def _access(config: HttpConfig) -> Callable[[Exchange], None] | None:
    if not config.access_log:
        return None
    from ._access import access_writer

    writer: Callable[[Exchange], None] = access_writer(config.log_format)
    return writer


def make_tls_context(tls: TlsConfig) -> ssl.SSLContext:
    """Build the server's TLS context. Raises OSError or ssl.SSLError with the file that is wrong."""
    import ssl

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(tls.cert, tls.key, tls.key_password)
    context.set_alpn_protocols(["http/1.1"])
    if tls.ciphers:
        context.set_ciphers(tls.ciphers)
    if tls.ca:
        context.load_verify_locations(tls.ca)
        context.verify_mode = ssl.CERT_REQUIRED if tls.require_client_cert else ssl.CERT_OPTIONAL
    return context
