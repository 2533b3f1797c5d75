"""A blocked loop's report names the request, however the application is called and in whichever form the server runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from multiloop import health, timers
from multiloop.health import _episode
from multiloop.http import Request, Response, WebSocket, create_server
from multiloop.http._serving import served_in_frame
from tests.support import until

from .harness import Client, answer, run, service_of

BLOCK_S = 0.15
THRESHOLD_S = 0.05


def block() -> None:
    time.sleep(BLOCK_S)


def hold_the_lock() -> None:
    end = time.thread_time() + BLOCK_S
    while time.thread_time() < end:
        pow(10**9000, 61)  # one call into C after the other; meanwhile no other thread runs


# --- applications, each of which blocks ---------------------------------------------------------------------------
async def asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/later":
        await asyncio.sleep(0.01)
    block()
    await answer(send)


async def deep_asgi(scope: Any, receive: Any, send: Any) -> None:
    async def inner() -> None:
        await asyncio.sleep(0)
        block()

    await inner()
    await answer(send)


def handler(request: Request) -> str:
    block()
    return "ok"


async def async_handler(request: Request) -> Response:
    if request.path == "/later":
        await asyncio.sleep(0.01)
    block()
    return Response("ok")


def nodes_face(request: Request, response: Any) -> None:
    block()
    response.end("ok")


def nodes_face_later(request: Request, response: Any) -> None:
    def finish() -> None:
        block()
        response.end("ok")

    timers.set_timeout(finish, 0.01)


async def nodes_face_async(request: Request, response: Any) -> None:
    await asyncio.sleep(0.01)
    block()
    response.end("ok")


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    hold_the_lock()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(_episode.log, "disabled", True)
    # Another test may have loaded what makes interpreters; this process has but one.
    monkeypatch.setattr("multiloop.health._stack._others_may_exist", lambda: False)
    return


def reported(app: Callable[..., Any], interface: str, path: str) -> health.BlockedLoop:
    """Ask the application for a path while another request waits; return what was reported.

    Asked again when the report names no request: on a busy machine the loop may be let in before the watchdog has looked.
    """
    reports: list[health.BlockedLoop] = []

    async def main() -> None:
        async with service_of(app, interface) as service:
            client = Client(service, tcp=True)
            health.watch(THRESHOLD_S)
            health.on_blocked(reports.append)
            await asyncio.sleep(THRESHOLD_S * 2)
            for _ in range(5):
                assert (await client.get(f"{path}?secret=1", method="PUT")).body == b"ok"
                await until(lambda: reports)
                if reports[0].request is not None:
                    break
                reports.clear()

    run(main)
    return reports[0]  # what comes later is about the end of the server


@pytest.mark.parametrize(
    ("app", "interface", "path"),
    [
        (asgi, "asgi", "/now"),
        (asgi, "asgi", "/later"),
        (deep_asgi, "asgi", "/deep"),
        (handler, "handler", "/now"),
        (async_handler, "handler", "/now"),
        (async_handler, "handler", "/later"),
        (nodes_face, "node", "/now"),
        (nodes_face_later, "node", "/later"),
        (nodes_face_async, "node", "/async"),
    ],
)
def test_the_request_is_named(app: Any, interface: str, path: str) -> None:
    report = reported(app, interface, path)
    assert report.request == f"PUT {path}"
    assert report.function == "block"


def test_the_request_of_a_wsgi_thread_that_holds_the_lock_is_named() -> None:
    report = reported(wsgi, "wsgi", "/computed")
    assert report.request == "PUT /computed"
    assert report.thread.startswith("multiloop-wsgi-")


def test_where_frames_cannot_be_seen_the_task_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multiloop.health._stack._others_may_exist", lambda: True)
    assert reported(asgi, "asgi", "/later").request == "PUT /later"
    assert reported(handler, "handler", "/now").request == "PUT /now"


def test_a_websocket_is_named() -> None:
    reports: list[health.BlockedLoop] = []

    async def chat(socket: WebSocket) -> None:
        async for message in socket:
            block()
            await socket.send(message)

    async def main() -> None:
        import websockets

        health.watch(THRESHOLD_S)
        health.on_blocked(reports.append)
        async with create_server(handler, websocket=chat) as server:
            await server.listen()
            async with websockets.connect(f"ws://127.0.0.1:{server.address[1]}/chat") as socket:
                await asyncio.sleep(THRESHOLD_S * 2)
                await socket.send("hello")
                assert await socket.recv() == "hello"
        await until(lambda: reports)

    run(main)
    assert reports[-1].request == "WebSocket /chat"


def test_what_blocks_beside_a_request_is_not_put_down_to_it() -> None:
    reports: list[health.BlockedLoop] = []

    async def patient(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(THRESHOLD_S * 2 + BLOCK_S)
        await answer(send)

    async def main() -> None:
        async with service_of(patient, "asgi") as service:
            client = Client(service, tcp=True)
            health.watch(THRESHOLD_S)
            health.on_blocked(reports.append)
            asked = asyncio.ensure_future(client.get("/patient"))
            await asyncio.sleep(THRESHOLD_S * 2)
            block()  # a task of the program's own
            assert (await asked).status == 200
            await until(lambda: reports)

    run(main)
    assert reports[0].request is None


def test_a_frame_is_read_without_asking_foreign_objects() -> None:
    class Touchy:
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError(f"asked for {name}")

    found = []

    def called(touchy: Any, *more: Any, **named: Any) -> None:
        import sys

        found.append(served_in_frame(sys._getframe()))

    called(Touchy(), Touchy(), one=Touchy())
    assert found == [None]
