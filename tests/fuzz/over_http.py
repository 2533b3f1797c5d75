"""The HTTP server, from the first byte to the last: whatever comes, in whatever pieces."""

from __future__ import annotations

import asyncio
import atexit
import logging
import random
import re
from typing import Any, NamedTuple

from multiloop.http._config import HttpConfig
from multiloop.testing import MemoryConnection
from tests.http.attacks import ALL

from .target import pieces, target

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONFIG = HttpConfig(lifespan="off", max_body_size=20_000)

_GOOD = (
    b"GET /a?b=c HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    (
        b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloPOST /c HTTP/1.1\r\nHost: a\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nX-T: u\r\n\r\nGET /d HTTP/1.1\r\nHost: a\r\n\r\n"
    ),
    b"PUT /e HTTP/1.1\r\nHost: [::1]:80\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\nGET http://b:80/x HTTP/1.1\r\nHost: b:80\r\n\r\n",
    b"POST /f HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nContent-Length: 4\r\n\r\nbody",
    (
        b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ),
    b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n" % (b"p" * 40),
)
_WORDS = (
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b"\t",
        b" ",
        b":",
        b"\r\n\r\n",
        b"\r\n ",
        b"%00",
        b"#",
        b"@",
        b"\xff",
        b"\x85",
        b"_",
    ),
    *(
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: 0\r\n",
        b"Host: b\r\n",
        b"chunked",
    ),
    *(b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Connection: Upgrade\r\n"),
    *(b"Upgrade: websocket\r\n", b"Upgrade: h2c\r\n", b"Sec-WebSocket-Version: 13\r\n", b"HTTP/1.0", b"HTTP/2.0"),
    *(b"0\r\n\r\n", b"5\r\nhello\r\n", b"ffffffffffffffff\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    *(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"TE: trailers\r\n"),
)


class _Seen(NamedTuple):
    """What came of the bytes: the requests that the application read whole, and how the server refused the rest."""

    requests: list[tuple[str, str, str, bytes, tuple[tuple[bytes, bytes], ...], bytes]]
    refused: bool


@target("http", [*_GOOD, *(attack.sent for attack in ALL if len(attack.sent) < 5000)], _WORDS, short=40)
def http_server(data: bytes, chance: random.Random) -> None:
    """Whole and in pieces the same requests reach the application, each of them well-formed, each answered in order."""
    whole = _runner().run(_serve([data]))
    cut = _runner().run(_serve(pieces(data, chance)))
    assert whole.requests == cut.requests, (whole.requests, cut.requests)
    assert whole.refused == cut.refused, (whole, cut)


async def _serve(parts: list[bytes]) -> _Seen:
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    handler = _Complaints(complaints)
    logging.getLogger("multiloop").addHandler(handler)
    try:
        seen = await _feed(parts)
    finally:
        logging.getLogger("multiloop").removeHandler(handler)
    assert not complaints, complaints
    return seen


async def _feed(parts: list[bytes]) -> _Seen:
    requests: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close"})
            requests.append(("WS", scope["path"], "", b"", tuple(scope["headers"]), b""))
            return
        body = b""
        while (event := await receive())["type"] == "http.request":
            body += event["body"]
            if not event["more_body"]:
                break
        else:
            return
        _check_request(scope)
        reply = b"reply %d" % len(requests)
        query = scope["query_string"]
        requests.append((scope["method"], scope["path"], scope["http_version"], query, tuple(scope["headers"]), body))
        length = (b"content-length", b"%d" % len(reply))
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": reply})

    connection = MemoryConnection(app, interface="asgi", config=_CONFIG)
    for part in parts:
        connection.feed(part)
        await _settle(connection)
    connection.eof()
    await _settle(connection)
    refused = _check_replies(bytes(connection.output), [request[0] for request in requests])
    connection.close()
    await connection.settle()
    assert connection.service.active == 0, "a request is counted for ever"
    assert not connection.service.connections
    return _Seen(requests, refused)


async def _settle(connection: MemoryConnection) -> None:
    await connection.settle()
    while connection.service._adopting:  # a thread loads the library of WebSockets, for the first of them
        await asyncio.sleep(0.001)
        await connection.settle()


def _check_request(scope: Any) -> None:
    """What reaches an application is well-formed."""
    assert _TOKEN.fullmatch(scope["method"].encode()), scope
    assert scope["path"].startswith(("/", "*")) or scope["method"] == "CONNECT", scope["path"]
    assert scope["http_version"] in ("1.0", "1.1")
    names = [name for name, _ in scope["headers"]]
    for name, value in scope["headers"]:
        assert _TOKEN.fullmatch(name), name
        assert name == name.lower()
        assert not re.search(rb"[\0\r\n]", value), value
        assert value == value.strip(b" \t"), value
    assert names.count(b"host") == 1 or scope["http_version"] == "1.0", names
    assert names.count(b"host") <= 1
    assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1, names


def _check_replies(output: bytes, methods: list[str]) -> bool:
    """One reply for each request, in order, then at most one refusal that ends it. Returns whether it refused."""
    answered = 0
    while output:
        head, found, output = output.partition(b"\r\n\r\n")
        assert found, head
        status = int(re.match(rb"HTTP/1\.1 (\d{3}) ", head)[1])  # type: ignore[index]
        if status == 100:
            continue
        length = re.search(rb"\r\ncontent-length: (\d+)", head)
        size = int(length[1]) if length else 0
        if status == 403 and methods[answered] == "WS":
            answered += 1
            output = output[size:]
        elif status == 200:
            if methods[answered] != "HEAD":
                assert output[:size] == b"reply %d" % answered, (output, answered)
                output = output[size:]
            answered += 1
        else:
            assert status in (400, 413, 414, 417, 426, 431, 501, 505), status
            assert b"\r\nconnection: close" in head or status == 426, head
            assert answered == len(methods), (answered, methods)
            assert len(output) in (0, size), output
            return True
    assert answered == len(methods), (answered, methods)
    return False


class _Complaints(logging.Handler):
    """An error in the log is a bug."""

    def __init__(self, found: list[Any]) -> None:
        super().__init__(logging.ERROR)
        self._found = found

    def emit(self, record: logging.LogRecord) -> None:
        self._found.append(record.getMessage())


_kept: list[asyncio.Runner] = []


def _runner() -> asyncio.Runner:
    if not _kept:
        _kept.append(asyncio.Runner())
        atexit.register(_kept[0].close)
    return _kept[0]
