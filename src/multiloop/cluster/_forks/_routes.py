"""In a worker, the loop's own ways to listen lead through the primary: everybody's asyncio server is clustered.

What lives here: `install`, and what stands in for `create_server`, `create_unix_server` and `create_datagram_endpoint`.
What must not: the server that they return (`_asyncio_server`).

`sock=` and `reuse_port=True` bypass the primary: those sockets are this process's own. So are UDP sockets on port 0 and
connected ones, which clients use.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import socket
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ..._limits import BACKLOG
from ..._wire.forks import Wanted
from ...net._provider import ServerSide
from ...net._udp_options import DatagramOptions
from ...net._unix import checked_path
from ._asyncio_server import RoutedServer

if TYPE_CHECKING:
    from ._member import Member

_ASYNCIO_BACKLOG = 100
# A name may stand for IPv6 addresses on a machine that has none: asyncio passes them over, too.
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_TLS = ("ssl", "ssl_handshake_timeout", "ssl_shutdown_timeout")


def install(member: Member) -> None:
    """Lead the listening of every loop of the main thread through the primary, whoever makes the loop.

    On the classes: `asyncio.run` and the servers that make their own loop (uvicorn's, aiohttp's `run_app`) do it unasked.
    """
    classes: list[Any] = [asyncio.SelectorEventLoop]
    try:
        import uvloop
    except ImportError:
        pass
    else:
        classes.append(uvloop.Loop)
    for each in classes:
        for name in ("create_server", "create_unix_server", "create_datagram_endpoint"):
            setattr(each, name, _led(getattr(each, name), name, member))


def _led(original: Callable[..., Any], name: str, member: Member) -> Callable[..., Any]:
    @functools.wraps(original)
    async def method(loop: asyncio.AbstractEventLoop, *args: Any, **options: Any) -> Any:
        routes = member.routes_of(loop)
        if routes is None:  # a loop on another thread, or a second one
            return await original(loop, *args, **options)
        return await getattr(routes, name)(*args, **options)

    method.original = original  # type: ignore[attr-defined]
    return method


class Routes:
    """What stands in for three methods of one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, member: Member) -> None:
        self._loop = loop
        self._member = member
        self._create_server = self._own("create_server")
        self._create_unix_server = self._own("create_unix_server")
        self._create_datagram_endpoint = self._own("create_datagram_endpoint")

    def _own(self, name: str) -> Callable[..., Any]:
        """Return the loop's own method."""
        led = getattr(type(self._loop), name)
        return functools.partial(getattr(led, "original", led), self._loop)

    async def create_server(
        self, protocol_factory: Callable[[], Any], host: Any = None, port: Any = None, **options: Any
    ) -> Any:
        """As the loop's own, with the listening socket of the primary."""
        is_own = options.get("sock") is not None or options.get("reuse_port")
        if is_own or (host is None and port is None) or isinstance(options.get("ssl"), bool):
            return await self._create_server(protocol_factory, host, port, **options)
        wanted = [
            Wanted("tcp", address[0], address[1], ipv6_only=family == socket.AF_INET6)
            for family, address in await self._resolve(host, port or 0, options)
        ]
        return await self._serve(protocol_factory, wanted, options)

    async def create_unix_server(self, protocol_factory: Callable[[], Any], path: Any = None, **options: Any) -> Any:
        """As the loop's own, with the listening socket of the primary. Nobody but this user may connect."""
        if options.get("sock") is not None or path is None or isinstance(options.get("ssl"), bool):
            return await self._create_unix_server(protocol_factory, path, **options)
        wanted = self._member.wanted_path(checked_path(os.fsdecode(path)))
        return await self._serve(protocol_factory, [wanted], options)

    async def create_datagram_endpoint(
        self, protocol_factory: Callable[[], Any], local_addr: Any = None, remote_addr: Any = None, **options: Any
    ) -> Any:
        """As the loop's own; a socket that is bound to a port of one's choice is shared by all workers."""
        is_own = options.get("sock") is not None or options.get("reuse_port") or remote_addr is not None
        if is_own or not isinstance(local_addr, tuple) or not local_addr[1]:
            return await self._create_datagram_endpoint(protocol_factory, local_addr, remote_addr, **options)
        found = await self._loop.getaddrinfo(
            local_addr[0], local_addr[1], family=options.get("family", 0), type=socket.SOCK_DGRAM
        )
        family, where = found[0][0], found[0][4]
        udp = DatagramOptions(family == socket.AF_INET6, broadcast=bool(options.get("allow_broadcast")))
        sock = await self._member.bind(udp, where)
        try:
            return await self._create_datagram_endpoint(protocol_factory, sock=sock)
        except BaseException:
            sock.close()
            raise

    async def _resolve(self, host: Any, port: int, options: dict[str, Any]) -> list[tuple[int, Any]]:
        """Return families and addresses, as asyncio finds them."""
        if host is None or host == "":
            hosts: Iterable[Any] = [None]
        elif isinstance(host, str) or not isinstance(host, Iterable):
            hosts = [host]
        else:
            hosts = host
        unique: dict[tuple[int, Any], None] = {}
        for each in hosts:
            found = await self._loop.getaddrinfo(
                each,
                port,
                family=options.get("family", socket.AF_UNSPEC),
                type=socket.SOCK_STREAM,
                flags=options.get("flags", socket.AI_PASSIVE),
            )
            for family, _, _, _, address in found:
                unique[int(family), address] = None
        return list(unique)

    async def _serve(self, factory: Callable[[], Any], wanted: list[Wanted], options: dict[str, Any]) -> RoutedServer:
        tls = {name: options[name] for name in _TLS if options.get(name) is not None}
        tls.setdefault("ssl", None)
        server = RoutedServer(self._loop, factory, tls, self._member.join)
        side = ServerSide(server.accepted, server.refused, server.end)
        backlog = options.get("backlog", _ASYNCIO_BACKLOG)
        backlog = BACKLOG if backlog == _ASYNCIO_BACKLOG else backlog
        has_tls = tls["ssl"] is not None
        missing: OSError | None = None
        try:
            for each in wanted:
                try:
                    server.add(await self._member.open(each, side, backlog=backlog, tls=has_tls))
                except OSError as error:
                    if error.errno not in _NOT_HERE:
                        raise
                    missing = error
            if missing is not None and not server.sockets:
                raise missing
        except BaseException:
            server.close()
            raise
        if options.get("start_serving", True):
            await server.start_serving()
        return server
