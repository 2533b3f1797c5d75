"""Draining: idle connections find another owner, replies close theirs, the application is told, the lifespan ends once."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

from .harness import Client, answer, eventually, run, service_of


def make_app(go: asyncio.Event) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                event = await receive()
                await send({"type": event["type"] + ".complete"})
                if event["type"] == "lifespan.shutdown":
                    return
        if scope["path"] == "/wait":
            await go.wait()
        if scope["path"] == "/told":
            await scope["state"]["multiloop.draining"].wait()
        await answer(send, scope["path"].encode())

    return app


def test_an_idle_connection_is_given_back_and_served_by_another_service() -> None:
    async def main() -> None:
        app = make_app(asyncio.Event())
        async with service_of(app) as old, service_of(app) as new:
            client = Client(old, tcp=True)
            assert (await client.get("/1")).body == b"/1"

            def give_back(copy: socket.socket, listener: int) -> bool:
                new.adopt(socket.socket(fileno=os.dup(copy.fileno())), kept=True)
                copy.close()
                return True

            old.begin_drain(give_back)
            await asyncio.wait_for(old.drained(), 10)
            assert (await client.get("/2")).body == b"/2"  # the same connection, never closed
            assert (old.requests, new.requests) == (1, 1)

    run(main)


def test_a_request_under_way_is_finished_with_connection_close() -> None:
    async def main() -> None:
        go = asyncio.Event()
        async with service_of(make_app(go)) as service:
            client = Client(service)
            await client.send(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
            await eventually(lambda: service.active == 1)
            service.begin_drain()
            go.set()
            reply = await client.reply()
            assert (reply.body, reply.headers["connection"]) == (b"/wait", "close")
            assert await client.rest() == b""
            await asyncio.wait_for(service.drained(), 10)

    run(main)


def test_a_kept_connection_that_nobody_takes_may_still_ask_once() -> None:
    async def main() -> None:
        async with service_of(make_app(asyncio.Event())) as service:
            client = Client(service)
            await client.get("/1")
            service.begin_drain(lambda copy, listener: False)
            reply = await client.get("/2")
            assert (reply.body, reply.headers["connection"]) == (b"/2", "close")
            silent = Client(service)
            await eventually(lambda: service.connections)
            service.freeze()
            silent.close()

    run(main)


def test_the_application_is_told_that_draining_began() -> None:
    async def main() -> None:
        async with service_of(make_app(asyncio.Event())) as service:
            client = Client(service)
            await client.send(b"GET /told HTTP/1.1\r\nHost: a\r\n\r\n")
            await eventually(lambda: service.active == 1)
            service.begin_drain()
            assert (await client.reply()).body == b"/told"

    run(main)
