"""Native handlers: what they may return, Node's face, failures, cancellation, and servers in one's own program."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from typing import Any

import pytest

import multiloop
from multiloop import http
from multiloop.errors import ConfigError, UsageError
from multiloop.http import Request, Response

from .harness import Client, eventually, run, service_of


async def numbers() -> Any:
    for n in range(3):
        await asyncio.sleep(0)
        yield f"{n}\n"


@pytest.mark.parametrize(
    ("returned", "status", "kind", "body"),
    [
        ("héllo", 200, "text/plain; charset=utf-8", "héllo".encode()),
        (b"\x00\xff", 200, "application/octet-stream", b"\x00\xff"),
        ({"a": [1, "é"]}, 200, "application/json", '{"a":[1,"é"]}'.encode()),
        ([1, 2], 200, "application/json", b"[1,2]"),
        (None, 204, None, b""),
        ("", 200, "text/plain; charset=utf-8", b""),
        (Response("no", 404, {"X-Why": "gone"}), 404, "text/plain; charset=utf-8", b"no"),
        (Response(b"<p>", headers=[("content-type", "text/html")]), 200, "text/html", b"<p>"),
        (Response(None, 304), 304, None, b""),
        (Response(iter(["a", b"b"]), 201), 201, None, b"ab"),
    ],
)
@pytest.mark.parametrize("is_async", [False, True])
def test_what_a_handler_returns_is_the_reply(
    returned: Any, status: int, kind: str | None, body: bytes, is_async: bool
) -> None:
    def make() -> Any:
        if isinstance(returned, Response) and not isinstance(returned.body, str | bytes | None):
            return Response(iter(["a", b"b"]), 201)
        return returned

    async def later(request: Request) -> Any:
        await asyncio.sleep(0)
        return make()

    async def main() -> None:
        async with service_of(later if is_async else lambda request: make()) as service:
            client = Client(service)
            for _ in range(2):  # the connection goes on
                reply = await client.get()
                assert (reply.status, reply.headers.get("content-type"), reply.body) == (status, kind, body)
            head = await client.get(method="HEAD")
            assert (head.status, head.body) == (status, b"")

    run(main)


def test_an_async_generator_streams() -> None:
    async def main() -> None:
        async with service_of(lambda request: numbers()) as service:
            reply = await Client(service).get()
            assert reply.headers["transfer-encoding"] == "chunked"
            assert reply.body == b"0\n1\n2\n"

    run(main)


def test_a_request_tells_all_that_was_sent() -> None:
    async def handler(request: Request) -> Any:
        return {
            "method": request.method,
            "path": request.path,
            "query": request.query,
            "url": request.url,
            "type": request.headers["Content-Type"],
            "missing": request.headers.get("x-none"),
            "twice": request.headers["x-twice"],
            "all": request.headers.get_all("X-Twice"),
            "json": await request.json(),
            "again": (await request.text()),
            "trailers": dict(request.trailers),
        }

    async def main() -> None:
        async with service_of(handler) as service:
            client = Client(service)
            await client.send(
                b"PUT /a%20b?x=1&y=%20 HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nX-Twice: 1\r\nX-Twice: 2\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n3\r\n[1,\r\n3\r\n2] \r\n0\r\nX-Sum: 9\r\n\r\n"
            )
            assert json.loads((await client.reply()).body) == {
                "method": "PUT",
                "path": "/a b",
                "query": {"x": "1", "y": " "},
                "url": "/a%20b?x=1&y=%20",
                "type": "application/json",
                "missing": None,
                "twice": "1, 2",
                "all": ["1", "2"],
                "json": [1, 2],
                "again": "[1,2] ",
                "trailers": {"x-sum": "9"},
            }

    run(main)


def test_nodes_face_writes_now_or_from_a_callback() -> None:
    events: list[str] = []

    @http.handler
    def handler(request: Any, response: Any) -> None:
        response.on("finish", lambda: events.append("finish"))
        response.on("close", lambda: events.append("close"))
        response.set_header("X-List", ["1", "2"])
        if request.path == "/later":
            multiloop.timers.set_timeout(lambda: response.end("later"), 0.01)
        else:
            response.write_head(201, {"content-type": "text/plain"})
            response.write("a")
            assert response.headers_sent
            response.end("b")
            assert response.writable_ended

    async def main() -> None:
        async with service_of(handler) as service:
            client = Client(service)
            await client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            said = await client.rest()
            assert b"X-List: 1\r\nX-List: 2\r\n" in said
            assert said.startswith(b"HTTP/1.1 201 ")
            assert said.endswith(b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n")
            assert (await Client(service).get("/later")).body == b"later"
            assert events == ["finish", "close"] * 2

    run(main)


def test_a_handler_that_raises_gives_a_logged_500(caplog: pytest.LogCaptureFixture) -> None:
    def handler(request: Request) -> Any:
        raise LookupError("no luck")

    async def main() -> None:
        async with service_of(handler) as service:
            assert (await Client(service).get()).status == 500

    with caplog.at_level(logging.ERROR, "multiloop.http"):
        run(main)
    assert "no luck" in caplog.text


@pytest.mark.parametrize(
    "bad", [object(), {"a": object()}, Response("x", 99), Response("x", headers={"a": "b\r\nc: d"})]
)
def test_a_reply_that_cannot_be_sent_is_a_500(bad: Any) -> None:
    async def main() -> None:
        async with service_of(lambda request: bad) as service:
            reply = await Client(service).get()
            assert reply.status == 500
            assert "c" not in reply.headers

    run(main)


def test_an_async_handler_is_cancelled_when_its_client_resets() -> None:
    ended: list[str] = []

    async def handler(request: Request) -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        return "never"

    async def main() -> None:
        async with service_of(handler) as service:
            client = Client(service, tcp=True)
            await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await eventually(lambda: service.active)
            client.reset()
            await eventually(lambda: ended == ["cancelled"])

    run(main)


def test_a_stream_to_a_client_that_left_is_closed() -> None:
    closed = asyncio.Event()

    async def endless(request: Request) -> Any:
        async def pieces() -> Any:
            try:
                while True:
                    yield b"x" * 10_000
                    await asyncio.sleep(0)
            finally:
                closed.set()

        return pieces()

    async def main() -> None:
        async with service_of(endless) as service:
            client = Client(service, tcp=True)
            await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await client.more()
            client.reset()
            await asyncio.wait_for(closed.wait(), 10)

    run(main)


def test_a_server_keeps_the_program_until_it_is_closed() -> None:
    said: list[Any] = []

    def main() -> None:
        server = http.create_server(lambda request: "hello")
        server.on("listening", lambda: said.append("listening"))
        server.on("close", lambda: said.append("close"))

        async def use() -> None:
            host, port = server.address
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            said.append((await reader.readuntil(b"hello"))[-5:])
            server.close()
            assert await reader.read() == b""
            writer.close()

        server.listen(0, callback=lambda error, _: said.append(error) or use())

    multiloop.run(main)
    assert said == ["listening", None, b"hello", "close"]


def test_a_port_in_use_names_the_address() -> None:
    async def main() -> None:
        async with await http.create_server(lambda request: "").listen(0) as first:
            host, port = first.address
            with pytest.raises(OSError, match=re.escape(f"{host}:{port}")):
                await http.create_server(lambda request: "").listen(port)
            with pytest.raises(UsageError, match="listens already"):
                await first.listen(0)

    run(main)


def test_what_is_no_handler_is_refused_in_one_line() -> None:
    async def asgi(scope: Any, receive: Any, send: Any) -> None: ...

    with pytest.raises(UsageError, match=r"http\.serve"):
        http.create_server(asgi)
    for wrong in (42, lambda: "", lambda a, b, c, d: ""):
        with pytest.raises(ConfigError) as caught:
            http.create_server(wrong)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)


def test_serve_runs_an_application_until_it_is_cancelled() -> None:
    ended: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                event = await receive()
                await send({"type": event["type"] + ".complete"})
                if event["type"] == "lifespan.shutdown":
                    ended.append("shutdown")
                    return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["path"].encode()})

    async def main(path: str) -> None:
        serving = asyncio.ensure_future(http.serve(app, path=path))
        async with asyncio.timeout(10):
            while True:
                try:
                    reader, writer = await asyncio.open_unix_connection(path)
                    break
                except OSError:
                    await asyncio.sleep(0.005)
        writer.write(b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).endswith(b"/x")
        writer.close()
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving

    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        multiloop.run(main, f"{folder}/s.sock")
    assert ended == ["shutdown"]
