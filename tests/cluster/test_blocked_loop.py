"""A worker whose loop is blocked says so itself, with the place, the time and the request."""

from __future__ import annotations

import re
import signal
import threading
from pathlib import Path

import pytest

from tests.support import wait_until

from .harness import serving

ASGI = """
import pathlib, re, time
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise RuntimeError("no lifespan")

    if scope["path"] == "/block":
        time.sleep(0.4)
    if scope["path"] == "/regex":
        re.match(r"(a+)+$", "a" * 24 + "b")
    if scope["path"] == "/last":
        pathlib.Path(__file__).with_name("blocking").touch()
        time.sleep(0.4)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})
"""
HANDLER = """
import re, time

def app(request):


    if request.path == "/block":
        time.sleep(0.4)
    if request.path == "/regex":
        re.match(r"(a+)+$", "a" * 24 + "b")
    return "ok"
"""
SAID = r"blocked for ([\d.]+) s(?: and still is,)? at \S*cluster_app\.py:(\d+) in app(?:, [^(]*)? \((GET \S+)\)"
STACK = 'cluster_app.py", line 10 in app'


@pytest.mark.parametrize("app", [ASGI, HANDLER], ids=["asgi", "handler"])
def test_a_blocked_loop_is_named_with_file_line_time_and_request(tmp_path: Path, app: str) -> None:
    with serving(tmp_path, app=app, workers=1) as server:
        server.wait_ready(1)
        assert server.get("/block") == "ok"
        wait_until(lambda: "blocked" in server.log)
        said = re.search(SAID, server.log)
        assert said, server.log
        assert said.group(2, 3) == ("8", "GET /block")
        assert 0.3 <= float(said[1]) <= 2.0  # what was slept, and what a busy machine adds


def test_a_regular_expression_that_holds_the_lock_is_named_with_its_request(tmp_path: Path) -> None:
    with serving(tmp_path, app=ASGI, workers=1) as server:
        server.wait_ready(1)
        assert server.get("/regex") == "ok"
        wait_until(
            lambda: re.search(SAID, server.log) or STACK in server.log
        )  # the primary's, where the loop was faster
        said = re.search(SAID, server.log)
        assert said is None or said.group(2, 3) == ("10", "GET /regex")


def test_a_block_that_ends_as_the_server_stops_is_still_reported(tmp_path: Path) -> None:
    with serving(tmp_path, app=ASGI, workers=1) as server:
        server.wait_ready(1)
        asking = threading.Thread(target=lambda: server.get("/last"))
        asking.start()
        wait_until((tmp_path / "blocking").exists)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        asking.join()
        said = re.search(SAID, server.log)
        assert said, server.log
        assert said.group(3) == "GET /last"


DEV = """
import pathlib

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        pathlib.Path(__file__).read_text()  # before it serves: nobody waits
        raise RuntimeError("no lifespan")
    pathlib.Path(__file__).read_text()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})
"""


@pytest.mark.parametrize("dev", [True, False])
def test_in_development_a_call_that_blocks_is_named_once(tmp_path: Path, dev: bool) -> None:
    with serving(tmp_path, app=DEV, workers=1, dev=dev) as server:
        server.wait_ready(1)
        assert [server.get("/"), server.get("/")] == ["ok", "ok"]
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        found = re.findall(r"open\('\S*app\.py'\) blocks the event loop at \S*cluster_app\.py:(\d+)", server.log)
        assert found == (["8"] if dev else []), server.log
        if dev:
            assert "(GET /); instead: await fs.read_file(path), or fs.open(path)" in server.log
