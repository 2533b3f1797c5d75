"""`Server`: listens, and turns what comes in into sockets.

What lives here: `create_server` and `Server`. What must not: binding and accepting (`_listen`), or who else may do it
(`_provider`).

The flow of a connection
    provider ── accepted(sock) ──> closing or full? ──> blocked? ──> (TLS) ──> Socket ──> 'connection'
                       False: it stays the provider's, who may call refused(sock): 'drop'
"""

from __future__ import annotations

import asyncio
import socket as _socket
import ssl
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Unpack, overload

from .._limits import SOCKET_HIGH_WATER_BYTES, TLS_HANDSHAKE_TIMEOUT_S
from ..errors import UsageError
from ..events import EventEmitter
from ..loop import AnyOperation, CallbackOperation, ErrorFirst, Handle, Operation, begin, hub, launch
from ._address import checked_port, from_kernel
from ._attach import adopt, adopt_tls
from ._block_list import BlockList
from ._provider import Listening, ListenKeywords, ListenOptions, ServerSide
from ._provider import listen as provide
from ._socket import Socket
from ._unix import as_path


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """What `create_server` was told, but for the listener."""

    allow_half_open: bool = False
    pause_on_connect: bool = False
    no_delay: bool = True
    keep_alive: bool = False
    high_water_mark: int = SOCKET_HIGH_WATER_BYTES
    block_list: BlockList | None = None
    tls: ssl.SSLContext | None = None
    tls_handshake_timeout: float = TLS_HANDSHAKE_TIMEOUT_S


class Server(Handle, EventEmitter):
    """A server, made by `create_server`. Keeps `multiloop.run` going while it listens (not for its connections' sake).

    Events: 'listening' · 'connection' (Socket) · 'drop' (a dict of local_address and remote_address: over
    `max_connections`) · 'tls_client_error' (error, remote address) · 'error' · 'close' (closed, and the last connection
    has ended).

    Attributes: `max_connections` (0: no limit; may be changed at any time).
    """

    def __init__(self, options: ServerOptions, max_connections: int = 0) -> None:
        super().__init__()
        self._options = options
        self.max_connections = max_connections
        self._listening: Listening | None = None
        self._opening: AnyOperation[Server] | None = None
        self._closing = False
        self._close_waiters: list[AnyOperation[None]] = []
        self._sockets: set[Socket] = set()
        self._handshakes: set[asyncio.Task[None]] = set()

    # -- listening -------------------------------------------------------------------------------------------------
    @overload
    def listen(
        self, port: int = ..., host: str | None = ..., **options: Unpack[ListenKeywords]
    ) -> Operation[Server]: ...
    @overload
    def listen(
        self, port: int = ..., host: str | None = ..., *, callback: ErrorFirst, **options: Unpack[ListenKeywords]
    ) -> CallbackOperation[Server]: ...
    def listen(
        self,
        port: int = 0,
        host: str | None = "127.0.0.1",
        *,
        callback: ErrorFirst | None = None,
        **options: Unpack[ListenKeywords],
    ) -> AnyOperation[Server]:
        """Start to listen on a port, a Unix `path`, or a descriptor `fd` (which the server takes over).

        Args:
            port: 0 lets the system choose; see `address`.
            host: an address or a name (its first address); "" or None is every address, IPv6 and IPv4.
            path, fd: instead of a port.
            backlog: connections that the kernel keeps waiting (its own cap holds, too).
            ipv6_only: with an IPv6 host: leave IPv4 alone.
            exclusive: in a cluster's worker: a port of its own, not the one that the primary shares out.
            reuse_port: let other sockets of this user listen on the same port; the kernel deals (Linux, BSD).
            path_mode: permissions of the Unix socket's path. A path whose server is gone is replaced, a live one never.

        Raises:
            OSError: the address is taken, not allowed or not here; its `filename` names it.
            UsageError: it listens already.
        """
        if self._listening is not None or self._opening is not None:
            raise UsageError("listen(): this server listens already; close it first, or make another one")
        tls = self._options.tls is not None
        wanted = ListenOptions(port=checked_port(port), host=host, tls=tls, **options)
        if wanted.path is not None:
            as_path(wanted.path)
        self._closing = False
        self._hub = hub()
        op: AnyOperation[Server] = launch(self._listen(wanted), callback, discard=Server.close)
        self._opening = op
        return op

    async def _listen(self, options: ListenOptions) -> Server:
        try:
            listening = await provide(options, ServerSide(self._accepted, self._refused, self._end))
        except OSError as error:
            opening, self._opening = self._opening, None
            if self._emit_error_if_heard(error) and isinstance(opening, Operation):
                opening.add_done_callback(_seen)  # somebody knows: the operation need not be awaited, too
            del opening  # this frame is in the error's traceback: in a cycle with it nobody would miss the operation
            raise
        except BaseException:
            self._opening = None
            raise
        self._opening = None
        self._listening = listening
        self._opened(self._hub)
        self._hub.call(self.emit, "listening")
        return self

    @property
    def listening(self) -> bool:
        """Whether it listens."""
        return self._listening is not None

    @property
    def address(self) -> Any:
        """(host, port) that it listens on, or the path; None while it does not listen."""
        return None if self._listening is None else self._listening.address

    @property
    def connections(self) -> int:
        """How many connections are open, those in their TLS handshake included."""
        return len(self._sockets)

    # -- connections -----------------------------------------------------------------------------------------------
    def _accepted(self, raw: _socket.socket) -> bool:
        if self._closing or 0 < self.max_connections <= len(self._sockets):
            return False
        options = self._options
        try:
            remote = from_kernel(raw.getpeername())
        except OSError:  # reset between the kernel's accept and ours
            raw.close()
            return True
        if options.block_list is not None and isinstance(remote, tuple) and options.block_list.check(remote[0]):
            raw.close()
            return True
        socket = Socket(
            allow_half_open=options.allow_half_open and options.tls is None,
            high_water_mark=options.high_water_mark,
            no_delay=options.no_delay,
            keep_alive=options.keep_alive,
        )
        socket._remote = remote
        socket._on_closed = self._left
        socket._on_made = partial(self._connected, socket)
        self._sockets.add(socket)
        if options.tls is None:
            adopt(socket, raw)
        else:
            task = self._hub.loop.create_task(self._handshake(socket, raw, options.tls))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)
        return True

    def _refused(self, raw: _socket.socket) -> None:
        try:
            remote = from_kernel(raw.getpeername())
        except OSError:
            remote = None
        self._hub.call(self.emit, "drop", {"local_address": from_kernel(raw.getsockname()), "remote_address": remote})

    def _connected(self, socket: Socket) -> None:
        if self._options.pause_on_connect:
            socket.pause()
        self._hub.call(self.emit, "connection", socket)

    async def _handshake(self, socket: Socket, raw: _socket.socket, context: ssl.SSLContext) -> None:
        try:
            await adopt_tls(socket, raw, context, self._options.tls_handshake_timeout)
        except Exception as error:  # the peer's fault, whatever it is: never the program's end
            self._hub.call(self.emit, "tls_client_error", error, socket.remote_address)
        finally:
            if socket._transport is None:
                self._left(socket)

    def _left(self, socket: Socket) -> None:
        self._sockets.discard(socket)
        if self._closing and not self._sockets:
            self._closed()

    def _rejected(self, error: Exception, name: Hashable, args: tuple[Any, ...]) -> None:
        if name == "connection":
            args[0].destroy(error)  # the failed handler's connection pays, as in Node
        else:
            super()._rejected(error, name, args)

    # -- closing ---------------------------------------------------------------------------------------------------
    @overload
    def close(self) -> Operation[None]: ...
    @overload
    def close(self, *, callback: ErrorFirst) -> CallbackOperation[None]: ...
    def close(self, *, callback: ErrorFirst | None = None) -> AnyOperation[None]:
        """Accept nothing more, now; done when the connections that are open have ended. Closing twice is fine.

        They end by themselves, or with `destroy_connections()`.
        """
        op: AnyOperation[None] = begin(callback).unref()
        if self._opening is not None:
            self._opening.cancel()
            self._opening = None
        self._closing = True
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.close()
        self._close_waiters.append(op)
        if not self._sockets:
            op._hub.loop.call_soon(self._closed, listening is not None)
        self._ended()
        return op

    def _closed(self, tell: bool = True) -> None:
        if self._sockets or not self._closing:
            return
        waiters, self._close_waiters = self._close_waiters, []
        if waiters and tell:
            self._hub.call(self.emit, "close")
        for op in waiters:
            op._succeed(None)

    async def _end(self, grace_s: float | None) -> None:
        closed = self.close()
        try:
            await asyncio.wait_for(asyncio.shield(closed), grace_s)
        except TimeoutError:
            self.destroy_connections()
            await closed

    def destroy_connections(self) -> None:
        """Close every connection at once."""
        for task in list(self._handshakes):
            task.cancel()
        for socket in list(self._sockets):
            socket.destroy()

    def _shutdown(self) -> None:
        self._events = None
        self.close()
        self.destroy_connections()

    async def __aenter__(self) -> Server:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.destroy_connections()
        await self.close()

    def __repr__(self) -> str:
        return f"<Server {'on ' + str(self.address) if self.listening else 'closed'}, {self.connections} connections>"


