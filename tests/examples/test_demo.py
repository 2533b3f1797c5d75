"""The demo application: what its buttons promise, through ASGI and on a real cluster."""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.support import environment, wait_until

DEMO = Path(__file__).parents[2] / "examples" / "demo"


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo_app", DEMO / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ask(
    demo: ModuleType, method: str, path: str, *bodies: bytes, query: bytes = b""
) -> tuple[int, dict[bytes, bytes], bytes]:
    """One request through ASGI: status, headers, body."""
    received = [{"type": "http.request", "body": body, "more_body": True} for body in bodies]
    received.append({"type": "http.request", "body": b"", "more_body": False})
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return received.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "query_string": query, "state": {}}
    asyncio.run(demo.app(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"]), b"".join(message.get("body", b"") for message in sent[1:])


# --- through ASGI -------------------------------------------------------------------------------------------------
def test_the_page_loads_nothing_from_elsewhere(demo: ModuleType) -> None:
    status, headers, body = ask(demo, "GET", "/")
    assert (status, headers[b"content-type"]) == (200, b"text/html; charset=utf-8")
    assert b"default-src 'none'" in headers[b"content-security-policy"]
    assert not re.search(rb"(?:src|href)=\"(?!data:)|https?://|@import|url\(", body)


def test_the_page_works_with_a_keyboard_in_light_and_in_dark(demo: ModuleType) -> None:
    page = demo.PAGE.decode()
    assert "prefers-color-scheme: dark" in page
    assert ":focus-visible" in page
    assert "onclick=" not in page.replace(".onclick =", "")
    for label in re.findall(r"<(?:input|progress|canvas)\b[^>]*>", page):
        assert "aria-label=" in label


def test_every_answer_names_its_worker(demo: ModuleType) -> None:
    for path in ("/ping", "/fast", "/block", "/nothing"):
        assert json.loads(ask(demo, "GET", path, query=b"seconds=0")[2])["worker"] == os.getpid()


def test_an_upload_is_counted_piece_by_piece(demo: ModuleType) -> None:
    answer = json.loads(ask(demo, "POST", "/upload", b"x" * 1000, b"y" * 500)[2])
    assert answer["bytes"] == 1500


SECONDS = {b"seconds=0.2": 0.2, b"": 1.5, b"seconds=x": 1.5, b"seconds=nan": 1.5, b"seconds=-1": 1.5, b"seconds=1e9": 5}


@pytest.mark.parametrize(("query", "seconds"), SECONDS.items())
def test_nobody_can_ask_for_too_much_work(demo: ModuleType, query: bytes, seconds: float) -> None:
    assert demo.wanted_seconds({"query_string": query}) == seconds


def test_what_is_not_there_is_404(demo: ModuleType) -> None:
    assert ask(demo, "GET", "/upload")[0] == 404


# --- on a cluster -------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("demo") / "log"
    with open(log, "w") as out:
        server = subprocess.Popen(
            [*(sys.executable, "-m", "multiloop", "serve", "app:app", "--app-dir", str(DEMO)),
             *("--port", "0", "--workers", "2", "--control", "")],
            env=environment(),
            stdout=out,
            stderr=out,
        )  # fmt: skip
    try:
        wait_until(lambda: "serving" in log.read_text() or server.poll() is not None)
        found = re.search(r"http://\S+", log.read_text())
        assert found is not None, log.read_text()
        yield found[0]
        server.terminate()
        assert server.wait(30) == 0
        assert "Traceback" not in log.read_text()
    finally:
        server.kill()
        server.wait()


def get(url: str, data: bytes | None = None) -> dict[str, Any]:
    with urllib.request.urlopen(url, data, timeout=30) as reply:
        found: dict[str, Any] = json.load(reply)
        return found


def test_probes_reach_every_worker(url: str) -> None:
    wait_until(lambda: len({get(f"{url}/ping")["worker"] for _ in range(4)}) == 2)  # the second starts after the first


def test_work_off_the_loop_delays_nobody(url: str) -> None:
    wait_until(lambda: len({get(f"{url}/offload?seconds=0")["worker"] for _ in range(2)}) == 2)
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        working = [threads.submit(get, f"{url}/offload?seconds=0.5") for _ in range(2)]
        answered = []
        while not all(work.done() for work in working):
            answered.append(get(f"{url}/ping")["worker"])
            time.sleep(0.01)
        for work in working:  # a loop that computes would have answered no probe
            assert answered.count(work.result()["worker"]) >= 5


def test_a_large_upload_arrives_whole(url: str) -> None:
    assert get(f"{url}/upload", b"z" * 3_000_000)["bytes"] == 3_000_000


def test_the_websocket_echoes(url: str) -> None:
    from websockets.sync.client import connect

    with connect(url.replace("http", "ws") + "/echo") as socket:
        for text in ("hello", "ünïcode"):
            socket.send(text)
            answer = json.loads(socket.recv(10))
            assert answer["did"] == f"echoed {text!r}"
