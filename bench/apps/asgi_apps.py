"""ASGI applications without a framework: what is measured is the server."""

from __future__ import annotations

import asyncio
from typing import Any

Scope = dict[str, Any]


async def lifespan(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


def fixed(body: bytes) -> Any:
    """An application that answers everything with this body."""
    start = {
        "type": "http.response.start",
        "status": 200,
        "headers": [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())],
    }
    end = {"type": "http.response.body", "body": body}

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        await send(start)
        await send(end)

    return app


hello = fixed(b"Hello, World!")
reply_10k = fixed(b"x" * 10_000)
reply_1m = fixed(b"x" * 1_000_000)

_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/plain"), (b"content-length", b"13")],
}
_END = {"type": "http.response.body", "body": b"Hello, World!"}


async def wait_10ms(scope: Scope, receive: Any, send: Any) -> None:
    """Waits as a handler does that asks somebody else."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    await asyncio.sleep(0.010)
    await send(_START)
    await send(_END)


async def upload(scope: Scope, receive: Any, send: Any) -> None:
    """Reads the whole body and answers with its length."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    body = str(size).encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def pid(scope: Scope, receive: Any, send: Any) -> None:
    """Says which process answers."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    import os

    body = str(os.getpid()).encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


_members: set[Any] = set()


async def _accept(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})


async def echo(scope: Scope, receive: Any, send: Any) -> None:
    """A WebSocket that sends everything back."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    await _accept(receive, send)
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


async def broadcast(scope: Scope, receive: Any, send: Any) -> None:
    """A WebSocket that sends everything to everybody."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    await _accept(receive, send)
    _members.add(send)
    try:
        while (message := await receive())["type"] == "websocket.receive":
            out = {"type": "websocket.send", "text": message["text"]}
            for member in list(_members):
                await member(out)
    finally:
        _members.discard(send)
