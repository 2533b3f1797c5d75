"""The examples of the pool: primes from a plain script, thumbnails in a FastAPI application."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import io
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.support import environment

import multiloop

EXAMPLES = Path(__file__).parents[2] / "examples"


def run_sieve(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / "prime_sieve.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=60)


@pytest.mark.parametrize(
    ("limit", "count", "largest"),
    [("2", "0", "0"), ("3", "1", "2"), ("100", "25", "97"), ("3000000", "216,816", "2,999,999")],
)
def test_the_sieve_counts_right(limit: str, count: str, largest: str) -> None:
    done = run_sieve(limit, "--quiet")
    assert done.stderr == ""
    assert done.stdout.startswith(f"{count} primes below {int(limit):,}; the largest is {largest} ")


def test_the_sieve_draws_a_bar_and_refuses_nonsense() -> None:
    assert "4/4" in run_sieve("4000000", "--workers", "2").stderr
    assert run_sieve("1").returncode == 2


# --- thumbnails ---------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def thumbnails() -> Any:
    pytest.importorskip("PIL")
    pytest.importorskip("fastapi")
    sys.path.insert(0, str(EXAMPLES))
    try:
        yield importlib.import_module("thumbnails")  # by this name its workers find it
    finally:
        sys.path.remove(str(EXAMPLES))
        del sys.modules["thumbnails"]


def picture(width: int, height: int, kind: str = "PNG") -> bytes:
    from PIL import Image

    made = io.BytesIO()
    Image.effect_noise((width, height), 50).convert("RGB").save(made, kind)
    return made.getvalue()


@contextlib.asynccontextmanager
async def client(module: ModuleType) -> AsyncIterator[Any]:
    import httpx

    async with module.lifespan(module.app) as state:

        async def with_state(scope: Any, receive: Any, send: Any) -> None:
            await module.app({**scope, "state": dict(state)}, receive, send)

        transport = httpx.ASGITransport(app=with_state)
        async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=60) as made:
            made.pool = state["pool"]  # type: ignore[attr-defined]
            yield made


def test_pictures_become_thumbnails(thumbnails: ModuleType) -> None:
    from PIL import Image

    async def main() -> None:
        async with client(thumbnails) as http:
            assert "<title>Thumbnails</title>" in (await http.get("/")).text
            data = [picture(800, 400), picture(300, 900, "JPEG"), picture(600, 600, "GIF")]
            replies = await asyncio.gather(*(http.post("/thumbnails?size=100", content=each) for each in data))
            for reply, size in zip(replies, [(100, 50), (33, 100), (100, 100)], strict=True):
                assert reply.headers["content-type"] == "image/webp"
                with Image.open(io.BytesIO(reply.content)) as made:
                    assert made.size == size
            assert (await http.get("/statistics")).json()["made"] == 3

    multiloop.run(main)


def test_what_is_no_picture_is_refused(thumbnails: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with client(thumbnails) as http:
            for data in (b"", b"no picture", picture(400, 400)[:2000]):
                reply = await http.post("/thumbnails", content=data)
                assert reply.status_code == 415, reply.text
            assert (await http.post("/thumbnails?size=5", content=b"")).status_code == 422
            monkeypatch.setattr(thumbnails, "MOST_BYTES", 1000)
            assert (await http.post("/thumbnails", content=picture(400, 400))).status_code == 413
            assert (await http.get("/statistics")).json()["refused"] == 3

    multiloop.run(main)


def test_too_many_at_once_are_told_to_come_back(thumbnails: ModuleType) -> None:
    async def main() -> None:
        async with client(thumbnails) as http:
            data = picture(1500, 1500)
            replies = await asyncio.gather(*(http.post("/thumbnails", content=data) for _ in range(20)))
            codes = [reply.status_code for reply in replies]
            assert set(codes) == {200, 503}
            assert codes.count(200) >= 9
            assert all(reply.headers["retry-after"] == "1" for reply in replies if reply.status_code == 503)

    multiloop.run(main)


def test_a_picture_that_takes_too_long_is_stopped(thumbnails: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbnails, "MOST_SECONDS", 0.05)

    async def main() -> None:
        async with client(thumbnails) as http:
            await http.pool.ready()
            reply = await http.post("/thumbnails", content=picture(4000, 4000, "JPEG"))
            assert reply.status_code == 422
            assert http.pool.statistics().timed_out == 1

    multiloop.run(main)
