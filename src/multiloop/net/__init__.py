"""net: TCP, Unix sockets, TLS and UDP.

What lives here: `create_server`, `connect`, `Socket`, `Server`, `create_datagram`, `BlockList`, and telling addresses
from names. What must not: HTTP, and whoever deals out a cluster's connections: that one sets `_provider`.

The flow of bytes: transport → `_protocol` → 'data' listener, or `_incoming` → reader ║ `Socket.write` → transport.
"""

from __future__ import annotations

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
