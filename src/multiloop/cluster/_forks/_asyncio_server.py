"""A server as asyncio's `create_server` returns it, whose connections come from the primary.

What lives here: `RoutedServer`, with the face of `asyncio.Server`. What must not: getting its listeners (`_routes`).
"""

from __future__ import annotations

import asyncio
import socket
import weakref
from collections.abc import Callable
from typing import Any

from ...ipc._attach import drive
from ...net._first_read import FirstRead
from ._handed import HandedSocket
from ._reception import Entrance


class ListeningSocket:
    """What a server's `sockets` show: the listening socket is the primary's, here are its address and kind."""

    type = socket.SOCK_STREAM
    proto = 0

    def __init__(self, address: Any, family: int) -> None:
        self.family = socket.AddressFamily(family)
        self._address = address

    def getsockname(self) -> Any:
        """Return the address that is listened on, as a socket does."""
        if isinstance(self._address, tuple) and self.family == socket.AF_INET6:
            return (*self._address, 0, 0)
        return self._address

    def fileno(self) -> int:
        """Return -1: there is no descriptor here."""
        return -1

    def __repr__(self) -> str:
        return f"<ListeningSocket {self.getsockname()}, the primary's>"


class RoutedServer(asyncio.AbstractServer):
    """An asyncio server in a worker.

    Args:
        tls: ssl, ssl_handshake_timeout and ssl_shutdown_timeout for each connection.
        join: lets connections come to an entrance.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        factory: Callable[[], Any],
        tls: dict[str, Any],
        join: Callable[[Entrance], None],
    ) -> None:
        self._loop = loop
        self._factory = factory
        self._tls = tls
        self._join = join
        self._entrances: list[Entrance] | None = []  # None once closed
        self._open: set[HandedSocket] = set()
        self._transports: weakref.WeakSet[Any] = weakref.WeakSet()
        self._handshakes: set[asyncio.Task[None]] = set()
        self._serving = False
        self._forever: asyncio.Future[None] | None = None
        self._waiters: list[asyncio.Future[None]] = []

    # -- for the cluster -----------------------------------------------------------------------------------------------
    def add(self, entrance: Entrance) -> None:
        """It has one more listener."""
        entrance.is_foreign = True
        assert self._entrances is not None
        self._entrances.append(entrance)

    def accepted(self, sock: Any) -> bool:
        """Take a connection; False when the server is closed."""
        if self._entrances is None:
            return False
        handed: HandedSocket = sock
        self._open.add(handed)
        handed.watchers = (*handed.watchers, self._left)
        if self._tls["ssl"] is None:
            make: Callable[[], Any] = lambda: FirstRead(self._factory(), handed)  # noqa: E731 - typed for mypy
            connecting = self._loop.connect_accepted_socket(make, handed)
            drive(connecting, self._connected, lambda error: handed.close())
        else:
            task = self._loop.create_task(self._shake_hands(handed))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)
        return True

    async def _shake_hands(self, handed: HandedSocket) -> None:
        try:
            pair = await self._loop.connect_accepted_socket(self._factory, handed, **self._tls)
        except Exception as error:  # the client's fault, whatever it is
            handed.close()
            if self._loop.get_debug():
                self._loop.call_exception_handler({"message": "a TLS handshake failed", "exception": error})
            return
        handed.first_byte()  # those of the handshake
        self._connected(pair)

    def _connected(self, pair: Any) -> None:
        self._transports.add(pair[0])

    def _left(self, handed: HandedSocket) -> None:
        self._open.discard(handed)
        if not self._open and self._entrances is None:
            self._wake()

    def refused(self, sock: socket.socket) -> None:
        """A connection was given up: nobody is told."""

    async def end(self, grace_s: float | None) -> None:
        """Close, wait for the connections, cut what is left after the grace.

        `serve_forever` goes on: what it is awaited by is the program's main, whose end would end the connections.
        """
        self._stop_accepting()
        try:
            await asyncio.wait_for(self._gone(), grace_s)
        except TimeoutError:
            self.abort_clients()

    async def _gone(self) -> None:
        while self._open:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiters.append(waiter)
            await waiter

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    # -- asyncio.Server ------------------------------------------------------------------------------------------------
    @property
    def sockets(self) -> tuple[ListeningSocket, ...]:
        """What it listens on."""
        return tuple(ListeningSocket(each.address, each.family) for each in self._entrances or ())

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return its loop."""
        return self._loop

    def is_serving(self) -> bool:
        """Whether it accepts connections."""
        return self._serving

    async def start_serving(self) -> None:
        """Let connections come."""
        if self._entrances is None:
            raise RuntimeError(f"server {self!r} is closed")
        if not self._serving:
            self._serving = True
            for entrance in self._entrances:
                self._join(entrance)

    async def serve_forever(self) -> None:
        """Serve until cancelled, or closed."""
        if self._forever is not None:
            raise RuntimeError(f"server {self!r} is already being awaited on serve_forever()")
        await self.start_serving()
        self._forever = self._loop.create_future()
        try:
            await self._forever
        except asyncio.CancelledError:
            self.close()
            await self.wait_closed()
            raise
        finally:
            self._forever = None

    def close(self) -> None:
        """Accept nothing more. Open connections go on."""
        self._stop_accepting()
        if self._forever is not None and not self._forever.done():
            self._forever.cancel()

    def _stop_accepting(self) -> None:
        entrances, self._entrances = self._entrances, None
        self._serving = False
        for entrance in entrances or ():
            entrance.close()
        if not self._open:
            self._wake()

    def close_clients(self) -> None:
        """Close every connection, after what was written has left."""
        for transport in list(self._transports):
            transport.close()

    def abort_clients(self) -> None:
        """Cut every connection."""
        for transport in list(self._transports):
            transport.abort()

    async def wait_closed(self) -> None:
        """Wait until it is closed and its connections have ended."""
        if self._entrances is None:
            await self._gone()

    async def __aenter__(self) -> RoutedServer:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()
        await self.wait_closed()

    def __repr__(self) -> str:
        return f"<RoutedServer sockets={self.sockets!r}>"
