"""Our own provider of listening sockets: binds, and accepts on the loop.

What lives here: `open_listener`. What must not: what becomes of a connection (`_server`).

Accepting is done here, not by the transports, so that a connection can be refused before it costs a handshake, and so
that a cluster can hand in connections by the same door. Without free descriptors it pauses and looks again; the
kernel's backlog waits meanwhile.
"""

from __future__ import annotations

import errno
import logging
import os
import socket

from .._limits import SERVER_ACCEPT_BATCH
from ..dns._lookup import SocketAddress, addresses
from ..errors import UsageError
from ..loop import Operation, begin, hub, offload_to
from . import _unix
from ._address import Address, from_kernel, is_ip, readable
from ._full import NO_ROOM, FullTable
from ._provider import ListenOptions, ServerSide

_log = logging.getLogger("multiloop.net")


class Listener:
    """A listening socket of this process, accepting."""

    __slots__ = ("_accepted", "_full", "_identity", "_loop", "_server", "_sock", "address")

    def __init__(
        self,
        sock: socket.socket,
        address: Address,
        server: ServerSide,
        identity: _unix.Identity | None = None,
    ) -> None:
        self._sock = sock
        self.address = address
        self._server = server
        self._identity = identity
        self._loop = hub().loop
        self._accepted = 0
        self._full = FullTable()
        self._loop.add_reader(sock, self._readable)

    def _readable(self) -> None:
        for _ in range(SERVER_ACCEPT_BATCH):
            try:
                sock, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in NO_ROOM:
                    self._pause(error)
                    return
                continue  # that peer has given up (ECONNABORTED and the like): the next one may be well
            self._accepted += 1
            sock.setblocking(False)
            if not self._server.accepted(sock):
                self._server.refused(sock)
                sock.close()
            if self._sock.fileno() < 0:  # a listener of the connection's closed the server
                return

    def _pause(self, error: OSError) -> None:
        pause = self._full.pause(self._loop.time(), self._accepted)
        if pause.is_said:
            _log.warning("%s accepts nothing for now: %s", readable(self.address), error.strerror)
        self._loop.remove_reader(self._sock)
        self._loop.call_later(pause.seconds, self._resume)

    def _resume(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.add_reader(self._sock, self._readable)

    def close(self) -> None:
        """Stop accepting, and remove a Unix socket's path if it is still ours."""
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock)
            self._sock.close()
            if isinstance(self.address, str):
                _unix.unlink_ours(self.address, self._identity)


async def open_listener(options: ListenOptions, server: ServerSide) -> Listener:
    """Bind as told and accept. Raises OSError with the address as its `filename`."""
    if options.fd is not None:
        sock = adopt_fd(options.fd, options.backlog)
        return Listener(sock, from_kernel(sock.getsockname()), server)
    if options.path is not None:
        op: Operation[_unix.Bound] = begin(discard=_unix.discard)
        offload_to(op, _unix.bind, (options.path, options.path_mode, options.backlog), discard=_unix.discard)
        sock, identity = await op
        sock.setblocking(False)
        return Listener(sock, options.path, server, identity)
    sock = await bind_tcp(options)
    return Listener(sock, from_kernel(sock.getsockname()), server)


async def bind_tcp(options: ListenOptions) -> socket.socket:
    """Return a listening TCP socket. A name is looked up, and its first address taken; "" or None is every address."""
    if not options.host:
        if socket.has_dualstack_ipv6() or options.ipv6_only:
            return _bind(socket.AF_INET6, ("::", options.port), options)
        return _bind(socket.AF_INET, ("0.0.0.0", options.port), options)
    version = is_ip(options.host)
    if version and "%" not in options.host:
        family = socket.AF_INET6 if version == 6 else socket.AF_INET
        return _bind(family, (options.host, options.port), options)
    op: Operation[list[tuple[int, SocketAddress]]] = begin()
    offload_to(op, addresses, (options.host, options.port), slow=True)
    found = await op
    return _bind(found[0][0], found[0][1], options)


def _bind(family: int, where: SocketAddress, options: ListenOptions) -> socket.socket:
    name = readable((where[0], where[1]))
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:  # no IPv6 here
        raise OSError(error.errno, error.strerror, name) from None
    try:
        if os.name == "posix":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if options.reuse_port:
            if not hasattr(socket, "SO_REUSEPORT"):
                raise UsageError("listen(reuse_port=True): this system cannot share a port between sockets")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(options.ipv6_only))
        sock.bind(where)
        sock.listen(options.backlog)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, error.strerror, name) from None
    except BaseException:
        sock.close()
        raise
    return sock


def adopt_fd(fd: int, backlog: int) -> socket.socket:
    """Return the socket of a descriptor, which is ours from then on. Raises OSError when it is no stream socket."""
    name = f"fd {fd}"
    try:
        sock = socket.socket(fileno=fd)
    except OSError as error:
        raise OSError(error.errno, error.strerror, name) from None
    try:
        if sock.type != socket.SOCK_STREAM:
            raise OSError(errno.EINVAL, "not a stream socket", name)
        sock.setblocking(False)
        sock.set_inheritable(False)
        sock.listen(backlog)  # also for one that listens already: sets the backlog
    except OSError as error:
        sock.detach()  # it stays the caller's
        raise OSError(error.errno, error.strerror, name) from None
    return sock
