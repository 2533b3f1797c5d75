"""The table of attacks against a real service over real sockets: whole, split at every byte, and with a follower."""

from __future__ import annotations

import asyncio
import re
import socket
from typing import Any

import pytest

import multiloop
from multiloop.http._config import HttpConfig
from multiloop.http._service import HttpService
from multiloop.http._target import Interface

from .attacks import ALL, OVERSIZE, Attack

FOLLOWER = b"GET /follower HTTP/1.1\r\nHost: a\r\n\r\n"


class Recorder:
    """An ASGI application that reads the whole body, answers 200 and remembers what reached it whole."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        while True:
            event = await receive()
            if event["type"] == "http.disconnect":
                return
            if not event["more_body"]:
                break
        self.paths.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})


async def ask(service: HttpService, pieces: list[bytes]) -> bytes:
    """Send pieces, each read by the server on its own, then end; return all that the server said."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    service.adopt(theirs)
    said = b""
    with ours:
        for index, piece in enumerate(pieces):
            try:
                await asyncio.wait_for(loop.sock_sendall(ours, piece), 10)
            except OSError:
                break  # the server has said what it thinks and left
            except TimeoutError:
                break
            if index + 1 < len(pieces):
                for _ in range(3):
                    await asyncio.sleep(0)
        try:
            ours.shutdown(socket.SHUT_WR)
            while data := await asyncio.wait_for(loop.sock_recv(ours, 65536), 10):
                said += data
        except ConnectionResetError:
            pass
    return said


def statuses(said: bytes) -> list[int]:
    return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3}) ", said)]


def serve_and(check: Any) -> None:
    async def main() -> None:
        app = Recorder()
        service = HttpService(app, Interface.ASGI, HttpConfig(lifespan="off"))
        await service.start()
        try:
            await check(service, app)
            await asyncio.wait_for(service.drained(), 10)
        finally:
            await service.stop()
        assert service.active == 0

    multiloop.run(main)


def judge(attack: Attack, said: bytes, app: Recorder) -> None:
    codes = statuses(said)
    assert app.paths == [], f"{attack.name}: reached the application; the server said {said[:200]!r}"
    assert len(codes) == 1, f"{attack.name}: {codes} {said[:200]!r}"
    assert codes[0] in attack.statuses, f"{attack.name}: answered {codes[0]}"
    assert b"connection: close" in said.lower(), attack.name


@pytest.mark.parametrize("attack", ALL, ids=lambda attack: attack.name)
def test_an_attack_is_refused_whole_and_split_at_every_byte(attack: Attack) -> None:
    async def check(service: HttpService, app: Recorder) -> None:
        judge(attack, await ask(service, [attack.sent]), app)
        for cut in range(1, len(attack.sent)):
            judge(attack, await ask(service, [attack.sent[:cut], attack.sent[cut:]]), app)
        judge(attack, await ask(service, [attack.sent[i : i + 1] for i in range(len(attack.sent))]), app)

    serve_and(check)


@pytest.mark.parametrize("attack", ALL, ids=lambda attack: attack.name)
def test_nothing_behind_an_attack_is_parsed(attack: Attack) -> None:
    async def check(service: HttpService, app: Recorder) -> None:
        judge(attack, await ask(service, [attack.sent + FOLLOWER]), app)

    serve_and(check)


@pytest.mark.parametrize("attack", OVERSIZE, ids=lambda attack: attack.name)
def test_what_is_too_large_is_refused_and_not_kept(attack: Attack) -> None:
    async def check(service: HttpService, app: Recorder) -> None:
        judge(attack, await ask(service, [attack.sent]), app)
        pieces = [attack.sent[i : i + 1000] for i in range(0, min(len(attack.sent), 200_000), 1000)]
        judge(attack, await ask(service, pieces), app)

    serve_and(check)
