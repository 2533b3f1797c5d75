"""http.fetch against a real server: requests, bodies, redirects, what goes wrong (H10, H11)."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from tests.http_client.site import serve
from tests.support import LOOPS, descriptors_at_rest, open_descriptors, until

import multiloop
from multiloop import http, net, stream
from multiloop.errors import (
    BadReply,
    BodyTooLarge,
    ReplyIncomplete,
    RequestTimeout,
    StatusError,
    TooManyRedirects,
    UsageError,
)

loops = pytest.mark.parametrize("loop", LOOPS)


# --- requests ---------------------------------------------------------------------------------------------------------
@loops
def test_a_reply_has_a_head_and_a_body(loop: Any) -> None:
    async def main() -> None:
        async with serve() as site:
            reply = await http.fetch(site.url + "/echo?a=1", headers={"X-Mine": "yes"}, params={"b": 2})
            assert (reply.status, reply.reason, reply.ok) == (200, "OK", True)
            assert reply.headers["CONTENT-type"].startswith("application/json")
            said = await reply.json()
            assert (said["method"], said["query"]) == ("GET", {"a": "1", "b": "2"})
            assert said["headers"]["x-mine"] == "yes"
            assert said["headers"]["user-agent"].startswith("multiloop/")
            assert await reply.read() == await reply.read(), "again and again"
            assert "200" in repr(reply)

    multiloop.run(main, loop=loop)


def test_it_works_in_a_plain_asyncio_program_and_leaves_nothing() -> None:
    before: set[str] = set()

    async def main() -> str:
        before.update(await descriptors_at_rest())
        async with serve() as site:
            return await (await http.fetch(site.url + "/echo")).text()

    assert "GET" in asyncio.run(main())
    assert not {each for each in open_descriptors() - before if "socket" in each}


def test_a_callback_gets_the_error_first_and_the_body_takes_one_too() -> None:
    seen: list[Any] = []

    async def main() -> None:
        async with serve() as site:
            done = asyncio.get_running_loop().create_future()

            def answered(error: Any, reply: Any) -> None:
                seen.append((error, reply.status))
                reply.json(callback=taken)

            def taken(error: Any, value: Any) -> None:
                seen.append((error, value["method"]))
                http.fetch("http://127.0.0.1:1/", callback=failed)

            def failed(error: Any, reply: Any) -> None:
                seen.append((type(error), reply))
                done.set_result(None)

            http.fetch(site.url + "/echo", callback=answered)
            await done

    multiloop.run(main)
    assert seen == [(None, 200), (None, "GET"), (ConnectionRefusedError, None)]


async def _pieces() -> AsyncIterator[bytes]:
    for piece in (b"one ", b"two ", b"three"):
        await asyncio.sleep(0)
        yield piece


@pytest.mark.parametrize(
    ("body", "sent", "chunked"),
    [
        (b"bytes", "bytes", False),
        ("gr\xfc\xdfe", "gr\xc3\xbc\xc3\x9fe", False),
        (bytearray(b"array"), "array", False),
        (memoryview(b"view"), "view", False),
        ([b"a", "b"], "ab", True),
        (_pieces, "one two three", True),
    ],
)
def test_every_kind_of_body_is_sent(body: Any, sent: str, chunked: bool) -> None:
    async def main() -> None:
        async with serve() as site:
            given = body() if callable(body) else body
            said = await (await http.fetch(site.url + "/echo", method="post", body=given)).json()
            assert (said["method"], said["body"]) == ("POST", sent)
            assert ("transfer-encoding" in said["headers"]) is chunked

    multiloop.run(main)


def test_json_is_sent_with_its_type() -> None:
    async def main() -> None:
        async with serve() as site:
            said = await (await http.fetch(site.url + "/echo", method="PUT", json={"a": [1]})).json()
            assert said["body"] == '{"a":[1]}'
            assert said["headers"]["content-type"] == "application/json"
            with pytest.raises(UsageError, match="not both"):
                http.fetch(site.url, json=1, body=b"")

    multiloop.run(main)


def test_redirects_are_followed_up_to_the_limit() -> None:
    async def main() -> None:
        async with serve() as site:
            reply = await http.fetch(site.url + "/redirect/3", max_redirects=3)
            assert (reply.url, reply.redirected) == (site.url + "/echo", True)
            reply = await http.fetch(site.url + "/redirect/3", max_redirects=0)
            assert (reply.status, reply.headers["location"]) == (302, "/redirect/2")
            said = await (await http.fetch(site.url + "/redirect/1", method="POST", body="x")).json()
            assert said["method"] == "GET"
            with pytest.raises(TooManyRedirects, match="more than 2"):
                await http.fetch(site.url + "/redirect/3", max_redirects=2)

    multiloop.run(main)


def test_a_bad_status_is_a_reply_unless_asked_otherwise() -> None:
    async def main() -> None:
        async with serve() as site:
            reply = await http.fetch(site.url + "/status/404")
            assert (reply.status, reply.ok, await reply.text()) == (404, False, "status")
            with pytest.raises(StatusError, match="404") as caught:
                reply.raise_for_status()
            assert caught.value.status == 404
            assert (await http.fetch(site.url + "/status/201")).raise_for_status().status == 201

    multiloop.run(main)


# --- bodies -----------------------------------------------------------------------------------------------------------
@loops
def test_a_body_comes_in_pieces_and_waits_for_its_reader(loop: Any) -> None:
    async def main() -> None:
        size = 8 * 1024 * 1024
        async with serve() as site:
            reply = await http.fetch(f"{site.url}/big/{size}")
            got = 0
            async for piece in reply.body:
                got += len(piece)
                assert len(piece) <= 1024 * 1024
                await asyncio.sleep(0)
            assert got == size
            collected: list[bytes] = []

            async def sink(source: AsyncIterator[bytes]) -> None:
                async for piece in source:
                    collected.append(piece)

            await stream.pipeline((await http.fetch(f"{site.url}/big/100000")).body, sink)
            assert len(b"".join(collected)) == 100_000
            with pytest.raises(UsageError, match="in pieces"):
                await reply.read()

    multiloop.run(main, loop=loop)


def test_a_body_that_is_not_wanted_is_given_up() -> None:
    async def main() -> None:
        async with serve() as site:
            before = await descriptors_at_rest()
            async with http.Agent() as agent:
                async with http.fetch(site.url + "/big/100000000", agent=agent) as reply:
                    assert reply.ok
                (await http.fetch(site.url + "/big/100000000", agent=agent)).close()
                await http.fetch(site.url + "/big/100000000", agent=agent)  # dropped
                async for _ in (await http.fetch(site.url + "/big/100000000", agent=agent)).body:
                    break
                await until(lambda: site.busy == 0)
            await until(lambda: open_descriptors() <= before)

    multiloop.run(main)


def test_a_body_over_its_limit_is_refused_after_decompression() -> None:
    async def main() -> None:
        async with serve() as site:
            reply = await http.fetch(site.url + "/big/50000000?compress=1", headers={"Accept-Encoding": "gzip"})
            assert reply.headers["Content-Encoding"] == "gzip"
            with pytest.raises(BodyTooLarge, match="100000"):
                await reply.read(max_size=100_000)
            assert len(await (await http.fetch(site.url + "/big/1000")).read(max_size=1000)) == 1000

    multiloop.run(main)


# --- what goes wrong --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("url", ["ftp://example.com/", "/relative", "", "http://", "https:///x", "http://[::1"])
def test_what_is_no_url_is_refused(url: str) -> None:
    async def main() -> None:
        with pytest.raises(UsageError, match="URL"):
            await http.fetch(url)

    multiloop.run(main)


def test_what_cannot_be_meant_is_refused_in_the_call() -> None:
    async def main() -> None:
        url = "http://127.0.0.1:1/"
        with pytest.raises(UsageError, match="line breaks"):
            http.fetch(url, headers={"X": "a\r\nInjected: yes"})
        with pytest.raises(UsageError, match="line breaks"):
            http.fetch(url, headers=[("X\nY", "a")])
        with pytest.raises(UsageError, match="line breaks"):
            http.Agent(headers={"X": "a\r\nInjected: yes"})
        with pytest.raises(UsageError, match="method"):
            http.fetch(url, method="GET /x")
        with pytest.raises(TypeError, match="body"):
            http.fetch(url, body=5)
        with pytest.raises(TypeError, match="headers"):
            http.fetch(url, headers={"X": 5})  # type: ignore[dict-item]
        with pytest.raises(UsageError, match="max_redirects"):
            http.fetch(url, max_redirects=-1)
        with pytest.raises(UsageError, match="total"):
            http.fetch(url, timeout=0)
        with pytest.raises(TypeError):
            http.fetch(url, colour="red")  # type: ignore[call-overload]

    multiloop.run(main)


WRONG_HEADERS: list[Any] = [
    {"A b": "c"},
    {"A:X": "c"},
    {"": "c"},
    {"Ä": "c"},
    {"A": "bell\x07"},
    [("Content-Length", "x")],
    [("Content-Length", "1"), ("content-length", "2")],
    {"Transfer-Encoding": "chunked"},
]


@pytest.mark.parametrize("headers", WRONG_HEADERS, ids=repr)
@pytest.mark.parametrize("callback", [None, lambda error, reply: None], ids=["awaited", "callback"])
def test_headers_that_corrupt_a_request_are_refused_in_the_call_and_nothing_is_sent(
    headers: Any, callback: Any
) -> None:
    async def main() -> None:
        connections: list[Any] = []
        server = await net.create_server(connections.append).listen(0)
        url = f"http://127.0.0.1:{server.address[1]}/"
        for start in (http.fetch, http.request):
            with pytest.raises(UsageError):
                start(url, method="POST", headers=headers, callback=callback)  # type: ignore[operator]
        with pytest.raises(UsageError):
            http.Agent(headers=dict(headers))
        await net.connect(server.address[1], "127.0.0.1")
        await until(lambda: connections)
        assert len(connections) == 1, "this test's own"
        server.destroy_connections()
        await server.close()

    multiloop.run(main)


def test_a_content_length_must_be_the_length_of_the_body() -> None:
    async def main() -> None:
        async with serve() as site:
            for body in (b"x", "x", bytearray(b"x"), None):
                for callback in (None, lambda error, reply: None):
                    with pytest.raises(UsageError, match="10 with a body of"):
                        http.fetch(
                            site.url,
                            method="POST",
                            body=body,
                            headers={"Content-Length": "10"},
                            callback=callback,  # type: ignore[arg-type]
                        )
            with pytest.raises(UsageError, match="with a body of 7 bytes"):
                http.fetch(site.url, method="POST", json={"a": 1}, headers={"content-length": "8"})
            told = {"body": "ä", "headers": {"content-length": "2"}}
            reply = await http.fetch(site.url + "/echo", method="POST", **told)  # type: ignore[call-overload]
            assert (await reply.json())["headers"]["content-length"] == "2"
            reply = await http.fetch(
                site.url + "/echo", method="POST", body=[b"x", b"y"], headers={"Content-Length": "2"}
            )
            assert "transfer-encoding" not in (await reply.json())["headers"]

    multiloop.run(main)


@loops
def test_no_connection_is_the_systems_error_with_the_address(loop: Any) -> None:
    async def main() -> None:
        with pytest.raises(ConnectionRefusedError) as caught:
            await http.fetch("http://127.0.0.1:1/x")
        assert caught.value.filename == "127.0.0.1:1"
        with pytest.raises(socket.gaierror) as unknown:
            await http.fetch("http://no-such-host.invalid/")
        assert unknown.value.filename == "no-such-host.invalid"

    multiloop.run(main, loop=loop)


def test_a_failure_that_nobody_looks_at_ends_the_program() -> None:
    async def main() -> None:
        http.fetch("http://127.0.0.1:1/")
        await asyncio.sleep(5)

    with pytest.raises(ConnectionRefusedError):
        multiloop.run(main)


async def _answering(*replies: bytes) -> net.Server:
    """A server that answers the n-th connection with the n-th bytes and hangs up."""
    left = list(replies)

    def serve_raw(connection: net.Socket) -> None:
        reply = left.pop(0) if left else b""
        connection.once("data", lambda data: connection.end(reply))

    server = net.create_server(serve_raw)
    await server.listen(0)
    return server


@loops
@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", ReplyIncomplete),
        (b"HTTP/1.1 200 OK\r\nContent-Le", ReplyIncomplete),
        (b"SSH-2.0-OpenSSH\r\n\r\n", BadReply),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", ReplyIncomplete),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", ReplyIncomplete),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello", (BadReply, ReplyIncomplete)),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", BadReply),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000 + b"\r\n", (BadReply, OSError)),
    ],
)
def test_a_reply_that_is_broken_or_cut_is_told_apart(raw: bytes, expected: Any, loop: Any) -> None:
    async def main() -> None:
        server = await _answering(raw)
        with pytest.raises(expected):
            await (await http.fetch(f"http://127.0.0.1:{server.address[1]}/")).read()
        server.destroy_connections()
        await server.close()

    multiloop.run(main, loop=loop)


@loops
def test_each_phase_has_its_own_timeout(loop: Any) -> None:
    async def main() -> None:
        async with serve() as site:
            for timeout, path, phase in [
                (0.05, "/slow", "total"),
                (http.Timeouts(reply=0.05), "/slow", "reply"),
                (http.Timeouts(body=0.05), "/stall", "body"),
                (0.05, "/stall", "total"),
            ]:
                with pytest.raises(RequestTimeout) as caught:
                    await (await http.fetch(site.url + path, timeout=timeout)).read()
                assert (caught.value.phase, isinstance(caught.value, TimeoutError)) == (phase, True)
                assert path in str(caught.value)
            one = http.Agent(max_total_sockets=1)
            holding = await http.fetch(site.url + "/stall", agent=one)
            with pytest.raises(RequestTimeout) as caught:
                await http.fetch(site.url + "/echo", agent=one, timeout=http.Timeouts(queue=0.05))
            assert caught.value.phase == "queue"
            holding.close()
            await one.close()
            with pytest.raises(UsageError, match="reply"):
                http.Timeouts(reply=-1)

    multiloop.run(main, loop=loop)


def test_connecting_has_a_timeout() -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
            fillers = [socket.socket() for _ in range(3)]
            for each in fillers:
                each.setblocking(False)
                each.connect_ex(full.getsockname())
            url = f"http://127.0.0.1:{full.getsockname()[1]}/"
            with pytest.raises(RequestTimeout) as caught:
                await http.fetch(url, timeout=http.Timeouts(connect=0.05))
            assert caught.value.phase == "connect"
            for each in fillers:
                each.close()

    multiloop.run(main)


def test_a_head_that_drips_does_not_put_the_timeout_off() -> None:
    async def main() -> None:
        async def drip(connection: net.Socket) -> None:
            connection.write(b"HTTP/1.1 200 OK\r\n")
            while not connection.destroyed:
                connection.write(b"X: y\r\n")
                await asyncio.sleep(0.01)

        server = net.create_server(drip)
        await server.listen(0)
        with pytest.raises(RequestTimeout) as caught:
            await http.fetch(f"http://127.0.0.1:{server.address[1]}/", timeout=http.Timeouts(reply=0.1))
        assert caught.value.phase == "reply"
        server.destroy_connections()
        await server.close()

    multiloop.run(main)


def test_a_long_upload_does_not_use_up_the_replys_time() -> None:
    async def main() -> None:
        async def slowly() -> AsyncIterator[bytes]:
            for _ in range(10):
                await asyncio.sleep(0.02)
                yield b"x"

        async with serve() as site:
            timeouts = http.Timeouts(reply=0.1)
            said = await (await http.fetch(site.url + "/echo", method="POST", body=slowly(), timeout=timeouts)).json()
            assert said["body"] == "x" * 10

    multiloop.run(main)


@loops
def test_a_cancelled_fetch_closes_its_connection(loop: Any) -> None:
    async def main() -> None:
        async with serve() as site:
            await (await http.fetch(site.url + "/echo")).read()
            before = await descriptors_at_rest()
            fetching = [http.fetch(site.url + "/slow") for _ in range(10)]
            await until(lambda: site.busy == 10)
            for op in fetching:
                op.cancel()
            await asyncio.gather(*fetching, return_exceptions=True)
            await until(lambda: site.busy == 0 and open_descriptors() <= before)

    multiloop.run(main, loop=loop)


# --- TLS and Unix sockets ---------------------------------------------------------------------------------------------
def test_tls_is_checked_unless_told_otherwise(tmp_path: Path) -> None:
    authority = trustme.CA()
    ca, cert = tmp_path / "ca.pem", tmp_path / "cert.pem"
    authority.cert_pem.write_to_path(str(ca))
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(cert))

    async def main() -> None:
        async with serve(tls=net.create_secure_context(server=True, cert=str(cert))) as site:
            with pytest.raises(ssl.SSLCertVerificationError) as caught:
                await http.fetch(site.url + "/echo")
            assert caught.value.filename == "localhost"
            assert (await http.fetch(site.url + "/echo", tls=False)).ok
            trusting = net.create_secure_context(ca=str(ca))
            assert (await http.fetch(site.url + "/echo", tls=trusting)).ok
            by_address = site.url.replace("localhost", "127.0.0.1")
            with pytest.raises(ssl.SSLCertVerificationError):
                await http.fetch(by_address + "/echo", tls=trusting)
            assert (await http.fetch(by_address + "/echo", tls=trusting, server_hostname="localhost")).ok
            with pytest.raises(OSError):
                await http.fetch(site.url.replace("https", "http") + "/echo")
            with pytest.raises(TypeError, match="tls="):
                http.fetch(site.url, tls="yes")  # type: ignore[call-overload]

    multiloop.run(main)


def test_a_unix_socket_can_be_asked() -> None:
    async def main() -> None:
        path = f"/tmp/multiloop-test-{os.getpid()}.sock"
        async with serve(path=path) as site, http.Agent(path=path) as agent:
            assert (await http.fetch(site.url + "/echo", agent=agent)).ok
        async with http.Agent(path="/tmp/missing.sock") as agent:
            with pytest.raises(FileNotFoundError) as caught:
                await http.fetch("http://x/", agent=agent)
            assert caught.value.filename == "/tmp/missing.sock"

    multiloop.run(main)
