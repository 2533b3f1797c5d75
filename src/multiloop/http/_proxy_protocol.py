"""The PROXY protocol (haproxy.org, versions 1 and 2): who the client is, said before the first byte of TLS or HTTP.

What lives here: `parse_proxy_header` (pure) and `read_proxy_header` (from a socket that has no transport yet, so that TLS
can follow). What must not: which listeners expect it (`_service`).

The header is read to its last byte and not one further; it has a size cap and the deadline of a first byte. Whoever can
connect can claim any address: such a listener must be reachable by the proxy alone.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"  # of version 2
_V1_MAX_BYTES: Final = 107
_V2_HEAD_BYTES: Final = 16
_V2_MAX_BYTES: Final = 16 + 4096  # addresses take at most 216; the rest are the proxy's own notes, which we skip
_FAMILIES: Final = {1: ("!4s4sHH", 4), 2: ("!16s16sHH", 16)}

Peer = tuple[str, int]


class BadProxyHeader(ValueError):
    """What came first is no PROXY header: the connection is closed, nobody may guess."""


class Header:
    """A parsed header: its length, and the client; `peer` None means that the socket's own address holds (LOCAL)."""

    __slots__ = ("length", "peer")

    def __init__(self, length: int, peer: Peer | None) -> None:
        self.length = length
        self.peer = peer


def parse_proxy_header(data: bytes) -> Header | int:
    """Read a header at the start of `data`; an int is how many bytes more are certain to belong to it.

    Raises BadProxyHeader.
    """
    if data[:6] == SIGNATURE[: min(6, len(data))]:
        return _parse_v2(data) if len(data) >= 6 else 6 - len(data)
    if data[:6] == b"PROXY "[: len(data)]:
        return _parse_v1(data) if len(data) >= 6 else 6 - len(data)
    raise BadProxyHeader("the connection does not begin with a PROXY header")


def _parse_v1(data: bytes) -> Header | int:
    end = data.find(b"\r\n", 0, _V1_MAX_BYTES)
    if end < 0:
        if len(data) >= _V1_MAX_BYTES:
            raise BadProxyHeader("the PROXY line has no end")
        return 1
    try:
        words = data[:end].decode("ascii").split(" ")
    except UnicodeDecodeError:
        raise BadProxyHeader("the PROXY line is not ASCII") from None
    if words[1] == "UNKNOWN":
        return Header(end + 2, None)
    if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
        raise BadProxyHeader("the PROXY line has the wrong words")
    kind = ipaddress.IPv4Address if words[1] == "TCP4" else ipaddress.IPv6Address
    try:
        source, _ = kind(words[2]), kind(words[3])
    except ValueError as error:
        raise BadProxyHeader(f"the PROXY line has a wrong address: {error}") from None
    ports = [int(word) if word.isascii() and word.isdigit() and len(word) <= 5 else -1 for word in words[4:]]
    if not all(0 <= port <= 65535 for port in ports):
        raise BadProxyHeader("the PROXY line has a wrong port")
    return Header(end + 2, (str(source), ports[0]))


def _parse_v2(data: bytes) -> Header | int:
    if data[:12] != SIGNATURE[: len(data)]:
        raise BadProxyHeader("the connection does not begin with a PROXY header")
    if len(data) < _V2_HEAD_BYTES:
        return _V2_HEAD_BYTES - len(data)
    version_command, family, length = data[12], data[13], int.from_bytes(data[14:16], "big")
    whole = _V2_HEAD_BYTES + length
    if version_command >> 4 != 2 or version_command & 15 > 1:
        raise BadProxyHeader("an unknown version or command of the PROXY protocol")
    if whole > _V2_MAX_BYTES:
        raise BadProxyHeader(f"a PROXY header of {whole} bytes")
    if len(data) < whole:
        return whole - len(data)
    form = _FAMILIES.get(family >> 4)
    if version_command & 15 == 0 or form is None:
        return Header(whole, None)  # LOCAL (a health check), or addresses that are not of the internet
    size = struct.calcsize(form[0])
    if length < size:
        raise BadProxyHeader("a PROXY header without its addresses")
    source, _, port, _ = struct.unpack(form[0], data[16 : 16 + size])
    return Header(whole, (str(ipaddress.ip_address(source)), port))


async def read_proxy_header(
    sock: socket.socket, prefix: bytes, timeout_s: float, on_first_byte: Callable[[], None] | None
) -> tuple[Peer | None, bytes]:
    """Read a header from a non-blocking socket; returns the client and what of `prefix` was behind the header.

    Raises BadProxyHeader, OSError, or TimeoutError.
    """
    loop = asyncio.get_running_loop()
    data = prefix
    async with asyncio.timeout(timeout_s):
        while True:
            found = parse_proxy_header(data)
            if isinstance(found, Header):
                return found.peer, data[found.length :]
            try:
                piece = _receive(sock, data, found)
            except BlockingIOError:
                await _readable(loop, sock)
                continue
            if not piece:
                raise ConnectionResetError("the connection ended inside its PROXY header")
            if on_first_byte is not None:
                on_first_byte()
                on_first_byte = None
            data += piece


def _receive(sock: socket.socket, data: bytes, certain_bytes: int) -> bytes:
    """Receive what belongs to the header and nothing behind it: that may be TLS, which is not ours to read."""
    if data[:6] != b"PROXY ":
        return sock.recv(certain_bytes)
    peeked = sock.recv(_V1_MAX_BYTES - len(data), socket.MSG_PEEK)
    end = (data[-1:] + peeked).find(b"\r\n")
    # Without the end in sight all of it is the header's, and taking it keeps the socket quiet until more comes.
    return sock.recv(len(peeked) if end < 0 else end + 2 - len(data[-1:]))


async def _readable(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    ready: asyncio.Future[None] = loop.create_future()

    def mark() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(sock, mark)
    try:
        await ready
    finally:
        loop.remove_reader(sock)
