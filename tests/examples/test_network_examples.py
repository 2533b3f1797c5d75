"""The TCP proxy, the crawler and the callback-style program do what they say."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.http_client.site import serve
from tests.support import environment, until

import multiloop
from multiloop import net

EXAMPLES = Path(__file__).parents[2] / "examples"


def _start(name: str, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *options],
        env=environment(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _ran(name: str, *options: str) -> tuple[int, str, str]:
    child = _start(name, *options)
    try:
        out, err = child.communicate(timeout=30)
    finally:
        child.kill()
    return child.returncode, out, err


# --- the proxy --------------------------------------------------------------------------------------------------------
@asynccontextmanager
async def _proxy(port: int, *options: str) -> AsyncIterator[tuple[int, subprocess.Popen[str]]]:
    child = _start("tcp_proxy.py", "--listen", "127.0.0.1:0", "--to", f"127.0.0.1:{port}", *options)
    try:
        assert child.stdout is not None
        line = await multiloop.offload(child.stdout.readline)
        yield int(re.match(r"127\.0\.0\.1:(\d+) -> ", line)[1]), child  # type: ignore[index]
    finally:
        child.kill()
        await multiloop.offload(child.communicate)


def test_the_proxy_forwards_both_ways_with_half_closed_connections() -> None:
    async def main() -> None:
        async def shout(connection: net.Socket) -> None:
            connection.end((await connection.read_all()).upper())

        upstream = net.create_server(shout, allow_half_open=True)
        await upstream.listen(0)
        async with _proxy(upstream.address[1]) as (port, child):

            async def talk(number: int) -> None:
                client = await net.connect(port, allow_half_open=True)
                client.end(b"request %d" % number * 10_000)
                assert await client.read_all() == b"REQUEST %d" % number * 10_000
                await client.wait_closed()

            await asyncio.gather(*(talk(number) for number in range(20)))
            child.send_signal(signal.SIGINT)
            _, err = await multiloop.offload(child.communicate)
            assert (child.returncode, err) == (130, "")
        await upstream.close()

    multiloop.run(main)


def test_the_proxy_holds_back_a_sender_whose_receiver_sleeps() -> None:
    async def main() -> None:
        connections: list[net.Socket] = []
        upstream = net.create_server(connections.append, pause_on_connect=True)
        await upstream.listen(0)
        async with _proxy(upstream.address[1]) as (port, child):
            client = await net.connect(port)
            try:
                while True:
                    client.write(b"x" * 65536)
                    assert client.bytes_written < 64 * 1024 * 1024, "nobody holds it back"
                    async with asyncio.timeout(0.2):
                        await client.drain()
            except TimeoutError:
                pass  # nothing moves any more
            await until(lambda: connections)
            with open(f"/proc/{child.pid}/statm") as statm:
                assert int(statm.read().split()[1]) * 4096 < 120 * 1024 * 1024
            connections[0].resume()
            await client.drain()
            client.destroy()
            await until(lambda: connections[0].closed)
        await upstream.close()

    multiloop.run(main)


def test_the_proxy_closes_both_ends_when_one_is_reset_silent_or_out_of_reach() -> None:
    async def main() -> None:
        connections: list[net.Socket] = []
        upstream = net.create_server(connections.append)
        await upstream.listen(0)
        async with _proxy(upstream.address[1], "--idle-timeout", "1") as (port, child):
            client = await net.connect(port)
            client.write(b"x")
            await until(lambda: connections)
            client.reset_and_destroy()
            await until(lambda: connections[0].closed or connections[0]._incoming._end_seen)
            silent = await net.connect(port)
            assert await asyncio.wait_for(silent.read_all(), 10) == b""
            upstream.destroy_connections()
            await upstream.close()
            nobody = await net.connect(port)
            try:
                assert await asyncio.wait_for(nobody.read_all(), 10) == b""
            except ConnectionResetError:
                pass
            assert child.stdout is not None
            assert "cannot reach" in await multiloop.offload(child.stdout.readline)

    multiloop.run(main)


# --- the crawler ------------------------------------------------------------------------------------------------------
def _site(pages: dict[str, str]) -> Any:
    from aiohttp import web

    async def page(request: web.Request) -> web.Response:
        if request.path not in pages:
            raise web.HTTPNotFound
        return web.Response(text=pages[request.path], content_type="text/html")

    return page


def test_the_crawler_visits_every_page_once_and_reports_broken_links() -> None:
    pages = {
        "/": '<a href="/a">a</a> <a href="b#part">b</a> <a href="http://elsewhere.invalid/">no</a> <a>none</a>',
        "/a": '<a href="/">home</a> <a href="/missing">broken</a>',
        "/b": '<a href="/a#x">a</a> <a href="/deep/c">c</a> <a href="mailto:x@y">mail</a>',
        "/deep/c": '<a href="../a">a</a> <p>unclosed <a href="/missing">',
    }

    async def main() -> None:
        seen: list[str] = []

        def answer(connection: net.Socket) -> None:
            def take(data: bytes) -> None:
                path = data.split(b" ")[1].decode()
                seen.append(path)
                body = pages.get(path, "nothing here").encode()
                status = b"200 OK" if path in pages else b"404 Not Found"
                head = b"HTTP/1.1 %s\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
                connection.write(head + body)

            connection.on("data", take)

        site = net.create_server(answer)
        await site.listen(0)
        url = f"http://127.0.0.1:{site.address[1]}"
        code, out, err = await multiloop.offload(_ran, "crawler.py", url + "/", "-n", "2")
        assert (code, err) == (1, "")
        assert sorted(seen) == ["/", "/a", "/b", "/deep/c", "/missing"]
        assert f"broken: {url}/missing (404), linked from {url}/a, {url}/deep/c" in out
        assert out.endswith("5 pages, 1 broken\n")
        code, out, err = await multiloop.offload(_ran, "crawler.py", url + "/", "--most-pages", "2")
        assert (code, out) == (0, "2 pages, 0 broken\n")
        site.destroy_connections()
        await site.close()
        code, out, err = await multiloop.offload(_ran, "crawler.py", url + "/")
        assert (code, err) == (1, "")
        assert "ConnectionRefusedError" in out

    multiloop.run(main)


def test_the_crawler_survives_replies_that_are_broken() -> None:
    async def main() -> None:
        async with serve() as site:
            code, out, err = await multiloop.offload(_ran, "crawler.py", site.url + "/stall?cut=1")
            assert (code, err) == (0, "")  # no HTML: its body is not even taken
            server = net.create_server(lambda c: c.once("data", lambda data: c.end(b"garbage\r\n\r\n")))
            await server.listen(0)
            code, out, err = await multiloop.offload(_ran, "crawler.py", f"http://127.0.0.1:{server.address[1]}/")
            assert (code, err) == (1, "")
            assert "BadReply" in out
            await server.close()

    multiloop.run(main)


# --- callback style ---------------------------------------------------------------------------------------------------
def test_the_callback_style_program_ends_by_itself() -> None:
    code, out, err = _ran("callback_style.py")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[:2] == ["this comes first", "this comes second"]
    assert "the server says 200" in lines
    assert "and hello" in lines
    assert "tick" in lines
    assert any(line.startswith("this program has") for line in lines)
    assert lines[-1] == "closed"


def test_an_exception_in_a_callback_ends_it_with_code_1_and_the_traceback() -> None:
    code, _, err = _ran("callback_style.py", "--throw")
    assert code == 1
    assert "ZeroDivisionError" in err
    assert "callback_style.py" in err


def test_it_has_no_async_in_it() -> None:
    text = (EXAMPLES / "callback_style.py").read_text()
    assert "async" not in text.replace("asynchronous", "")
    assert "await " not in text.replace("awaited", "")
