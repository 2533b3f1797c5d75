"""Clients that are cut at random places: nothing leaks, whatever kind of application was answering."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import socket
from typing import Any

import pytest

from multiloop.http._service import HttpService
from tests.support import open_descriptors

from .frames import BINARY, CONT, PING, TEXT, close, deflated, frame, request
from .harness import Client, answer, eventually, run, service_of

POST = b"POST /post HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000
CHUNKS = (
    b"POST /chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + b"3e8\r\n%b\r\n" % (b"y" * 1000) * 50
)
EXPECT = b"POST /post HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n0123456789"
GETS = b"".join(b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n" % path for path in (b"small", b"big", b"stream", b"small"))
HTTP = (GETS, POST + GETS, CHUNKS + b"0\r\n\r\n" + GETS, EXPECT + GETS)
SESSION = (
    request("/", "Sec-WebSocket-Extensions: permessage-deflate\r\n")
    + frame(TEXT, b"text" * 100)
    + frame(BINARY, deflated(b"packed" * 1000), rsv=4)
    + frame(TEXT, b"part", fin=False)
    + frame(PING, b"between")
    + frame(CONT, b"s")
    + frame(BINARY, b"b" * 70_000)
    + close(1000)
)
REFUSED = request("/", "Sec-WebSocket-Protocol: caf\xe9\r\n") + request("/deny")


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        raise RuntimeError("no lifespan here")
    if scope["type"] == "websocket":
        await receive()
        if scope["path"] == "/deny":
            await send({"type": "websocket.close"})
            return
        await asyncio.sleep(0)
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] != "websocket.disconnect":
            await send({**message, "type": "websocket.send"})
        return
    body = b""
    while (event := await receive())["type"] == "http.request":
        body += event["body"]
        if not event["more_body"]:
            break
    else:
        return
    if scope["path"] == "/big":
        await answer(send, b"b" * 1_000_000)
    elif scope["path"] == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(20):
            await send({"type": "http.response.body", "body": b"s" * 20_000, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    else:
        await answer(send, b"%d" % len(body))


def wsgi(environ: Any, start_response: Any) -> Any:
    size = len(environ["wsgi.input"].read())
    start_response("200 OK", [])
    if environ["PATH_INFO"] == "/big":
        return [b"b" * 1_000_000]
    if environ["PATH_INFO"] == "/stream":
        return (b"s" * 20_000 for _ in range(20))
    return [b"%d" % size]


async def handler(request: Any) -> Any:
    size = len(await request.body())
    if request.path == "/big":
        return b"b" * 1_000_000
    if request.path == "/stream":
        return (b"s" * 20_000 for _ in range(20))
    return str(size)


async def node(request: Any, response: Any) -> None:
    size = len(await request.body())
    if request.path == "/big":
        response.end(b"b" * 1_000_000)
    elif request.path == "/stream":
        for _ in range(20):
            if not response.write(b"s" * 20_000):
                await response.drain()
        response.end()
    else:
        response.end(str(size))


async def cut(service: HttpService, sent: bytes, dice: random.Random) -> None:
    client = Client(service, tcp=True)
    end = dice.randrange(len(sent) + 1)
    middle = dice.randrange(end + 1)
    try:
        await client.send(sent[:middle])
        if dice.random() < 0.5:
            await asyncio.sleep(dice.random() * 0.01)
        await client.send(sent[middle:end])
        if dice.random() < 0.5:
            reading = asyncio.ensure_future(client.more())
            await asyncio.wait([reading], timeout=dice.random() * 0.02)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
    except ConnectionError:
        pass
    how = dice.random()
    if how < 0.4:
        client.reset()
    elif how < 0.8:
        client.close()
    else:
        with contextlib.suppress(OSError):  # it was cut from the other side
            client.sock.shutdown(socket.SHUT_WR)
            await client.rest()
        client.close()


@pytest.mark.parametrize(
    ("app", "sent"),
    [(asgi, (*HTTP, SESSION, SESSION, SESSION, REFUSED)), (wsgi, HTTP), (handler, HTTP), (node, HTTP)],
    ids=["asgi", "wsgi", "handler", "node"],
)
@pytest.mark.parametrize("count", [150, pytest.param(3000, marks=pytest.mark.slow)])
def test_random_cuts_leave_nothing_behind(app: Any, sent: tuple[bytes, ...], count: int) -> None:
    dice = random.Random(count)

    async def main() -> None:
        async with service_of(app) as service:
            await asyncio.gather(*(cut(service, dice.choice(sent), dice) for _ in range(10)))
            await eventually(lambda: not service.active and not service.connections)
            gc.collect()
            tasks, descriptors = len(asyncio.all_tasks()), len(open_descriptors())
            for _ in range(count // 10):
                await asyncio.gather(*(cut(service, dice.choice(sent), dice) for _ in range(10)))
            await eventually(lambda: not service.active and not service.connections)
            await eventually(lambda: len(asyncio.all_tasks()) <= tasks)
            assert service.sessions == 0
            gc.collect()
            assert len(open_descriptors()) == descriptors
            assert (await Client(service).get("/small")).status == 200

    run(main)
