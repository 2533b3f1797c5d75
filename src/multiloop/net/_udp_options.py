"""What a UDP socket can be told: making it, and multicast.

What lives here: the calls to the kernel, with addresses in their errors. What must not: the loop.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from ..dns._lookup import SocketAddress
from ..errors import UsageError
from ._address import readable


@dataclass(frozen=True, slots=True)
class DatagramOptions:
    """What `create_datagram` was told."""

    ipv6: bool = False
    reuse_address: bool = False
    reuse_port: bool = False
    ipv6_only: bool = False
    broadcast: bool = False

    @property
    def family(self) -> int:
        """The address family."""
        return socket.AF_INET6 if self.ipv6 else socket.AF_INET


def open_udp(options: DatagramOptions, where: SocketAddress) -> socket.socket:
    """Return a bound socket that does not block. Raises OSError with the address as its `filename`."""
    raw = socket.socket(options.family, socket.SOCK_DGRAM)
    try:
        raw.setblocking(False)
        if options.reuse_address:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if options.reuse_port:
            if not hasattr(socket, "SO_REUSEPORT"):
                raise UsageError("create_datagram(reuse_port=True): this system cannot share a port between sockets")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if options.ipv6:
            raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(options.ipv6_only))
        if options.broadcast:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        raw.bind(where)
    except OSError as error:
        raw.close()
        raise at(error, where) from None
    except BaseException:
        raw.close()
        raise
    return raw


def at(error: OSError, where: SocketAddress | None) -> OSError:
    """Return the error with the address in it."""
    name = "the connected peer" if where is None else readable((where[0], where[1]))
    return OSError(error.errno, error.strerror or str(error), name)


def membership(raw: socket.socket, group: str, interface: str | None, join: bool) -> None:
    """Join or leave a multicast group. Raises OSError with the group as its `filename`."""
    try:
        if raw.family == socket.AF_INET:
            option = socket.IP_ADD_MEMBERSHIP if join else socket.IP_DROP_MEMBERSHIP
            request = socket.inet_aton(group) + socket.inet_aton(interface or "0.0.0.0")
            raw.setsockopt(socket.IPPROTO_IP, option, request)
        else:
            option = socket.IPV6_JOIN_GROUP if join else socket.IPV6_LEAVE_GROUP
            index = socket.if_nametoindex(interface) if interface else 0
            request = socket.inet_pton(socket.AF_INET6, group) + struct.pack("@I", index)
            raw.setsockopt(socket.IPPROTO_IPV6, option, request)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), group) from None


def set_multicast_ttl(raw: socket.socket, hops: int) -> None:
    """Set how many hops a multicast datagram lives for."""
    if raw.family == socket.AF_INET:
        raw.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, hops)
    else:
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, hops)


def set_multicast_loopback(raw: socket.socket, on: bool) -> None:
    """Set whether one's own multicast datagrams come back."""
    if raw.family == socket.AF_INET:
        raw.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, int(on))
    else:
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, int(on))
