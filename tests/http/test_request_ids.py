"""Requests have ids where somebody reads them: in the access log, in records of who serves them, in reports; else none."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from multiloop import health, logs
from multiloop.http import Request, WebSocket, create_server
from multiloop.loop import offload
from tests.support import until

from .harness import Client, answer, run, service_of

log = logging.getLogger("shop")
MADE = re.compile(r"[0-9a-f]{8}-[0-9a-f]+")


def configure(folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Path:
    """Log to a file: ours, and the application's, which pytest would take."""
    path = folder / "log"
    logs.configure(logs.LogSettings(file=str(path), **settings))
    monkeypatch.setattr(log, "handlers", [logs._handler])
    monkeypatch.setattr(log, "propagate", False)
    log.setLevel("INFO")
    return path


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Log as JSON to a file; a function gives the records."""
    path = configure(tmp_path, monkeypatch, format="json")
    yield lambda: [json.loads(line) for line in path.read_text().splitlines()] if logs.flush(5.0) else []
    logs.shutdown()


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    log.info("begun")
    await asyncio.sleep(0)
    await offload(log.info, "on a thread")
    log.info("done")
    await answer(send)


async def handler(request: Request) -> str:
    log.info("begun")
    await asyncio.sleep(0)
    log.info("done")
    return "ok"


def sync_handler(request: Request) -> str:
    log.info("begun")
    return "ok"


def nodes_face(request: Request, response: Any) -> None:
    log.info("begun")
    asyncio.get_running_loop().call_soon(lambda: (log.info("done"), response.end("ok")))


def wsgi(environ: Any, start_response: Any) -> Any:
    log.info("begun")
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"o"
    log.info("done")
    yield b"k"


@pytest.mark.parametrize(
    ("app", "interface", "count"),
    [
        (asgi, "asgi", 3),
        (handler, "handler", 2),
        (sync_handler, "handler", 1),
        (nodes_face, "node", 2),
        (wsgi, "wsgi", 2),
    ],
)
def test_every_record_of_a_request_has_its_id(app: Any, interface: str, count: int, records: Any) -> None:
    async def main() -> None:
        async with service_of(app, interface, access_log=True) as service:
            client = Client(service, tcp=True)
            for _ in range(2):
                assert (await client.get()).status == 200

    run(main)
    found = [record["request_id"] for record in records() if record["logger"] in ("shop", "multiloop.access")]
    assert len(found) == 2 * (count + 1)
    first, second = dict.fromkeys(found)
    assert MADE.fullmatch(first)
    assert found == [first] * (count + 1) + [second] * (count + 1)


def test_what_goes_wrong_is_put_down_to_its_request(records: Any) -> None:
    async def main() -> None:
        async with service_of(fails, "handler") as service:
            assert (await Client(service).get("/wrong")).status == 500
        async with service_of(fails_later, "asgi") as service:
            assert (await Client(service).get("/wrong")).status == 500

    def fails(request: Request) -> str:
        raise ValueError("oops")

    async def fails_later(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("oops")

    run(main)
    failures = [record for record in records() if record["level"] == "error"]
    assert len(failures) == 2
    assert all(MADE.fullmatch(record["request_id"]) for record in failures)


@pytest.mark.parametrize(
    ("sent", "trusted", "taken"),
    [
        ("abc-123", ("127.0.0.1",), True),
        ("abc-123", (), False),
        ("abc-123", ("10.0.0.0/8",), False),
        ("with space", ("127.0.0.1",), False),
        ("x" * 129, ("127.0.0.1",), False),
        ("\xe9", ("127.0.0.1",), False),
    ],
)
def test_an_id_is_taken_from_a_trusted_proxy_alone(
    sent: str, trusted: tuple[str, ...], taken: bool, records: Any
) -> None:
    async def main() -> None:
        async with service_of(handler, "handler", proxy_headers=trusted) as service:
            await Client(service, tcp=True).get(fields=f"X-Request-ID: {sent}\r\n")

    run(main)
    found = {record["request_id"] for record in records()}
    assert len(found) == 1
    assert (found == {sent}) is taken


def test_websockets_have_one_too(records: Any) -> None:
    async def chat(socket: WebSocket) -> None:
        async for message in socket:
            log.info("got %s", message)
            await socket.send(message)

    async def main() -> None:
        import websockets

        async with create_server(handler, websocket=chat) as server:
            await server.listen()
            async with websockets.connect(f"ws://127.0.0.1:{server.address[1]}/chat") as socket:
                await socket.send("hello")
                assert await socket.recv() == "hello"

    run(main)
    [record] = [record for record in records() if record["logger"] == "shop"]
    assert MADE.fullmatch(record["request_id"])


def test_the_report_of_a_blocked_loop_has_the_id(records: Any) -> None:
    def blocks(request: Request) -> str:
        time.sleep(0.15)
        return "ok"

    async def main() -> None:
        async with service_of(blocks, "handler", access_log=True) as service:
            health.watch(0.05)
            await asyncio.sleep(0.1)
            await Client(service).get("/slow")
            await until(lambda: health.statistics().blocked_count)
            report = health.statistics().last_blocked
            assert report is not None
            found.append(report.request_id)

    found: list[str | None] = []
    run(main)
    said = {
        record["request_id"] for record in records() if record["logger"] in ("multiloop.access", "multiloop.health")
    }
    assert said == set(found)


def test_text_lines_show_it_in_brackets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = configure(tmp_path, monkeypatch)

    async def main() -> None:
        async with service_of(sync_handler, "handler", access_log=True) as service:
            await Client(service, tcp=True).get("/a")

    run(main)
    logs.shutdown()
    begun, access = path.read_text().splitlines()
    found = re.search(r"\): \[([0-9a-f]{8}-1)\] shop: begun$", begun)
    assert found
    assert access.endswith(f'"GET /a HTTP/1.1" 200 2 {access.split()[-2]} {found[1]}')


def test_where_nobody_reads_ids_the_application_is_called_as_it_is(tmp_path: Path) -> None:
    logs.configure(logs.LogSettings(file=str(tmp_path / "log")))  # text, and no access log

    async def main() -> None:
        async with service_of(sync_handler, "handler") as service:
            assert service.app is sync_handler
            await Client(service).get()
            assert logs.request_id.get() is None

    run(main)
    logs.shutdown()
