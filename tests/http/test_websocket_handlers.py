"""WebSocket for handlers of one's own: `create_server(handler, websocket=...)`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from multiloop import http
from multiloop.errors import UsageError
from multiloop.http._config import HttpConfig
from multiloop.http._service import HttpService
from multiloop.http._target import Interface

from .frames import CLOSE, TEXT, WebSocketClient, close, frame, request
from .harness import Client, eventually, run


class Serving:
    """A service of a handler that says "plain" and a WebSocket handler."""

    def __init__(self, websocket: Any) -> None:
        self.websocket = websocket

    async def __aenter__(self) -> HttpService:
        self.service = HttpService(
            lambda request: "plain",
            Interface.HANDLER,
            HttpConfig(),
            listeners=("127.0.0.1:80",),
            websocket=self.websocket,
        )
        await self.service.start()
        return self.service

    async def __aexit__(self, *exc: object) -> None:
        self.service.begin_drain()
        self.service.close_now()
        await self.service.drained()
        await self.service.stop()
        await eventually(lambda: self.service.active == 0)


def test_a_handler_iterates_over_messages_and_sends() -> None:
    async def main() -> None:
        from websockets.asyncio.client import connect

        ended: list[Any] = []

        async def echo(socket: http.WebSocket) -> None:
            async for message in socket:
                await socket.send(message)
            ended.append((socket.closed, socket.close_code, socket.close_reason))

        server = http.create_server(lambda request: "plain", websocket=echo)
        async with await server.listen(0):
            async with connect(f"ws://127.0.0.1:{server.address[1]}/chat") as session:
                for message in ("text", b"bytes", "é" * 50_000):
                    await session.send(message)
                    assert await session.recv() == message
                await session.close(4000, "done")
            await eventually(lambda: ended == [(True, 4000, "done")])

    run(main)


def test_the_handler_sees_the_request_and_picks_a_subprotocol() -> None:
    seen: list[Any] = []

    async def handler(socket: http.WebSocket) -> None:
        seen.append((socket.request.path, socket.request.query, socket.request.headers["origin"], socket.subprotocols))
        assert not socket.closed
        assert socket.close_code is None
        socket.accept("b", {"X-Own": "1"})
        with pytest.raises(UsageError):
            socket.accept()
        with pytest.raises(UsageError):
            socket.refuse()
        await socket.send(socket.subprotocol or "none")

    async def main() -> None:
        async with Serving(handler) as service:
            client = WebSocketClient(service)
            headers = await client.open("/caf%C3%A9?q=1", "Origin: http://a\r\nSec-WebSocket-Protocol: a, b\r\n")
            assert (headers["sec-websocket-protocol"], headers["x-own"]) == ("b", "1")
            assert (await client.frame()).data == b"b"
            assert await client.closed() == (1000, b"")
            assert (await Client(service).get()).body == b"plain"

    run(main)
    assert seen == [("/café", {"q": "1"}, "http://a", ["a", "b"])]


@pytest.mark.parametrize(("how", "status"), [("refuse", 401), ("close", 403), ("return", 403), ("raise", 500)])
def test_a_handler_may_refuse(how: str, status: int) -> None:
    async def handler(socket: http.WebSocket) -> None:
        if how == "refuse":
            socket.refuse(401)
            socket.refuse(402)  # nothing more to refuse
            with pytest.raises(http.WebSocketClosed):
                await socket.send("x")
        elif how == "close":
            socket.close()
        elif how == "raise":
            raise ValueError("from the handler")

    async def main() -> None:
        async with Serving(handler) as service:
            client = WebSocketClient(service)
            await client.send(request())
            assert (await client.reply()).status == status
            assert await client.rest() == b""

    run(main)


def test_a_handler_that_raises_closes_with_1011_and_the_end_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(socket: http.WebSocket) -> None:
        await socket.send("open")
        if socket.request.path == "/raise":
            raise ValueError("from the handler")
        while True:
            await socket.receive()

    async def main() -> None:
        async with Serving(handler) as service:
            client = WebSocketClient(service)
            await client.open("/raise")
            assert (await client.closed())[0] == 1011
            assert len(caplog.records) == 1
            client = WebSocketClient(service)
            await client.open("/receive")
            await client.send(frame(TEXT, b"x") + close(1001))
            assert (await client.closed())[0] == 1001
            await eventually(lambda: not service.sessions)

    run(main)
    assert len(caplog.records) == 1


def test_a_client_that_left_ends_the_iteration_and_send_raises() -> None:
    seen: list[Any] = []

    async def handler(socket: http.WebSocket) -> None:
        async for message in socket:
            seen.append(message)
        try:
            await socket.send("x")
        except ConnectionError as error:
            seen.append(error)
        socket.close()
        await asyncio.sleep(0.01)
        seen.append("not cancelled")

    async def main() -> None:
        async with Serving(handler) as service:
            client = WebSocketClient(service, tcp=True)
            await client.send(request() + frame(TEXT, b"early"))
            await client.head()
            await eventually(lambda: seen)
            client.reset()
            await eventually(lambda: len(seen) == 3)

    run(main)
    assert seen[0] == "early"
    assert isinstance(seen[1], http.WebSocketClosed)
    assert seen[1].code == 1006


def test_draining_closes_with_1012() -> None:
    async def handler(socket: http.WebSocket) -> None:
        socket.accept()
        async for _ in socket:
            pass
        assert socket.close_code == 1012

    async def main() -> None:
        async with Serving(handler) as service:
            client = WebSocketClient(service)
            await client.open()
            service.begin_drain()
            found = await client.frame()
            assert (found.opcode, found.data[:2]) == (CLOSE, b"\x03\xf4")

    run(main)


def test_what_is_no_handler_of_websockets_is_refused_at_once() -> None:
    with pytest.raises(UsageError):
        http.create_server(lambda request: "", websocket=lambda socket: None)  # type: ignore[arg-type, return-value]
