"""A service on the test's own loop, and a client that speaks bytes to it over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from typing import Any, NamedTuple

import multiloop
from multiloop.http._config import HttpConfig
from multiloop.http._service import HttpService
from multiloop.http._target import detect_interface

WAIT_S = 10.0


_open: list[Client] = []  # closed by service_of, whatever a test did


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """One connection to the service: `send` bytes, `reply` reads exactly one reply, `rest` reads until the end."""

    def __init__(self, service: HttpService, *, tcp: bool = False) -> None:
        if tcp:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                self.sock = socket.create_connection(listener.getsockname())
                theirs, _ = listener.accept()
        else:
            self.sock, theirs = socket.socketpair()
        self.sock.setblocking(False)
        theirs.setblocking(False)
        self.loop = asyncio.get_running_loop()
        self.buffer = b""
        _open.append(self)
        service.adopt(theirs)

    async def send(self, data: bytes) -> None:
        await asyncio.wait_for(self.loop.sock_sendall(self.sock, data), WAIT_S)

    async def more(self) -> bool:
        data = await asyncio.wait_for(self.loop.sock_recv(self.sock, 65536), WAIT_S)
        self.buffer += data
        return bool(data)

    async def until(self, end: bytes) -> bytes:
        while end not in self.buffer:
            if not await self.more():
                raise EOFError(f"closed before {end!r}: {self.buffer!r}")
        found, _, self.buffer = self.buffer.partition(end)
        return found

    async def exactly(self, count: int) -> bytes:
        while len(self.buffer) < count:
            if not await self.more():
                raise EOFError(f"closed before {count} bytes: {self.buffer!r}")
        found, self.buffer = self.buffer[:count], self.buffer[count:]
        return found

    async def head(self) -> tuple[int, dict[str, str]]:
        lines = (await self.until(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        return int(lines[0].split(" ")[1]), fields

    async def reply(self, method: str = "GET") -> Reply:
        status, fields = await self.head()
        if method == "HEAD" or status in (204, 304) or status < 200:
            return Reply(status, fields, b"")
        if "content-length" in fields:
            return Reply(status, fields, await self.exactly(int(fields["content-length"])))
        if fields.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(await self.until(b"\r\n"), 16):
                body += await self.exactly(size)
                assert await self.exactly(2) == b"\r\n"
            assert await self.exactly(2) == b"\r\n"
            return Reply(status, fields, body)
        return Reply(status, fields, await self.rest())

    async def rest(self) -> bytes:
        with contextlib.suppress(ConnectionResetError):
            while await self.more():
                pass
        data, self.buffer = self.buffer, b""
        return data

    async def get(self, path: str = "/", fields: str = "", method: str = "GET") -> Reply:
        await self.send(f"{method} {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n".encode("latin-1"))
        return await self.reply(method)

    def close(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.sock.close()


@contextlib.asynccontextmanager
async def service_of(app: Any, interface: str = "auto", **options: Any) -> AsyncIterator[HttpService]:
    """A started service; at the end it drains, stops, and must have settled every request."""
    config = replace(HttpConfig(), **options)
    service = HttpService(app, detect_interface(app, interface), config, listeners=("127.0.0.1:80",))
    await service.start()
    try:
        yield service
        for client in _open:
            client.close()
        _open.clear()
        service.begin_drain()
        await asyncio.wait_for(service.drained(), WAIT_S)
    finally:
        service.close_now()
        await service.stop()
    assert service.active == 0


def run(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run an async test on a loop of its own."""
    return multiloop.run(main)


async def eventually(condition: Callable[[], Any]) -> None:
    """Wait until something is true."""
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.005)


async def read_body(receive: Any) -> bytes:
    body = b""
    while True:
        event = await receive()
        assert event["type"] == "http.request", event
        body += event["body"]
        if not event["more_body"]:
            return body


async def answer(send: Any, body: bytes = b"ok", status: int = 200, headers: Any = ()) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})
