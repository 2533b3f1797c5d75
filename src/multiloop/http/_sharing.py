"""What is asked of, or done to, the socket below a transport.

What lives here: its address, a duplicate of it, and the goodbye on a socket that two processes hold (the primary keeps a
copy of a connection until its first byte was read). What must not: deciding when.
"""

from __future__ import annotations

import os
import socket
from typing import Any


def duplicate(transport: Any) -> socket.socket:
    """Another descriptor of the transport's socket. Raises OSError when there is none to be had."""
    return socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))


def shut_down_shared(transport: Any) -> None:
    """Say goodbye on an unread connection: closing our copy alone sends no FIN while the primary holds another."""
    try:
        with duplicate(transport) as copy:
            copy.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # gone already


def local_address(transport: Any) -> tuple[str, int | None] | None:
    """Our end's address, for a listener that takes connections on every address; None on a Unix socket."""
    name = transport.get_extra_info("sockname")
    return (name[0], name[1]) if isinstance(name, tuple) else None
