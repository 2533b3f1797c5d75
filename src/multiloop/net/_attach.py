"""Putting a connected socket on a transport of the loop.

What lives here: the calls into asyncio, for accepted and for connecting sockets, plain and TLS. What must not: deciding
anything about the connection.
"""

from __future__ import annotations

import asyncio
import socket as _socket
import ssl
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from ._first_read import FirstRead
from ._socket import Socket


def adopt(socket: Socket, raw: _socket.socket) -> None:
    """Put a plain socket on a transport, without the task that asyncio's own way costs.

    The loop's coroutine is run by hand: its first step does all the work and gives the future that it waits on; when
    that is done, one more step ends it.
    """
    loop = socket._hub.loop
    start: Coroutine[Any, Any, Any] = loop.connect_accepted_socket(_factory(socket, raw), raw)
    try:
        waiter = start.send(None)
    except StopIteration:
        return
    except Exception as error:
        raw.close()
        loop.call_soon(socket._lost, error)
        return
    waiter._asyncio_future_blocking = False
    waiter.add_done_callback(partial(_finish, socket, start))


def _finish(socket: Socket, start: Coroutine[Any, Any, Any], waiter: asyncio.Future[Any]) -> None:
    try:
        start.send(None)
    except StopIteration:
        pass
    except Exception as error:  # the transport never came to life, and tells nobody of its end
        socket._lost(error)


async def attach(socket: Socket, raw: _socket.socket) -> None:
    """As `adopt`, for one who waits for it."""
    await socket._hub.loop.connect_accepted_socket(_factory(socket), raw)


async def adopt_tls(socket: Socket, raw: _socket.socket, context: ssl.SSLContext, timeout_s: float) -> None:
    """Be the server of a TLS handshake, then go on as `adopt`."""
    await socket._hub.loop.connect_accepted_socket(_factory(socket), raw, ssl=context, ssl_handshake_timeout=timeout_s)
    if hasattr(raw, "first_byte"):
        raw.first_byte()  # those of the handshake


async def attach_tls(
    socket: Socket, raw: _socket.socket, context: ssl.SSLContext, server_hostname: str, timeout_s: float
) -> None:
    """Be the client of a TLS handshake, then go on as `attach`."""
    await socket._hub.loop.create_connection(
        _factory(socket), sock=raw, ssl=context, server_hostname=server_hostname, ssl_handshake_timeout=timeout_s
    )


def _factory(socket: Socket, raw: Any = None) -> Callable[[], Any]:
    # Typed Any: our protocol has no base class, which loops do not ask for, but their types do.
    if hasattr(raw, "first_byte"):
        return lambda: FirstRead(socket._protocol, raw)
    return lambda: socket._protocol
