"""WebSockets through the native server: `python websockets_native.py echo|broadcast PORT`."""

from __future__ import annotations

import sys
from typing import Any

import multiloop
from multiloop import http

members: set[Any] = set()


def hello(request: Any) -> str:
    return "Hello, World!"


async def echo(socket: Any) -> None:
    async for message in socket:
        await socket.send(message)


async def broadcast(socket: Any) -> None:
    socket.accept()
    members.add(socket)
    try:
        async for message in socket:
            for member in list(members):
                await member.send(message)
    finally:
        members.discard(socket)


async def main() -> None:
    chat = {"echo": echo, "broadcast": broadcast}[sys.argv[1]]
    await http.create_server(hello, websocket=chat).listen(int(sys.argv[2]))


multiloop.run(main)
