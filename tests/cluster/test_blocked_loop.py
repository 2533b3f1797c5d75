"""A worker whose loop is blocked says so itself, with the place, the time and the request."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support import wait_until

from .harness import serving

APP = """
import time

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise RuntimeError("no lifespan")
    if scope["path"] == "/block":
        time.sleep(0.4)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})
"""


def test_a_blocked_loop_is_named_with_file_line_time_and_request(tmp_path: Path) -> None:
    with serving(tmp_path, app=APP, workers=1) as server:
        server.wait_ready(1)
        assert server.get("/block") == "ok"
        wait_until(lambda: "blocked" in server.log)
        said = re.search(r"blocked for ([\d.]+) s at \S*cluster_app\.py:8 in app( \(GET /block\))?", server.log)
        assert said, server.log
        assert 0.3 <= float(said[1]) <= 2.0  # what was slept, and what a busy machine adds
        assert "time.sleep(0.4)" in server.log
        assert server.get("/pid") == "ok"
