"""Sockets, servers and files as descriptors, and back.

What lives here: `give` and `take`: what each kind of handle becomes on its way. What must not: the way.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..errors import UsageError

if TYPE_CHECKING:
    from ..net import Server, Socket

_LOST = -1


@contextmanager
def give(handle: Any, keep_open: bool) -> Iterator[tuple[str, int]]:
    """Give what a handle is and its descriptor, to be duplicated inside; afterwards it is closed here if it must be.

    Raises UsageError for what cannot be sent; nothing is closed then.
    """
    if isinstance(handle, socket.socket):
        yield "socket", handle.fileno()
        if not keep_open and not _is_listening(handle):
            handle.close()
    elif isinstance(handle, int) and not isinstance(handle, bool):
        yield "descriptor", handle
    elif type(handle).__module__.startswith("multiloop.net"):
        from ..net import Server, Socket

        if isinstance(handle, Socket):
            yield "net.Socket", _descriptor_of_socket(handle)
            if not keep_open:
                handle.destroy()
        elif isinstance(handle, Server):
            yield "net.Server", _descriptor_of_server(handle)
        else:
            raise UsageError(f"send(handle={handle!r}): of net, sockets and servers can be sent")
    elif hasattr(handle, "fileno"):
        yield "descriptor", handle.fileno()
    else:
        raise UsageError(
            f"send(handle={handle!r}): use a net.Socket, net.Server, socket.socket, an open file or a descriptor"
        )


def take(kind: str, descriptor: int) -> Any:
    """Make what was sent from the descriptor that arrived; None when it got lost on the way."""
    if descriptor == _LOST:
        return None
    if kind == "descriptor":
        return descriptor
    if kind == "net.Server":
        from .. import net

        server = net.create_server()
        server.listen(fd=descriptor)
        return server
    try:
        raw = socket.socket(fileno=descriptor)
    except OSError:
        os.close(descriptor)
        raise
    if kind == "socket":
        return raw
    from ..net import Socket
    from ..net._attach import adopt

    raw.setblocking(False)
    made = Socket()
    adopt(made, raw)
    return made


def discard(handle: Any) -> None:
    """Close what nobody is going to take."""
    if isinstance(handle, int) and not isinstance(handle, bool):
        os.close(handle)
    elif hasattr(handle, "destroy"):
        handle.destroy()
    elif handle is not None:
        handle.close()


def _descriptor_of_socket(handle: Socket) -> int:
    raw = handle._raw()
    if raw is None or handle.destroyed:
        raise UsageError(f"send(handle={handle!r}): it is not open")
    if handle.encrypted:
        raise UsageError(f"send(handle={handle!r}): it is encrypted, and the session's keys stay in this process")
    if handle._incoming._chunks:
        raise UsageError(
            f"send(handle={handle!r}): bytes of it were read here already; "
            "take it unread: net.create_server(pause_on_connect=True)"
        )
    if handle.write_buffer_size:
        raise UsageError(f"send(handle={handle!r}): bytes wait to be sent; await its drain() first")
    return int(raw.fileno())


def _descriptor_of_server(handle: Server) -> int:
    listening = getattr(handle._listening, "_sock", None)
    if listening is None:
        raise UsageError(f"send(handle={handle!r}): it does not listen on a socket of this process")
    return int(listening.fileno())


def _is_listening(raw: socket.socket) -> bool:
    try:
        return bool(raw.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return False
