"""Echo on net, in each form in which it is written: `python echo_ours.py iterate|drain|read|listener PORT`"""

from __future__ import annotations

import sys

import multiloop
from multiloop import net


def listener(socket: net.Socket) -> None:
    socket.on("data", socket.write)


async def iterate(socket: net.Socket) -> None:
    async for chunk in socket:
        socket.write(chunk)


async def drain(socket: net.Socket) -> None:
    async for chunk in socket:
        socket.write(chunk)
        await socket.drain()


async def read(socket: net.Socket) -> None:
    while chunk := await socket.read():
        socket.write(chunk)


async def main() -> None:
    await net.create_server(FORMS[sys.argv[1]]).listen(int(sys.argv[2]))


FORMS = {"listener": listener, "iterate": iterate, "drain": drain, "read": read}
multiloop.run(main)
