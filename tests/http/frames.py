"""WebSocket frames by hand: a client that can send what no library would."""

from __future__ import annotations

import random
import struct
import zlib
from typing import Any, NamedTuple

from multiloop.http._service import HttpService

from .harness import Client

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 1.3


class Frame(NamedTuple):
    opcode: int
    data: bytes
    fin: bool
    rsv1: bool


_keys = random.Random(1)  # the same frames in every run: they are part of test names


def frame(opcode: int, data: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bool = True) -> bytes:
    """One frame of a client."""
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    bit = 0x80 if mask else 0
    if len(data) < 126:
        head += bytes([bit | len(data)])
    elif len(data) < 65536:
        head += struct.pack("!BH", bit | 126, len(data))
    else:
        head += struct.pack("!BQ", bit | 127, len(data))
    if not mask:
        return head + data
    key = _keys.randbytes(4)
    return (
        head + key + bytes(byte ^ key[i % 4] for i, byte in enumerate(data))
        if len(data) < 4096
        else (head + b"\0\0\0\0" + data)
    )


def close(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, struct.pack("!H", code) + reason)


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-12)
    return (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


def request(
    path: str = "/", fields: str = "", *, key: str = KEY, version: str = "13", protocol: str = "websocket"
) -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: a\r\nUpgrade: {protocol}\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: {version}\r\n{fields}\r\n"
    ).encode("latin-1")


class WebSocketClient(Client):
    """Speaks frames."""

    async def open(self, path: str = "/", fields: str = "", **how: Any) -> dict[str, str]:
        await self.send(request(path, fields, **how))
        status, headers = await self.head()
        assert status == 101, (status, headers)
        assert headers["sec-websocket-accept"] == ACCEPT
        return headers

    async def frame(self) -> Frame:
        first, second = await self.exactly(2)
        assert not second & 0x80, "a server's frame is masked"
        length = second & 127
        if length == 126:
            (length,) = struct.unpack("!H", await self.exactly(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", await self.exactly(8))
        return Frame(first & 15, await self.exactly(length), bool(first & 0x80), bool(first & 0x40))

    async def closed(self) -> tuple[int, bytes]:
        """The code and reason of the Close that comes next, and nothing behind it."""
        found = await self.frame()
        while found.opcode != CLOSE:
            found = await self.frame()
        assert await self.rest() == b""
        if not found.data:
            return 1005, b""
        return struct.unpack("!H", found.data[:2])[0], found.data[2:]


async def opened(service: HttpService, path: str = "/", fields: str = "") -> WebSocketClient:
    client = WebSocketClient(service)
    await client.open(path, fields)
    return client
