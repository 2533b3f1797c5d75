"""Requests through the HTTP protocol, with a transport in memory.

What lives here: the whole way of a request from its bytes to the bytes of the reply, for each kind of application.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import Any

from multiloop.http import Response
from multiloop.http._connection import Connection
from multiloop.http._service import HttpService
from multiloop.http._target import Interface

from .scenarios import Scenario, Work

_HELLO = b"GET /hello?name=you HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"
_BODY = b"x" * 10_000
_POST = (
    b"POST /upload HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nContent-Type: application/octet-stream\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
)
_PIPELINED = 8


class Memory:
    """A transport that keeps nothing but the size of what is written."""

    def __init__(self) -> None:
        self.size_bytes = 0

    def write(self, data: bytes) -> None:
        self.size_bytes += len(data)

    def writelines(self, pieces: Any) -> None:
        for piece in pieces:
            self.size_bytes += len(piece)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 40000) if name == "peername" else default

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...


def connect(app: Any, interface: Interface) -> tuple[Connection, Memory]:
    """An open connection to an application. The service is not started: no lifespan, and no sweep that looks at clocks."""
    service = HttpService(app, interface, listeners=("127.0.0.1:8000",))
    connection, transport = Connection(service, service.listeners[0]), Memory()
    connection.connection_made(transport)
    return connection, transport


def through(app: Any, interface: Interface, data: bytes, *, turns: int, replies: int = 1) -> Scenario:
    """The scenario of feeding `data`; the loop has `turns` turns for what the application does."""

    async def prepare(closing: ExitStack) -> Work:
        connection, transport = connect(app, interface)
        feed = connection.data_received

        async def work(count: int) -> None:
            before = transport.size_bytes
            for _ in range(count):
                feed(data)
                for _ in range(turns):
                    await asyncio.sleep(0)
            sent = transport.size_bytes - before
            if sent < 50 * count * replies:
                raise RuntimeError(f"{count} requests were answered with {sent} bytes")

        return work

    return prepare


def hello(request: Any) -> str:
    return "Hello, World!"


def with_headers(request: Any) -> Response:
    fields = {"content-type": "text/html", "cache-control": "no-store", "x-request": "7", "vary": "accept"}
    return Response(b"Hello, World!", 200, fields)


async def as_json(request: Any) -> dict[str, str]:
    return {"hello": request.query.get("name", "world")}


def node_face(request: Any, response: Any) -> None:
    response.set_header("content-type", "text/plain")
    response.end(b"Hello, World!")


_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/plain"), (b"content-length", b"13")],
}
_END = {"type": "http.response.body", "body": b"Hello, World!"}


async def asgi_hello(scope: Any, receive: Any, send: Any) -> None:
    await send(_START)
    await send(_END)


async def asgi_upload(scope: Any, receive: Any, send: Any) -> None:
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message["body"])
        more = message["more_body"]
    assert size == len(_BODY)
    await send(_START)
    await send(_END)


ALL: dict[str, tuple[Scenario, int]] = {
    "asgi-hello": (through(asgi_hello, Interface.ASGI, _HELLO, turns=1), 200),
    "asgi-upload": (through(asgi_upload, Interface.ASGI, _POST, turns=1), 100),
    "native-hello": (through(hello, Interface.HANDLER, _HELLO, turns=0), 300),
    "native-headers": (through(with_headers, Interface.HANDLER, _HELLO, turns=0), 200),
    "native-json-async": (through(as_json, Interface.HANDLER, _HELLO, turns=1), 200),
    "node-face": (through(node_face, Interface.NODE, _HELLO, turns=1), 200),
    "pipelined": (
        through(hello, Interface.HANDLER, _HELLO * _PIPELINED, turns=1, replies=_PIPELINED), 60,
    ),
}  # fmt: skip
