"""net: TCP, Unix sockets, TLS and UDP.

What lives here: `create_server`, `connect`, `Socket`, `Server`, `create_datagram`, `BlockList`, and telling addresses
from names; found late, so that a worker that only needs a listener (`_provider`) loads no more. What must not: HTTP, and
whoever deals out a cluster's connections: that one sets `_provider`.

The flow of bytes: transport → `_protocol` → 'data' listener, or `_incoming` → reader ║ `Socket.write` → transport.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._address import Address as Address
    from ._address import is_ip as is_ip
    from ._address import is_ipv4 as is_ipv4
    from ._address import is_ipv6 as is_ipv6
    from ._block_list import BlockList as BlockList
    from ._connect import connect as connect
    from ._datagram import Datagram as Datagram
    from ._datagram import Message as Message
    from ._datagram import create_datagram as create_datagram
    from ._server import Server as Server
    from ._server import create_server as create_server
    from ._socket import Socket as Socket
    from ._tls import create_secure_context as create_secure_context

_HOMES = {
    "Address": "_address",
    "BlockList": "_block_list",
    "Datagram": "_datagram",
    "Message": "_datagram",
    "Server": "_server",
    "Socket": "_socket",
    "connect": "_connect",
    "create_datagram": "_datagram",
    "create_secure_context": "_tls",
    "create_server": "_server",
    "is_ip": "_address",
    "is_ipv4": "_address",
    "is_ipv6": "_address",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
