"""Echo without multiloop, on uvloop: `python echo_peers.py protocol|streams PORT`"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import uvloop


class Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


async def streams(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(1 << 16):
        writer.write(chunk)
        await writer.drain()


async def main() -> None:
    port = int(sys.argv[2])
    if sys.argv[1] == "streams":
        server: Any = await asyncio.start_server(streams, "127.0.0.1", port)
    else:
        server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", port)
    await server.serve_forever()


uvloop.run(main())
