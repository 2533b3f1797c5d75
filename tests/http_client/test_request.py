"""http.request: the client's body written as it comes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.http_client.site import serve
from tests.support import LOOPS, descriptors_at_rest, open_descriptors, until

import multiloop
from multiloop import events, http
from multiloop.errors import PrematureClose, UsageError

loops = pytest.mark.parametrize("loop", LOOPS)


@loops
def test_a_request_is_written_in_pieces_and_awaited(loop: Any) -> None:
    async def main() -> None:
        async with serve() as site:
            request = http.request(site.url + "/echo", method="POST")
            request.set_header("X-Mine", "a")
            request.set_header("x-mine", "b")
            for piece in (b"one ", "two ", b"three"):
                request.write(piece)
                await asyncio.sleep(0)
            with pytest.raises(UsageError, match="sent already"):
                request.set_header("Y", "z")
            request.end()
            said = await (await request).json()
            assert (said["body"], said["headers"]["x-mine"]) == ("one two three", "b")
            assert said["headers"]["transfer-encoding"] == "chunked"
            assert (await request) is request.reply
            await request.wait_closed()

    multiloop.run(main, loop=loop)


def test_a_body_given_whole_to_end_has_its_length() -> None:
    async def main() -> None:
        async with serve() as site:
            request = http.request(site.url + "/echo", method="PUT")
            request.end(b"whole")
            said = await (await request).json()
            assert said["headers"]["content-length"] == "5"
            assert said["body"] == "whole"
            empty = http.request(site.url + "/echo")
            empty.end()
            assert (await (await empty).json())["body"] == ""

    multiloop.run(main)


def test_the_callback_and_the_event_get_the_reply() -> None:
    async def main() -> None:
        async with serve() as site:
            seen: list[Any] = []
            request = http.request(site.url + "/echo", callback=lambda error, reply: seen.append((error, reply.status)))
            request.on("response", lambda reply: seen.append(reply.status))
            closed = events.once(request, "close")
            request.end()
            await closed
            assert seen == [(None, 200), 200]

    multiloop.run(main)


def test_writing_waits_for_a_server_that_takes_slowly() -> None:
    async def main() -> None:
        async with serve() as site:
            request = http.request(site.url + "/both", method="POST")
            reply: Any = None
            written = 0
            while request.write(b"x" * 65536):
                written += 1
                assert written < 100
            waiting = request.drain()
            reply = await request
            await asyncio.sleep(0)
            taken = asyncio.ensure_future(reply.read())
            await waiting
            request.end(b"y")
            got = await taken
            assert got.endswith(b"XY")
            assert len(got) == (written + 1) * 65536 + 1

    multiloop.run(main)


@loops
def test_both_directions_flow_at_once(loop: Any) -> None:
    async def main() -> None:
        async with serve() as site:
            request = http.request(site.url + "/both", method="POST")
            request.write(b"first")
            reply = await request
            body = aiter(reply.body)
            assert await anext(body) == b"FIRST"
            request.write(b"second")
            assert await anext(body) == b"SECOND"
            request.end()
            assert [piece async for piece in body] == []

    multiloop.run(main, loop=loop)


def test_a_server_that_answers_early_and_hangs_up_ends_the_writing() -> None:
    async def main() -> None:
        async with serve() as site:
            request = http.request(site.url + "/refuse", method="POST")
            for _ in range(200):
                if not request.write(b"x" * 65536):
                    try:
                        await request.drain()
                    except OSError:
                        break
                if request.reply is not None:
                    break
            assert (await request).status == 413
            request.destroy()

    multiloop.run(main)


def test_errors_go_to_the_callback_the_awaiter_or_the_listener() -> None:
    async def main() -> None:
        url = "http://127.0.0.1:1/"
        seen: list[Any] = []
        http.request(url, callback=lambda error, reply: seen.append((type(error), reply))).end()
        await until(lambda: seen)
        assert seen == [(ConnectionRefusedError, None)]
        request = http.request(url)
        request.end()
        with pytest.raises(ConnectionRefusedError):
            await request
        request = http.request(url, method="POST")
        failed = events.once(request, "error")
        request.write(b"x")
        assert isinstance((await failed)[0], ConnectionRefusedError)
        assert request.write(b"y") is False

    multiloop.run(main)


def test_an_error_that_nobody_looks_at_ends_the_program() -> None:
    async def main() -> None:
        http.request("http://127.0.0.1:1/").end()
        await asyncio.sleep(5)

    with pytest.raises(ConnectionRefusedError):
        multiloop.run(main)


def test_destroying_a_request_gives_it_up() -> None:
    async def main() -> None:
        async with serve() as site:
            await (await http.fetch(site.url + "/echo")).read()
            before = await descriptors_at_rest()
            request = http.request(site.url + "/slow", method="POST")
            request.write(b"x")
            await until(lambda: site.busy == 1)
            request.destroy()
            with pytest.raises(PrematureClose):
                await request
            await until(lambda: site.busy == 0 and open_descriptors() <= before)

    multiloop.run(main)


def test_a_callback_that_cannot_be_called_is_a_type_error_before_anything_is_sent() -> None:
    async def main() -> None:
        async with serve() as site:
            wrong: Any = 3
            for start in (http.request, http.fetch):
                with pytest.raises(TypeError, match="callback=3"):
                    start(site.url, callback=wrong)  # type: ignore[operator]
            reply = await http.fetch(site.url + "/echo")
            with pytest.raises(TypeError, match="callback=3"):
                reply.text(callback=wrong)
            assert reply.status == 200

    multiloop.run(main)


@pytest.mark.parametrize("data", [b"x", None])
def test_a_content_length_that_contradicts_the_end_is_the_streams_error_and_nothing_is_sent(data: Any) -> None:
    async def main() -> None:
        url = "http://127.0.0.1:1/"  # sending would be ConnectionRefusedError
        seen: list[Any] = []
        headers = {"Content-Length": "10"}
        http.request(url, method="POST", headers=headers, callback=lambda error, _: seen.append(error)).end(data)
        await until(lambda: seen)
        request = http.request(url, method="POST", headers=headers)
        request.end(data)
        with pytest.raises(UsageError, match="Content-Length: 10"):
            await request
        assert [type(error) for error in seen] == [UsageError]

    multiloop.run(main)
