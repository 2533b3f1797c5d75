"""The 33 situations that the public HTTP/1.1 check h1spec looks at, against every kind of application.

An application that echoes the body answers; unfinished heads must be waited for, wrong ones refused, right ones served.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from .harness import Client, answer, read_body, run, service_of

CRLF = "\r\n"
WHOLE = f"GET /hello HTTP/1.1{CRLF}Host: localhost{CRLF}{CRLF}"

# Where a head is cut: the server waits for the rest of it.
UNFINISHED = {
    "in the method": "G",
    "behind the method": "GET ",
    "in the target": "GET /hello",
    "behind the target": "GET /hello ",
    "in the version": "GET /hello HTTP",
    "behind the version": "GET /hello HTTP/1.1",
    "in the end of the first line": f"GET /hello HTTP/1.1{CRLF[0]}",
    "behind the first line": f"GET /hello HTTP/1.1{CRLF}",
    "in a field's name": f"GET /hello HTTP/1.1{CRLF}Hos",
    "behind a field's colon": f"GET /hello HTTP/1.1{CRLF}Host:",
    "before a field's value": f"GET /hello HTTP/1.1{CRLF}Host: ",
    "behind a field's value": f"GET /hello HTTP/1.1{CRLF}Host: localhost",
    "in the end of a field": f"GET /hello HTTP/1.1{CRLF}Host: localhost{CRLF[0]}",
    "behind a field": f"GET /hello HTTP/1.1{CRLF}Host: localhost{CRLF}",
    "in the end of the head": f"GET /hello HTTP/1.1{CRLF}Host: localhost{CRLF}{CRLF[0]}",
}

CLIENT_ERROR = range(400, 500)
ANY_ERROR = range(400, 600)
SUCCESS = range(200, 300)


def head(*fields: str, first: str = "GET / HTTP/1.1", host: str | None = "Host: example.com") -> str:
    return CRLF.join([first, *([host] if host is not None else []), *fields, "", ""])


COMPLETE = {
    "no version": (head(first="GET / ", host=None), ANY_ERROR),
    "an expectation": (head("Expect: 100-continue"), (100, *SUCCESS)),
    "a plain request": (head(), SUCCESS),
    "odd case, a tab and an empty field": (head("empty:", host="hoSt:\texample.com"), SUCCESS),
    "a field's name with brackets": (head("X-Invalid[]: test"), CLIENT_ERROR),
    "no host": (head("Content-Length: 5", host=None), CLIENT_ERROR),
    "two hosts": (head("Host: example.org"), CLIENT_ERROR),
    "a length far below zero": (head("Content-Length: -123456789123456789123456789"), CLIENT_ERROR),
    "a length below zero": (head("Content-Length: -1234"), CLIENT_ERROR),
    "a length in letters": (head("Content-Length: abc"), CLIENT_ERROR),
    "a field of one space": (head("X-Empty-Header: "), SUCCESS),
    "a bell in a field": (head("X-Bad-Control-Char: test\x07"), CLIENT_ERROR),
    "an unknown version": (head(first="GET / HTTP/9.9"), ANY_ERROR),
    "text before the method": (head(first="Extra lineGET / HTTP/1.1"), ANY_ERROR),
    "a bare carriage return behind the head": (head("\rSome-Header: Test")[:-4] + CRLF * 2, CLIENT_ERROR),
    "a body with its length": (head("Content-Length: 5", first="POST / HTTP/1.1") + "hello", SUCCESS),
    "a coding and a length": (head("Transfer-Encoding: chunked", "Content-Length: 5"), CLIENT_ERROR),
    "a coding and a length in odd case": (head("tRANSFER-eNCODING: chunked", "cONTENT-lENGTH: 5"), CLIENT_ERROR),
}


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        raise RuntimeError("no lifespan here")
    await answer(send, await read_body(receive))


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


async def handler(request: Any) -> bytes:
    return await request.body()  # type: ignore[no-any-return]


async def node(request: Any, response: Any) -> None:
    response.end(await request.body())


def test_there_are_33() -> None:
    assert len(UNFINISHED) + len(COMPLETE) == 33


@pytest.mark.parametrize("app", [asgi, wsgi, handler, node])
def test_unfinished_heads_are_waited_for_and_then_answered(app: Any) -> None:
    async def main() -> None:
        async with service_of(app) as service:
            waiting = {name: Client(service, tcp=True) for name in UNFINISHED}
            for name, client in waiting.items():
                await client.send(UNFINISHED[name].encode())
            assert (await Client(service).get()).status == 200  # by now all were read
            early = [asyncio.ensure_future(client.more()) for client in waiting.values()]
            await asyncio.wait(early, timeout=0.1)
            assert not [read for read in early if read.done()]
            for name, client in waiting.items():
                assert WHOLE.startswith(UNFINISHED[name])
                await client.send(WHOLE[len(UNFINISHED[name]) :].encode())
            await asyncio.gather(*early)
            for client in waiting.values():
                assert (await client.reply()).status == 200

    run(main)


@pytest.mark.parametrize("app", [asgi, wsgi, handler, node])
@pytest.mark.parametrize("name", COMPLETE)
def test_complete_requests_are_served_or_refused(app: Any, name: str) -> None:
    request, expected = COMPLETE[name]

    async def main() -> None:
        async with service_of(app) as service:
            for step in (len(request), 1):
                client = Client(service)
                for start in range(0, len(request), step):
                    try:
                        await client.send(request[start : start + step].encode("latin-1"))
                    except ConnectionError:
                        break  # refused before its end
                    await asyncio.sleep(0)
                reply = await client.reply()
                assert reply.status in expected
                if reply.status >= 400:
                    assert reply.headers["connection"] == "close"
                    assert await client.rest() == b""
                elif name == "a body with its length":
                    assert reply.body == b"hello"

    run(main)
