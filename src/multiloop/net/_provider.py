"""Who provides listening and UDP sockets: the one place where somebody above may stand in for us.

What lives here: the types, and the hook. What must not: any provider; our own are `_listen` and `_udp_options`, a
cluster's worker sets another with `set_provider`, so that its connections come from the primary. net never imports who
that is.

A provider is called with what `server.listen` was told, and three functions of the server (`ServerSide`). A connection
that it hands in may be a `Handed` socket: one that somebody else keeps a copy of, who wants to hear of its first byte.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypedDict

from .._limits import BACKLOG
from ._address import Address
from ._unix import checked_path

if TYPE_CHECKING:
    from ._udp_options import DatagramOptions


@dataclass(frozen=True, slots=True)
class ListenOptions:
    """What `server.listen` was told: one of port (with host), path and fd."""

    port: int = 0
    host: str | None = "127.0.0.1"
    path: str | None = None
    fd: int | None = None
    backlog: int = BACKLOG
    exclusive: bool = False
    reuse_port: bool = False
    ipv6_only: bool = False
    path_mode: int = 0o600
    tls: bool = False  # the server speaks TLS on its connections


class ListenKeywords(TypedDict, total=False):
    """The options of `server.listen` beside port and host."""

    path: str | None
    fd: int | None
    backlog: int
    exclusive: bool
    reuse_port: bool
    ipv6_only: bool
    path_mode: int


class Listening(Protocol):
    """An open listener, as its provider returns it."""

    @property
    def address(self) -> Address:
        """What `server.address` shows."""

    def close(self) -> None:
        """Accept nothing more, at once; connections that were accepted live on."""


class ServerSide(NamedTuple):
    """What a provider may call of the server that listens.

    * `accepted(sock)` takes a connected, unread socket and returns True; the server owns it from then on. False: the
      server is closing or full; the socket still belongs to the provider, who deals it to somebody else or refuses it.
    * `refused(sock)`: the provider gave a connection up (it closes it itself): the server says so with 'drop'.
    * `end(grace)`: the provider wants the server to close, as its own `close()` does; after `grace` seconds, if given,
      connections that are left are cut. Done when the last one has ended.
    """

    accepted: Callable[[socket.socket], bool]
    refused: Callable[[socket.socket], None]
    end: Callable[[float | None], Awaitable[Any]]
    statistics: Callable[[], Any] | None = None  # with `requests` and `active_requests`, where requests are counted


class Handed(Protocol):
    """What a connection has beside a socket's own, when somebody else keeps a copy of it."""

    prefix: bytes  # what was read of it before

    def first_byte(self) -> None:
        """Something was read, and is going to be acted upon. Twice is once."""


class Provider(Protocol):
    """Makes the listeners and the UDP sockets of this process."""

    async def listen(self, options: ListenOptions, server: ServerSide) -> Listening:
        """Open a listener."""

    async def bind(self, options: DatagramOptions, where: Any) -> socket.socket:
        """Return a UDP socket that is bound to an address."""


_provider: Provider | None = None


def set_provider(provider: Provider | None) -> Provider | None:
    """Let `provider` make the listeners of this process from now on (None: ourselves); returns the one before."""
    global _provider
    before, _provider = _provider, provider
    return before


async def listen(options: ListenOptions, server: ServerSide) -> Listening:
    """Open a listener. `exclusive` and `reuse_port` mean: this process's own, whoever provides the others."""
    if options.path is not None:
        checked_path(options.path)
    if _provider is not None and not (options.exclusive or options.reuse_port):
        return await _provider.listen(options, server)
    from ._listen import open_listener

    return await open_listener(options, server)


async def bind(options: DatagramOptions, where: Any, *, exclusive: bool = False) -> socket.socket:
    """Return a bound UDP socket, shared with others only by a provider, and never `exclusive` or `reuse_port` ones."""
    if _provider is not None and not (exclusive or options.reuse_port):
        return await _provider.bind(options, where)
    from ._udp_options import open_udp

    return open_udp(options, where)
