"""What all connections of a service look at for each request, in one place, so that the compiled form finds it by offset.

What lives here: `ServiceState`, the base of `HttpService`; `Carrier`, the base of `Connection`: what an exchange sees of it;
`Listener`, what connections of one socket have in common. What must not: anything that is done with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._wire.http1 import text_head

EXTENSIONS = ("http.response.trailers", "http.response.early_hint", "http.response.pathsend")  # of ASGI

if TYPE_CHECKING:
    import asyncio
    import ssl
    from collections.abc import Callable

    from ._config import HttpConfig
    from ._connection import Connection
    from ._exchange import Exchange
    from ._reader import RequestReader


class ServiceState:
    """One application on one loop: what it is, how busy it is, and what every reply carries."""

    __slots__ = ("access", "active", "app", "closes_soon", "config", "connections", "date_and_server", "date_line",
                 "draining", "has_task_factory", "keep_alive_s", "limit_concurrency", "loop", "now_s", "proxies", "readers",
                 "refused", "requests", "server_line", "state", "text_head")  # fmt: skip

    def __init__(self, app: Any, config: HttpConfig, loop: asyncio.AbstractEventLoop) -> None:
        self.app = app
        self.config = config
        self.loop = loop
        self.now_s = loop.time()  # renewed by the sweep: half a second old at most
        self.keep_alive_s = config.keep_alive_timeout
        self.limit_concurrency = config.limit_concurrency
        self.active = 0  # requests that an application is answering
        self.requests = 0  # answered
        self.refused = 0  # never reached the application
        self.draining = False
        # Whether a reply may have to end its connection: draining, or a cap on a connection's requests.
        self.closes_soon = config.max_requests_per_connection > 0
        self.has_task_factory = loop.get_task_factory() is not None
        self.connections: set[Connection] = set()
        self.readers: list[RequestReader] = []  # spare ones; as many as messages were ever read at once
        self.state: dict[str, Any] = {}  # of the lifespan
        self.proxies: Any = None
        self.access: Callable[[Exchange], None] | None = None
        self.set_lines(b"", b"")

    def set_lines(self, date_line: bytes, server_line: bytes) -> None:
        """Take the fields that every reply carries."""
        self.date_line = date_line
        self.server_line = server_line
        self.date_and_server = date_line + server_line
        self.text_head = text_head(self.date_and_server)


class Listener:
    """What the connections of one listening socket have in common: names, scheme, the template of their scopes."""

    __slots__ = ("index", "is_tls", "is_unix", "root_path", "scope", "server", "tls_context")

    def __init__(self, index: int, name: str, config: HttpConfig, tls_context: ssl.SSLContext | None) -> None:
        self.index = index
        self.is_unix = name.startswith("unix:")
        self.tls_context = tls_context
        self.is_tls = tls_context is not None
        self.root_path = config.root_path.rstrip("/")
        self.server: tuple[str, int | None] | None = None
        if self.is_unix:
            self.server = (name.removeprefix("unix:"), None)
        else:
            host, _, port = name.rpartition(":")
            host = host.strip("[]")
            if host not in ("", "0.0.0.0", "::") and port.isdigit():
                self.server = (host, int(port))
        # Every key of every request is there: what is set later then replaces, and the copy need not grow.
        self.scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": "",
            "path": "",
            "raw_path": b"",
            "query_string": b"",
            "headers": (),
            "server": self.server,
            "client": None,
            "scheme": "https" if self.is_tls else "http",
            "root_path": self.root_path,
            "extensions": {name: {} for name in EXTENSIONS},
        }


class Carrier:
    """What carries exchanges: a connection, as they know it."""

    __slots__ = ("listener", "peer_address", "service", "transport", "write_waiter")

    service: ServiceState
    listener: Listener
    transport: Any
    peer_address: tuple[str, int] | None  # None until somebody asks: the socket's own
    write_waiter: asyncio.Future[None] | None  # there while the transport is above its high-water mark

    def peer(self) -> tuple[str, int] | None:
        """The client's address as the socket tells it; None on a Unix socket."""
        if self.peer_address is None and not self.listener.is_unix:
            name = self.transport.get_extra_info("peername")
            if isinstance(name, tuple):
                self.peer_address = (name[0], name[1])
        return self.peer_address

    def take_exchange(self, exchange: Exchange) -> None:
        """Take a request whose head is complete: it is next, or waits behind others."""
        raise NotImplementedError

    def exchange_done(self, exchange: Exchange, close: bool) -> None:
        """The reply of the exchange under way is complete."""
        raise NotImplementedError

    def is_last(self) -> bool:
        """Whether the exchange under way is the last that this connection may carry."""
        raise NotImplementedError
