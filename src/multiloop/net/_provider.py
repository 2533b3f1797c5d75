"""Who provides the listening socket: the one place where somebody above may stand in for us.

What lives here: the types, and the hook. What must not: any provider; our own is `_listen`, a cluster's worker sets
another with `set_provider`, so that its connections come from the primary. net never imports who that is.

A provider is called with what `server.listen` was told, and two functions of the server:
* `accepted(sock)` takes a connected, unread socket and returns True; the server owns it from then on. False: the server
  is closing or full; the socket still belongs to the provider, who deals it to somebody else or refuses it.
* `refused(sock)`: the provider gave a connection up (it closes it itself): the server says so with 'drop'.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypedDict

from .._limits import BACKLOG
from ._address import Address


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


Accepted = Callable[[socket.socket], bool]
Refused = Callable[[socket.socket], None]
Provider = Callable[[ListenOptions, Accepted, Refused], Awaitable[Listening]]

_provider: Provider | None = None


def set_provider(provider: Provider | None) -> Provider | None:
    """Let `provider` make the listeners of this process from now on (None: ourselves); returns the one before."""
    global _provider
    before, _provider = _provider, provider
    return before


async def listen(options: ListenOptions, accepted: Accepted, refused: Refused) -> Listening:
    """Open a listener. `exclusive` and `reuse_port` mean: this process's own, whoever provides the others."""
    if _provider is not None and not (options.exclusive or options.reuse_port):
        return await _provider(options, accepted, refused)
    from ._listen import open_listener

    return await open_listener(options, accepted, refused)
