"""The access log: one line for each reply, with the client's text made harmless."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from multiloop import logs

from .frames import TEXT, WebSocketClient, frame
from .harness import Client, answer, run, service_of


@pytest.fixture
def lines(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Log to a file in the format that the test asks for; a function gives the lines."""
    path = tmp_path / "log"
    logs.configure(logs.LogSettings(format=request.param, file=str(path)))
    yield lambda: logs.flush() and path.read_text().splitlines()
    logs.shutdown()


@pytest.mark.parametrize("lines", ["text"], indirect=True)
def test_a_text_line_says_who_what_and_how_it_went(lines: Any) -> None:
    async def main() -> None:
        async with service_of(lambda request: "hello", access_log=True) as service:
            client = Client(service, tcp=True)
            await client.get("/path?q=1")
            await client.get("/x%0a%1b%22", method="HEAD")
            await client.send(b"GET bad HTTP/1.1\r\n\r\n")
            await client.rest()

    run(main)
    first, second = lines()
    assert ': 127.0.0.1 "GET /path?q=1 HTTP/1.1" 200 5 ' in first
    assert re.search(r"\dms [0-9a-f]{8}-1$", first)
    assert '"HEAD /x%0a%1b%22 HTTP/1.1" 200' in second


@pytest.mark.parametrize("lines", ["json"], indirect=True)
def test_a_json_line_has_the_same_as_fields(lines: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise RuntimeError("no lifespan here")
        if scope["path"] == "/raise":
            raise ValueError
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await receive()
            return
        await answer(send, b"hello", 201)

    async def main() -> None:
        async with service_of(app, access_log=True, proxy_headers=("127.0.0.1",)) as service:
            client = Client(service, tcp=True)
            await client.get("/made", "X-Forwarded-For: 1.2.3.4\r\n")
            await client.get("/raise")
            socket = WebSocketClient(service)
            await socket.open("/socket")
            await socket.send(frame(TEXT, b"x"))
            await socket.frame()

    run(main)
    made, failed, opened = [json.loads(line) for line in lines() if '"multiloop.access"' in line]
    assert (made["client"], made["method"], made["target"], made["status"]) == ("1.2.3.4", "GET", "/made", 201)
    assert (made["bytes"], made["version"]) == (5, "1.1")
    assert 0 <= made["duration"] < 10
    assert failed["status"] == 500
    assert (opened["status"], opened["target"]) == (101, "/socket")


@pytest.mark.parametrize("lines", ["text"], indirect=True)
def test_what_clients_send_cannot_forge_a_line(lines: Any) -> None:
    async def main() -> None:
        async with service_of(lambda request: "hello", access_log=True) as service:
            client = Client(service, tcp=True)
            await client.get('/"quoted"\\' + "x" * 6000)

    run(main)
    (line,) = lines()
    assert line.isprintable()
    assert "x" * 4000 in line
    assert len(line) < 5000
    assert "\\x22quoted\\x22\\x5c" in line