def create_server(
    on_connection: Callable[[Socket], Any] | None = None,
    *,
    allow_half_open: bool = False,
    pause_on_connect: bool = False,
    no_delay: bool = True,
    keep_alive: bool = False,
    high_water_mark: int = SOCKET_HIGH_WATER_BYTES,
    max_connections: int = 0,
    block_list: BlockList | None = None,
    tls: ssl.SSLContext | None = None,
    tls_handshake_timeout: float = TLS_HANDSHAKE_TIMEOUT_S,
) -> Server:
    """Return a server; `await server.listen(port)` starts it.

    Args:
        on_connection: called with each Socket (added to 'connection'). May be async: when it fails, its connection is
            destroyed with that exception. The socket is not closed for you when it returns.
        pause_on_connect: sockets come paused: `resume()` them.
        max_connections: above it connections are accepted, closed, and told of with 'drop'; 0: no limit.
        block_list: addresses that are closed without a word.
        tls: serve TLS with this context (see `create_secure_context`); 'connection' comes after the handshake, which
            may take `tls_handshake_timeout` seconds.
        allow_half_open, no_delay, keep_alive, high_water_mark: for each connection, see `Socket`.
    """
    if tls is not None and not isinstance(tls, ssl.SSLContext):
        raise TypeError(f"tls= is an ssl.SSLContext (see net.create_secure_context), not {type(tls).__name__}")
    if tls is not None and allow_half_open:
        raise UsageError("allow_half_open=True with tls: TLS connections cannot be half-closed here")
    server = Server(
        ServerOptions(
            allow_half_open=allow_half_open,
            pause_on_connect=pause_on_connect,
            no_delay=no_delay,
            keep_alive=keep_alive,
            high_water_mark=high_water_mark,
            block_list=block_list,
            tls=tls,
            tls_handshake_timeout=tls_handshake_timeout,
        ),
        max_connections,
    )
    if on_connection is not None:
        server.on("connection", on_connection)
    return server


def _seen(op: asyncio.Future[Any]) -> None:
    if not op.cancelled():
        op.exception()
