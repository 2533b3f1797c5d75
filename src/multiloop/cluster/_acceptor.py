"""Accepting in a worker, for the policies in which the workers do: reuse_port and shared.

What lives here: `Acceptor`. What must not: serving; the primary's accepting (`_dealer`).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, Any

from .. import _limits as limits
from ..net._full import CLIENT_GONE, NO_ROOM, FullTable

if TYPE_CHECKING:
    from ._service import Adopter

log = logging.getLogger("multiloop.cluster")


class Acceptor:
    """Accepts from listening sockets for a service.

    Args:
        batch: connections accepted in one turn of the loop; few where other workers wait at the same socket.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, service: Adopter, batch: int) -> None:
        self._loop = loop
        self._service = service
        self._batch = batch
        self._sources: list[tuple[socket.socket, int]] = []
        self._paused: asyncio.TimerHandle | None = None
        self._full = FullTable()
        self._accepted = 0

    def listen(self, descriptor: int, listener: int, family: int) -> None:
        """Accept from this listening socket, which is ours from now on."""
        sock = socket.socket(family, socket.SOCK_STREAM, 0, descriptor)
        sock.setblocking(False)
        self._sources.append((sock, listener))
        self._loop.add_reader(sock, self._accept, sock, listener)

    def close(self) -> None:
        """Accept no more; connections that wait are left to whoever else holds the sockets. Safe to call twice."""
        sources, self._sources = self._sources, []
        for sock, _ in sources:
            self._loop.remove_reader(sock)
            sock.close()
        if self._paused is not None:
            self._paused.cancel()
            self._paused = None

    def empty(self) -> None:
        """Accept what has arrived, because the sockets are going to be closed."""
        for sock, listener in self._sources:
            for _ in range(limits.MAX_BACKLOG):
                if not self._accept_one(sock, listener):
                    break

    def _accept(self, sock: socket.socket, listener: int) -> None:
        for _ in range(self._batch):
            if not self._accept_one(sock, listener):
                return

    def _accept_one(self, sock: Any, listener: int) -> bool:
        try:
            descriptor, _peer = sock._accept()
        except OSError as error:
            if error.errno in NO_ROOM:
                self._pause(error)
            return error.errno in CLIENT_GONE  # the next one may be there
        self._accepted += 1
        accepted = socket.socket(sock.family, socket.SOCK_STREAM, 0, descriptor)
        if self._service.adopt(accepted, listener=listener, prefix=b"") is False:
            accepted.close()
        return True

    def _pause(self, error: OSError) -> None:
        if self._paused is not None:
            return
        pause = self._full.pause(self._loop.time(), self._accepted)
        if pause.is_said:
            log.warning("cannot accept connections for now: %s", error.strerror)
        for sock, _ in self._sources:
            self._loop.remove_reader(sock)
        self._paused = self._loop.call_later(pause.seconds, self._resume)

    def _resume(self) -> None:
        self._paused = None
        for sock, listener in self._sources:
            self._loop.add_reader(sock, self._accept, sock, listener)
