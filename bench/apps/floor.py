"""The floor: a fixed reply on a bare uvloop protocol, which looks at nothing of the request. `python floor.py PORT`"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import uvloop

REPLY = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 13\r\n\r\nHello, World!"


class Fixed(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(REPLY)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Fixed, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


uvloop.run(main())
