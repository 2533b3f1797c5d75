"""FastAPI, Starlette, Django and Flask through the server, with httpx, curl and websockets as clients."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from multiloop import http
from multiloop.http._server import Server
from multiloop.http._target import detect_interface

from . import fastapi_site
from .fastapi_site import make_fastapi
from .harness import eventually, run

curl_only = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@contextlib.asynccontextmanager
async def served(app: Any, interface: str = "auto", tls: Any = None, **options: Any) -> AsyncIterator[str]:
    """Serve an application on a port of its own; gives its address."""
    config = replace(http.HttpConfig(), **options)
    server = Server(app, detect_interface(app, interface), config, tls)
    await server.listen(0)
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.address[1]}"
    finally:
        await server.close(grace=5)


async def curl(*args: str, data: bytes | None = None) -> bytes:
    """Run curl off the loop; fails if it does."""

    def call() -> bytes:
        return subprocess.run(["curl", "-sS", *args], input=data, check=True, capture_output=True, timeout=20).stdout

    return await asyncio.to_thread(call)


# --- FastAPI and Starlette ----------------------------------------------------------------------------------------
def test_fastapi_with_httpx() -> None:
    seen: list[Any] = []

    async def main() -> None:
        async with served(make_fastapi(seen)) as url, httpx.AsyncClient(base_url=url) as client:
            assert seen == ["startup"]
            reply = await client.get("/hello")
            assert (reply.json(), reply.headers["x-tag"]) == ({"hello": "world"}, "tagged")
            assert (await client.get("/sync/7", params={"q": "é &"})).json() == {"number": 7, "q": "é &"}
            assert (await client.get("/sync/x")).status_code == 422
            assert (await client.get("/state")).json() == {"answer": 42, "value": "resource"}
            assert (await client.post("/items", json={"a": [1, "é"]})).json() == {"a": [1, "é"]}
            assert (await client.post("/items", content=b"{")).status_code == 422
            assert (await client.get("/nowhere")).status_code == 404
            assert (await client.delete("/hello")).status_code == 405
            assert (await client.get("/failing")).status_code == 500
            assert (await client.get("/openapi.json")).json()["info"]["title"] == "FastAPI"
            assert (await client.get("/file")).content == Path(fastapi_site.__file__).read_bytes()
            replies = await asyncio.gather(*(client.get(f"/sync/{number}") for number in range(50)))
            assert [reply.json()["number"] for reply in replies] == list(range(50))
        assert seen[-1] == "shutdown"
        assert seen.count("shutdown") == 1

    run(main)


def test_fastapi_streams_both_ways() -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield b"x" * 100_000

    async def main() -> None:
        async with served(make_fastapi([])) as url, httpx.AsyncClient(base_url=url) as client:
            assert (await client.post("/raw", content=body())).json()["count"] == 5_000_000
            reply = (await client.post("/raw", content=b"y" * 3_000_000)).json()
            assert reply["count"] == 3_000_000
            assert reply["pieces"] > 3
            async with client.stream("GET", "/stream") as stream:
                lines = [line async for line in stream.aiter_lines()]
            assert lines == [str(number) for number in range(100)]

    run(main)


def test_fastapi_learns_that_a_stream_s_client_left_and_finishes_background_work() -> None:
    seen: list[Any] = []

    async def main() -> None:
        async with served(make_fastapi(seen)) as url:
            async with httpx.AsyncClient(base_url=url) as client, client.stream("GET", "/endless") as stream:
                async for _ in stream.aiter_bytes():
                    break
            await eventually(lambda: "left" in seen)
            async with httpx.AsyncClient(base_url=url) as client:
                assert (await client.get("/background")).json() == "begun"
            await eventually(lambda: "worked" in seen)

    run(main)


def test_fastapi_with_websockets() -> None:
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed, InvalidStatus

    seen: list[Any] = []

    async def main() -> None:
        async with served(make_fastapi(seen)) as url:
            ws = url.replace("http", "ws")
            async with connect(ws + "/echo", subprotocols=["chat", "other"]) as session:  # type: ignore[list-item]
                assert session.subprotocol == "chat"
                for text in ("hello", "é" * 10_000, "", "x" * 1_000_000):
                    await session.send(text)
                    assert await session.recv() == text
                await (await session.ping())
                await session.send(["in ", "three ", "parts"])
                assert await session.recv() == "in three parts"
                await session.close(4005, "enough")
            await eventually(lambda: ("disconnect", 4005, "enough") in seen)
            async with connect(ws + "/count", compression=None) as session:
                await session.send(os.urandom(2_000_000))
                assert json.loads(await session.recv()) == {"bytes": 2_000_000}
            with pytest.raises(InvalidStatus) as refused:
                await connect(ws + "/refused")
            assert refused.value.response.status_code == 403
            with pytest.raises(InvalidStatus) as missing:
                await connect(ws + "/nowhere")
            assert missing.value.response.status_code == 403
            async with connect(ws + "/echo", max_size=None) as session:
                await session.send("x" * (17 * 1024 * 1024))
                with pytest.raises(ConnectionClosed) as closed:
                    await session.recv()
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1009

    run(main)


def test_starlette_answers_early_hints_and_a_refused_handshake_of_its_own() -> None:
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Mount, Route, WebSocketRoute
    from starlette.websockets import WebSocket
    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidStatus

    async def where(request: Any) -> Any:
        return PlainTextResponse(str(request.url_for("where")) + " " + request.url.path)

    async def denied(session: WebSocket) -> None:
        await session.send_denial_response(PlainTextResponse("not here", status_code=451))

    app = Starlette(
        routes=[
            Route("/where", where, name="where"),
            Mount("/mounted", routes=[Route("/where", where)]),
            WebSocketRoute("/denied", denied),
        ]
    )

    async def main() -> None:
        async with served(app, root_path="/api") as url, httpx.AsyncClient(base_url=url) as client:
            assert (await client.get("/where")).text == f"{url}/api/where /api/where"
            assert (await client.get("/mounted/where")).status_code == 200
            with pytest.raises(InvalidStatus) as refused:
                await connect(url.replace("http", "ws") + "/denied")
            assert refused.value.response.status_code == 451
            assert bytes(refused.value.response.body or b"") == b"not here"

    run(main)


@curl_only
def test_fastapi_with_curl(tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(os.urandom(5_000_000))

    async def main() -> None:
        async with served(make_fastapi([])) as url:
            assert json.loads(await curl(url + "/hello")) == {"hello": "world"}
            assert b"200" in (await curl("-I", url + "/hello", "-o", "-", "-w", "%{http_code}", "-X", "GET"))
            reply = await curl("--data-binary", f"@{big}", url + "/raw")  # says Expect: 100-continue above 1 MB
            assert json.loads(reply)["count"] == 5_000_000
            reply = await curl("-T", "-", "-X", "POST", url + "/raw", data=b"x" * 100_000)
            assert json.loads(reply)["count"] == 100_000
            assert await curl("--http1.0", url + "/stream") == b"".join(b"%d\n" % number for number in range(100))
            many = await curl(*[f"{url}/sync/{number}" for number in range(20)])
            assert many.count(b'"number"') == 20

    run(main)


# --- Django -------------------------------------------------------------------------------------------------------
def django_app(interface: str) -> Any:
    from . import django_site  # noqa: F401 - sets Django up

    if interface == "asgi":
        from django.core.asgi import get_asgi_application

        return get_asgi_application()
    from django.core.wsgi import get_wsgi_application

    return get_wsgi_application()


@pytest.mark.parametrize("interface", ["asgi", "wsgi"])
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume synchronous iterators")  # Django's own files
def test_django_with_httpx(interface: str) -> None:
    app = django_app(interface)
    from . import django_site

    async def main() -> None:
        async with served(app, proxy_headers=("127.0.0.1",)) as url, httpx.AsyncClient(base_url=url) as client:
            assert (await client.get("/")).text == "hello"
            assert (await client.get("/async")).text == "hello from a coroutine"
            reply = await client.post(
                "/echo/caf%C3%A9?a=1&b=%C3%A9",
                data={"form": "field é"},
                headers={"cookie": "c=1; d=2", "x-forwarded-proto": "https"},
            )
            assert reply.json() == {
                "name": "café",
                "method": "POST",
                "query": {"a": "1", "b": "é"},
                "form": {"form": "field é"},
                "cookie": "1",
                "secure": False,  # Django asks its own setting
                "url": url.replace("http:", "https:") + "/echo/caf%C3%A9?a=1&b=%C3%A9",
            } | ({"secure": True} if reply.json()["secure"] else {})
            files = {"small": ("s.txt", b"x" * 10), "big": ("b.bin", os.urandom(1_000_000))}
            assert (await client.post("/upload", files=files)).json() == {
                "small": ["s.txt", 10],
                "big": ["b.bin", 1_000_000],
            }
            assert (await client.post("/raw", content=b"x" * 2_000_000)).text == "2000000"
            plain = {"accept-encoding": "identity"}  # Django packs each piece on its own, which httpx does not read
            assert (await client.get("/stream", headers=plain)).text == "0\n1\n2\n3\n4\n"
            assert (await client.get("/download")).content == Path(django_site.__file__).read_bytes()
            assert (await client.get("/nowhere")).status_code == 404
            assert (await client.get("/failing")).status_code == 500
            head = await client.head("/")
            assert (head.status_code, head.headers["content-length"]) == (200, "5")
            assert (await client.get("/echo/x", follow_redirects=False)).status_code == 200
            replies = await asyncio.gather(*(client.get("/") for _ in range(30)))
            assert {reply.text for reply in replies} == {"hello"}

    run(main)


def test_django_learns_that_a_stream_s_client_left() -> None:
    app = django_app("asgi")
    from . import django_site

    async def main() -> None:
        async with served(app) as url:
            async with httpx.AsyncClient(base_url=url) as client, client.stream("GET", "/endless") as stream:
                async for _ in stream.aiter_bytes():
                    break
            await eventually(lambda: django_site.left)

    run(main)


@curl_only
@pytest.mark.parametrize("interface", ["asgi", "wsgi"])
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume synchronous iterators")  # Django's own files
def test_django_with_curl(interface: str) -> None:
    async def main() -> None:
        async with served(django_app(interface)) as url:
            assert await curl(url + "/") == b"hello"
            packed = await curl("--compressed", url + "/download", "-D", "-")
            assert b"content-encoding: gzip" in packed.lower()
            assert packed.endswith(b'path("failing", failing),\n]\n')
            assert await curl("--data-binary", "@-", url + "/raw", data=b"x" * 3_000_000) == b"3000000"

    run(main)


# --- Flask --------------------------------------------------------------------------------------------------------
def make_flask(seen: list[Any]) -> Any:
    from flask import Flask, Response, jsonify, request, send_file, stream_with_context

    app = Flask(__name__)

    @app.get("/")
    def hello() -> str:
        return "hello"

    @app.route("/echo/<name>", methods=["GET", "POST", "PUT"])
    def echo(name: str) -> Any:
        return jsonify(
            name=name,
            method=request.method,
            args=request.args.to_dict(),
            form=request.form.to_dict(),
            address=request.remote_addr,
            url=request.url,
            agent=request.headers.get("x-agent"),
        )

    @app.post("/json")
    def give_back() -> Any:
        return jsonify(request.get_json())

    @app.post("/upload")
    def upload() -> Any:
        return jsonify({name: [file.filename, len(file.read())] for name, file in request.files.items()})

    @app.post("/raw")
    def raw() -> Any:
        count = 0
        while piece := request.stream.read(65536):
            count += len(piece)
        return str(count)

    @app.get("/stream")
    def stream() -> Any:
        def pieces() -> Iterator[str]:
            for number in range(5):
                yield f"{request.path} {number}\n"

        return Response(stream_with_context(pieces()), mimetype="text/plain")

    @app.get("/endless")
    def endless() -> Any:
        def pieces() -> Iterator[bytes]:
            try:
                while True:
                    yield b"x" * 10_000
            finally:
                seen.append("left")

        return Response(pieces())

    @app.get("/file")
    def file() -> Any:
        return send_file(__file__, conditional=True)

    @app.get("/failing")
    def failing() -> Any:
        raise ValueError("from a view")

    return app


def test_flask_with_httpx() -> None:
    seen: list[Any] = []

    async def main() -> None:
        async with served(make_flask(seen)) as url, httpx.AsyncClient(base_url=url) as client:
            assert (await client.get("/")).text == "hello"
            reply = await client.post("/echo/caf%C3%A9?a=%C3%A9", data={"b": "é"}, headers={"X-Agent": "me"})
            assert reply.json() == {
                "name": "café",
                "method": "POST",
                "args": {"a": "é"},
                "form": {"b": "é"},
                "address": "127.0.0.1",
                "url": url + "/echo/café?a=é",
                "agent": "me",
            }
            assert (await client.post("/json", json={"a": [1]})).json() == {"a": [1]}
            files = {"one": ("o.bin", os.urandom(500_000))}
            assert (await client.post("/upload", files=files)).json() == {"one": ["o.bin", 500_000]}
            assert (await client.get("/stream")).text == "".join(f"/stream {number}\n" for number in range(5))
            assert (await client.get("/file")).content == Path(__file__).read_bytes()
            part = await client.get("/file", headers={"range": "bytes=5-9"})
            assert (part.status_code, part.content) == (206, Path(__file__).read_bytes()[5:10])
            assert (await client.get("/failing")).status_code == 500
            assert (await client.get("/nowhere")).status_code == 404
            head = await client.head("/")
            assert (head.status_code, head.headers["content-length"], head.content) == (200, "5", b"")
            options = await client.options("/")
            assert "GET" in options.headers["allow"]
            replies = await asyncio.gather(*(client.get(f"/echo/{number}") for number in range(40)))
            assert [reply.json()["name"] for reply in replies] == [str(number) for number in range(40)]
            async with client.stream("GET", "/endless") as stream:
                async for _ in stream.aiter_bytes():
                    break
            await eventually(lambda: seen == ["left"])

    run(main)


@curl_only
def test_flask_with_curl() -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b"x" * 100_000

    async def main() -> None:
        async with served(make_flask([])) as url:
            assert await curl(url + "/") == b"hello"
            assert await curl("--data-binary", "@-", url + "/raw", data=b"x" * 5_000_000) == b"5000000"
            assert await curl("-T", "-", "-X", "POST", url + "/raw", data=b"x" * 300_000) == b"300000"
            assert await curl("-r", "0-3", url + "/file") == Path(__file__).read_bytes()[:4]
            async with httpx.AsyncClient(base_url=url) as client:
                assert (await client.post("/raw", content=body())).text == "3000000"

    run(main)


# --- TLS and Unix sockets -----------------------------------------------------------------------------------------
def test_frameworks_behind_tls(tmp_path: Path) -> None:
    trustme = pytest.importorskip("trustme")
    from websockets.asyncio.client import connect

    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "cert.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    tls = http.TlsConfig(cert=str(tmp_path / "cert.pem"))

    async def main() -> None:
        async with served(make_fastapi([]), tls=tls) as url:
            async with httpx.AsyncClient(base_url=url, verify=context) as client:
                assert (await client.get("/hello")).json() == {"hello": "world"}
                assert (await client.post("/raw", content=b"x" * 3_000_000)).json()["count"] == 3_000_000
                assert (await client.get("/file")).content == Path(fastapi_site.__file__).read_bytes()
            async with connect(url.replace("http", "ws") + "/echo", ssl=context) as session:
                await session.send("x" * 100_000)
                assert await session.recv() == "x" * 100_000
        async with served(make_flask([]), tls=tls) as url, httpx.AsyncClient(base_url=url, verify=context) as client:
            assert (await client.get("/echo/x")).json()["url"] == url + "/echo/x"
            assert (await client.get("/file")).content == Path(__file__).read_bytes()
        async with (
            served(http.static(tmp_path), tls=tls) as url,
            httpx.AsyncClient(base_url=url, verify=context) as client,
        ):
            (tmp_path / "big").write_bytes(os.urandom(1_000_000))
            assert (await client.get("/big")).content == (tmp_path / "big").read_bytes()

    run(main)


def test_tls_behind_a_proxy_header(tmp_path: Path) -> None:
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "cert.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    tls = http.TlsConfig(cert=str(tmp_path / "cert.pem"))

    def ask(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
            plain.sendall(b"PROXY TCP4 9.8.7.6 1.2.3.4 555 443\r\n")
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as secure:
                secure.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                found = b""
                while piece := secure.recv(65536):
                    found += piece
                return found

    async def main() -> None:
        async with served(lambda request: str(request.client), "handler", tls, proxy_protocol=True) as url:
            assert (await asyncio.to_thread(ask, int(url.rpartition(":")[2]))).endswith(b"('9.8.7.6', 555)")

    run(main)


def test_frameworks_on_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")

    async def main() -> None:
        for app in (make_fastapi([]), make_flask([])):
            server = Server(app, detect_interface(app), http.HttpConfig(), None)
            await server.listen(path=path)
            async with httpx.AsyncClient(
                transport=httpx.AsyncHTTPTransport(uds=path), base_url="http://unix"
            ) as client:
                assert (await client.get("/hello" if app.__class__.__name__ == "FastAPI" else "/")).status_code == 200
            await server.close()

    run(main)
